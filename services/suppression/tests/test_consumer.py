"""Events that come twice, late, broken or of others; and parts that are away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import (
    CODED_KINDS,
    SUPPRESSION_FACTS_COLLECTION,
    TENANTS_COLLECTION,
    events_subject,
)
from backhaul_common.tenants import SuppressionSettings
from backhaul_common.vocabulary import Words
from backhaul_local.nats_server import NatsServer
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import EventBatch
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_proto.tenantdata.v1.tenantdata_pb2 import GetUsageRequest, PurgeTenantRequest
from backhaul_suppression.changes import MongoChanges
from backhaul_suppression.facts import fact_of
from backhaul_suppression.feed import subjects
from backhaul_testing import make
from backhaul_testing.proxy import SilentProxy
from backhaul_testing.waiting import until
from service_rig import ANNA, BEN, Rig, RigFactory, event, now_us, reply
from structlog.testing import capture_logs

EVENT_WORDS = Words(event_pb2.EventKind.DESCRIPTOR).by_number
ACME, GLOBEX = make.tenant("acme"), make.tenant("globex")


async def test_what_comes_again_changes_nothing(service: Rig) -> None:
    stop = reply(ACME, "1", "STOP")
    for _ in range(3):
        await service.publish(ACME, stop)
    again = type(stop).FromString(stop.SerializeToString())
    again.revision = 1
    await service.publish(ACME, again, stop)
    await service.drained()
    facts = await service.database[SUPPRESSION_FACTS_COLLECTION].find().to_list(None)
    assert [(fact["_id"], fact["revision"]) for fact in facts] == [(stop.id, 1)]
    found = await service.first.stub.Get(pb.GetRequest(tenant_id="acme", address=ANNA))
    assert [(one.event_id, one.since_us) for one in found.suppressions] == [(stop.id, stop.occurred_at_us)]
    assert await service.first.verdict(ACME) == "stop"


async def test_a_revision_that_takes_a_consent_back_counts_whichever_comes_first(service: Rig) -> None:
    for name, address in (("first", ANNA), ("last", BEN)):
        stop = reply(ACME, name, "STOP", recipient=address)
        dismissed = event(ACME, name, "inbound", recipient=address, revision=1, at_us=stop.occurred_at_us)
        for one in (stop, dismissed) if name == "first" else (dismissed, stop):
            await service.publish(ACME, one)
            await service.drained()
        assert await service.first.verdict(ACME, address) == "allowed"


async def test_a_stop_that_is_older_than_a_start_does_not_suppress(service: Rig) -> None:
    at_us = now_us() - 1_000_000
    await service.publish(ACME, reply(ACME, "start", "START", at_us=at_us))
    await service.drained()
    await service.publish(ACME, reply(ACME, "stop", "STOP", at_us=at_us - 1))
    await service.drained()
    assert await service.first.verdict(ACME) == "allowed"
    await service.publish(ACME, reply(ACME, "later", "STOP", at_us=at_us + 1))
    await service.drained()
    assert await service.first.verdict(ACME) == "stop"


async def test_what_is_broken_or_says_nothing_keeps_nobodys_opt_out_away(service: Rig) -> None:
    subject = events_subject(ACME.queue_path, "twilio", "inbound")
    await service.nats.jetstream().publish(subject, b"\xff\xff\xff")
    newer = event(ACME, "newer", "inbound")
    newer.kind = 99  # type: ignore[assignment]  # as a newer normalizer would send it
    stop = reply(ACME, "stop", "STOP")
    await service.nats.jetstream().publish(subject, EventBatch(events=[newer, stop]).SerializeToString())
    await service.drained()
    assert await service.first.verdict(ACME) == "stop"


async def test_a_tenant_that_cannot_be_read_is_one_line_however_many_events_it_has(service_factory: RigFactory) -> None:
    async with service_factory(log_level="info") as service:
        initech = make.tenant("initech")
        tenants = service.database[TENANTS_COLLECTION]
        await tenants.insert_one({**initech.to_document(), "status": "as of a newer version"})
        stops = [reply(initech, str(number), "STOP", recipient=f"+1500555{number:04}") for number in range(5)]
        with capture_logs() as lines:
            await service.publish(initech, *stops)
            await service.drained()
        # Its people are heard all the same.
        assert await service.database[SUPPRESSION_FACTS_COLLECTION].count_documents({"tenant": "initech"}) == len(stops)
        (line,) = (line for line in lines if line["event"] == "tenant_unreadable")
        assert (line["tenant"], line["log_level"], line["component"]) == ("initech", "error", "consumer")
        # As soon as it can be read, the next time is another one.
        await service.register(initech)
        await service.answering(initech)
        with capture_logs() as lines:
            await service.publish(initech, reply(initech, "after", "STOP"))
            await service.drained()
        assert [line["times"] for line in lines if line["event"] == "tenant_unreadable_over"] == [len(stops)]


async def test_a_delivery_lifts_a_bounce_and_leaves_no_fact_where_nothing_is_to_lift(service: Rig) -> None:
    address = "mail@example.com"
    mail: dict[str, Any] = {
        "recipient": address,
        "recipient_family": event_pb2.ADDRESS_FAMILY_EMAIL,
        "sender": "shop@example.com",
    }
    bounce = event(ACME, "bounce", "bounced", error_class=event_pb2.ERROR_CLASS_HARD, error_code="5.1.1", **mail)
    await service.publish(ACME, event(ACME, "before", "delivered", **mail), bounce)
    await service.drained()
    assert await service.first.verdict(ACME, address) == "hard_bounce"
    delivered = event(ACME, "after", "delivered", **mail)
    await service.publish(ACME, delivered)
    await service.drained()
    assert await service.first.verdict(ACME, address) == "allowed"
    await service.publish(ACME, event(ACME, "again", "delivered", **mail))
    await service.drained()
    facts = await service.database[SUPPRESSION_FACTS_COLLECTION].find({"registration": "acme.1"}).to_list(None)
    assert {fact["_id"] for fact in facts} == {bounce.id, delivered.id}


async def test_a_delivery_lifts_although_it_waited_while_no_copy_knew_the_rows(
    service: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = event(ACME, "failed", "undelivered", invalid_recipient=True, error_code="30005")
    await service.publish(ACME, failed)
    await service.drained()
    assert await service.first.verdict(ACME) == "invalid_address"
    service.first.stop.set()
    await asyncio.wait({service.first.task})

    # As with millions of rows: another copy begins, and is not through with them for a while.
    loading, go_on = asyncio.Event(), asyncio.Event()
    load = MongoChanges.load

    async def slow(changes: MongoChanges, put: Any) -> int:
        loading.set()
        await go_on.wait()
        return await load(changes, put)

    monkeypatch.setattr(MongoChanges, "load", slow)
    await service.publish(ACME, event(ACME, "after", "delivered"), reply(ACME, "stop", "STOP", recipient=BEN))
    async with service.another() as copy:
        await loading.wait()
        with pytest.raises(AssertionError, match="backlog"):
            await service.drained(within_s=1)  # Nothing says that it will not be: it is looked for as long as this.
        go_on.set()
        await service.drained()
        assert await copy.verdict(ACME) == "allowed"
        assert await copy.verdict(ACME, BEN) == "stop"


async def test_tenants_have_nothing_in_common(service: Rig) -> None:
    stop = reply(ACME, "1", "STOP")
    await service.publish(ACME, stop)
    # Of a registration that there is no more, or was never.
    old = reply(GLOBEX, "1", "STOP")
    old.registration = "globex.0"
    unknown = reply(make.tenant("nobody"), "1", "STOP")
    await service.publish(GLOBEX, old, unknown)
    await service.drained()
    assert await service.first.verdict(ACME) == "stop"
    assert await service.first.verdict(GLOBEX) == "allowed"
    assert not await service.database[SUPPRESSION_FACTS_COLLECTION].count_documents({"registration": {"$ne": "acme.1"}})
    assert not (await service.first.stub.List(pb.ListRequest(tenant_id="globex"))).suppressions
    found = await service.first.stub.Get(pb.GetRequest(tenant_id="globex", address=ANNA))
    assert not found.suppressions
    assert not found.history


async def test_a_tenant_that_is_deleted_takes_all_with_it_and_its_successor_begins_anew(service: Rig) -> None:
    stub, data = service.first.stub, service.first.data
    await stub.Add(pb.AddRequest(tenant_id="acme", address=ANNA, kind=pb.SUPPRESSION_KIND_MANUAL))
    await stub.Add(pb.AddRequest(tenant_id="globex", address=ANNA, kind=pb.SUPPRESSION_KIND_MANUAL))
    asked = PurgeTenantRequest(tenant_id="acme", registration="acme.1")
    with pytest.raises(BackhaulError) as caught:
        await data.PurgeTenant(asked)
    assert caught.value.code is Code.FAILED_PRECONDITION

    await service.register(ACME.model_copy(update={"status": "deleting", "revision": 2}))

    async def is_refused() -> bool:
        try:
            await stub.Check(pb.CheckRequest(tenant_id="acme", address=ANNA))
        except BackhaulError as exc:
            return exc.code is Code.NOT_FOUND
        return False

    await until("no answers about a tenant that is being deleted", is_refused)
    await data.PurgeTenant(asked)
    usage = await data.GetUsage(GetUsageRequest(tenant_id="acme", registration="acme.1"))
    assert not sum(one.count for one in usage.usage)
    await service.database[TENANTS_COLLECTION].delete_one({"_id": "acme"})
    successor = ACME.model_copy(update={"registration": "acme.2"})
    await service.register(successor)
    await service.answering(successor)
    assert await service.first.verdict(successor) == "allowed"
    assert (await stub.Add(pb.AddRequest(tenant_id="acme", address=ANNA, kind=pb.SUPPRESSION_KIND_STOP))).changed
    assert await service.first.verdict(successor) == "stop"
    assert await service.first.verdict(GLOBEX) == "manual"


async def test_a_tenant_that_was_created_anew_unheard_of_is_asked_about_anew(service_factory: RigFactory) -> None:
    """The other copy hears by the row alone that the id has another life: no message tells it."""
    async with service_factory(copies=2) as service:
        one, other = service.copies
        assert await other.verdict(ACME) == "allowed"
        successor = ACME.model_copy(update={"registration": "acme.2"})
        await service.database[TENANTS_COLLECTION].replace_one({"_id": "acme"}, successor.to_document())
        # An event of the new registration has this copy, whichever it is, read the tenant; the other one is not told.
        await service.publish(successor, reply(successor, "1", "STOP"))
        await service.drained()
        assert await one.verdict(successor) == "stop"
        assert await other.verdict(successor) == "stop"


async def test_while_mongodb_is_silent_nobody_is_allowed_and_the_stop_holds_afterwards(
    service_factory: RigFactory, mongo_server: Any
) -> None:
    async with SilentProxy(mongo_server.port) as proxy:
        through = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
        async with service_factory(mongo_uri=through) as service:
            assert await service.first.verdict(ACME) == "allowed"
            proxy.go_silent()
            await service.publish(ACME, reply(ACME, "1", "STOP"))

            async def is_unavailable() -> bool:
                try:
                    assert await service.first.verdict(ACME, BEN) == "allowed"
                except BackhaulError as exc:
                    return exc.code is Code.UNAVAILABLE
                return False

            await until("the end of the lease", is_unavailable, within_s=60)
            items = [pb.CheckItem(address=BEN)]
            with pytest.raises(BackhaulError) as caught:
                await service.first.stub.CheckBatch(pb.CheckBatchRequest(tenant_id="acme", items=items))
            assert caught.value.code is Code.UNAVAILABLE
            proxy.speak()
            await service.drained(within_s=60)
            await service.answering(ACME)
            assert await service.first.verdict(ACME) == "stop"


async def test_while_nats_is_away_questions_and_additions_go_on(
    service_factory: RigFactory, fresh_nats: NatsServer
) -> None:
    async with service_factory(copies=2) as service:
        one, other = service.copies
        await fresh_nats.kill()
        added = await one.stub.Add(pb.AddRequest(tenant_id="acme", address=ANNA, kind=pb.SUPPRESSION_KIND_MANUAL))
        assert added.changed
        assert await other.verdict(ACME) == "manual"
        assert await other.verdict(ACME, BEN) == "allowed"
        await fresh_nats.start()

        async def connected() -> bool:
            return service.nats.is_connected

        await until("the test's own connection", connected)
        await service.publish(ACME, reply(ACME, "1", "STOP", recipient=BEN))
        await service.drained(within_s=60)
        assert await other.verdict(ACME, BEN) == "stop"
        assert await one.verdict(ACME, BEN) == "stop"


def test_no_two_filters_overlap_and_each_kind_that_says_something_has_one() -> None:
    kinds = [one.split(".")[3] for one in subjects()]
    assert len(kinds) == len(set(kinds))
    assert all(one.endswith(".>") == (kind in CODED_KINDS) for one, kind in zip(subjects(), kinds, strict=True))
    for number, word in EVENT_WORDS.items():
        failure = event(ACME, word, "failed", error_class=event_pb2.ERROR_CLASS_HARD, error_code="1")
        delivery = event(ACME, word, "delivered", recipient_family=event_pb2.ADDRESS_FAMILY_VOICE)
        said = []
        for one in (failure, delivery):
            one.kind = number  # type: ignore[assignment]  # each of the enum's own numbers
            said.append(fact_of(one, SuppressionSettings(), 1))
        assert word in kinds or not any(said), word
