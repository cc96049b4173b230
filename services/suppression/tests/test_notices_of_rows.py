"""What is said when an address is suppressed, and when a reason is gone: of what happens one by one."""

from __future__ import annotations

import asyncio

from backhaul_common.names import SUPPRESSION_OUTBOX, TENANTS_COLLECTION
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_suppression.model import EVERYTHING, Kind, Origin, Scope, ScopeKind, Source, Target
from backhaul_testing import make, streams
from backhaul_testing.waiting import until
from service_rig import BEN, reply
from service_rig import Rig as Service
from store_rig import ANNA, Rig, fact, row_id

SENDER = Scope(ScopeKind.SENDER, "+15005550006")
BOUNCED = Target(Kind.HARD_BOUNCE, EVERYTHING)
ACME = make.tenant("acme")


async def told(rig: Rig) -> list[Notice]:
    """What waits to be said, in the order of the changes."""
    rows = await rig.documents(SUPPRESSION_OUTBOX)
    notices = [Notice.FromString(row["payload"]) for row in rows]
    return sorted(notices, key=lambda notice: int(attributes(notice)["position"]))


def attributes(notice: Notice) -> dict[str, str]:
    return {one.name: one.value for one in notice.attributes}


async def types(rig: Rig) -> list[str]:
    return [notice.type for notice in await told(rig)]


async def test_what_is_suppressed_and_what_is_lifted_is_said(rig: Rig) -> None:
    await rig.register(ACME)
    store = rig.store()
    stop = fact("a" * 32, 1000, targets=[Target(Kind.STOP, SENDER)], traceparent="00-1-2-01", message_id="SM1")
    (added,) = (await store.commit([stop])).changes
    (notice,) = await told(rig)
    assert (notice.type, notice.tenant_id, notice.registration) == ("suppression.added", "acme", "acme.1")
    assert (notice.occurred_at_us, notice.traceparent) == (added.at_us, "00-1-2-01")
    assert (notice.about.recipient, notice.about.event_id) == (ANNA, "a" * 32)
    assert notice.about.reference == row_id(scope=SENDER)
    assert attributes(notice) == {
        "kind": "stop",
        "scope_kind": "sender",
        "scope": "+15005550006",
        "family": "phone",
        "position": "1",
    }
    await store.commit([fact("b" * 32, 2000, targets=[Target(Kind.STOP, SENDER)], lifts=True)])
    _, lifted = await told(rig)
    assert (lifted.type, lifted.about.event_id) == ("suppression.lifted", "b" * 32)
    assert (lifted.about.reference, attributes(lifted)["position"]) == (row_id(scope=SENDER), "2")


async def test_what_changes_nothing_is_not_said(rig: Rig) -> None:
    await rig.register(ACME)
    store = rig.store()
    await store.commit([fact("a" * 32, 1000)])
    # An earlier word moves since when it holds, and so does one after a lift that nobody heard of before.
    assert (await store.commit([fact("b" * 32, 500)])).changes
    assert (await store.commit([fact("c" * 32, 700, lifts=True)])).changes
    await store.commit([fact("a" * 32, 1000)])
    assert await types(rig) == ["suppression.added"]
    await store.commit([fact("d" * 32, 2000, lifts=True)])
    await store.commit([fact("e" * 32, 2500, lifts=True)])
    assert await types(rig) == ["suppression.added", "suppression.lifted"]


async def test_what_one_commit_adds_and_lifts_is_said_in_its_order(rig: Rig) -> None:
    await rig.register(ACME)
    facts = [
        fact("a" * 32, 1000, targets=[Target(Kind.STOP, EVERYTHING), BOUNCED]),
        fact("b" * 32, 2000, lifts=True),
        fact("c" * 32, 3000),
    ]
    await rig.store().commit(facts)
    said = [(notice.type.partition(".")[2], attributes(notice)["kind"]) for notice in await told(rig)]
    assert sorted(said[:2]) == [("added", "hard_bounce"), ("added", "stop")]
    assert said[2:] == [("lifted", "stop"), ("added", "stop")]


async def test_a_revision_that_takes_a_word_back_lifts(rig: Rig) -> None:
    await rig.register(ACME)
    store = rig.store()
    await store.commit([fact("a" * 32, 1000)])
    await store.commit([fact("a" * 32, 1000, targets=[], revision=1)])
    assert await types(rig) == ["suppression.added", "suppression.lifted"]


async def test_nothing_is_said_of_what_a_file_brings(rig: Rig) -> None:
    await rig.register(ACME)
    store = rig.store()
    imported = fact("a" * 32, 1000, origin=Origin.IMPORT, source=Source.FILE, event_id="")
    assert (await store.commit([imported])).changes
    assert await types(rig) == []
    # What happens to it afterwards is said.
    await store.commit([fact("b" * 32, 2000, lifts=True)])
    assert await types(rig) == ["suppression.lifted"]


async def test_nothing_is_said_of_a_tenant_who_is_being_deleted(rig: Rig) -> None:
    await rig.register(ACME)
    await rig.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    await rig.store().commit([fact("a" * 32, 1000)])
    assert await types(rig) == []


async def test_two_copies_say_each_change_once(rig: Rig) -> None:
    await rig.register(ACME)
    facts = [fact(f"{number:032x}", 1000, address=f"+1500555{number:04}") for number in range(40)]
    await asyncio.gather(*(rig.store().commit([one]) for one in [*facts, *facts]))
    notices = await told(rig)
    assert [int(attributes(notice)["position"]) for notice in notices] == list(range(1, 41))
    assert len({notice.about.recipient for notice in notices}) == 40


async def test_it_is_on_the_stream_of_notices(service: Service) -> None:
    await service.publish(ACME, reply(ACME, "1", "STOP"))
    await service.drained()
    said: list[Notice] = []

    async def all_told() -> bool:
        said[:] = await streams.noticed(service.nats)
        return len(said) >= 3

    kind = pb.SUPPRESSION_KIND_MANUAL
    await service.first.stub.Add(pb.AddRequest(tenant_id="acme", address=BEN, kind=kind))
    await service.first.stub.Lift(pb.LiftRequest(tenant_id="acme", address=BEN, kind=kind))
    await until("notices", all_told)
    assert [(notice.type, attributes(notice)["kind"]) for notice in said] == [
        ("suppression.added", "stop"),
        ("suppression.added", "manual"),
        ("suppression.lifted", "manual"),
    ]
