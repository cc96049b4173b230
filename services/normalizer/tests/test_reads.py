"""The gRPC reads: pages that stay stable under writes, filters, hostile tokens, usage and purge."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from backhaul_channels import EventKind
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import (
    CALLBACKS_STREAM,
    DEAD_LETTERS_COLLECTION,
    EVENTS_COLLECTION,
    NORMALIZER_CONSUMER,
)
from backhaul_common.sizes import PAGE_BYTES
from backhaul_normalizer import buckets, reads
from backhaul_normalizer.model import Rejection
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.tenantdata.v1 import tenantdata_pb2
from backhaul_testing import make
from google.protobuf import message_factory
from normalizer_rig import Rig, RigFactory
from tellings import told

TENANT_DATA = tenantdata_pb2.DESCRIPTOR.services_by_name["TenantDataService"]


async def fill(rig: Rig, of: Any, numbers: range, status: str = "sent", **more: str) -> None:
    for n in numbers:
        await rig.publish(of, make.callback(of, make.twilio(f"SM{n}", status, **more), query="campaign=spring"))
    await rig.drained()


async def test_pages_show_every_row_once_while_new_ones_arrive(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await fill(rig, acme, range(25))
    seen: list[str] = []
    token, round_trip = "", 0
    while True:
        page = await rig.stub.ListMessages(pb.ListMessagesRequest(tenant_id="acme", page_size=7, page_token=token))
        seen += [message.message_id for message in page.messages]
        token = page.next_page_token
        if not token:
            break
        round_trip += 1
        # A new message, and an old one that moves on: neither may shift the pages that are still to come.
        await fill(rig, acme, range(100 + round_trip, 101 + round_trip))
        await fill(rig, acme, range(round_trip, round_trip + 1), "delivered")
    assert sorted(seen) == sorted(f"SM{n}" for n in range(25))


async def test_filters_meet_what_they_name_and_nothing_else(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await fill(rig, acme, range(3))
    await fill(rig, acme, range(3, 5), "failed", ErrorCode="30006")
    await fill(rig, acme, range(5, 6), "failed", ErrorCode="21211", To="+15005559999")

    async def messages(**filters: Any) -> set[str]:
        page = await rig.stub.ListMessages(pb.ListMessagesRequest(tenant_id="acme", **filters))
        return {message.message_id for message in page.messages}

    async def events(**filters: Any) -> set[str]:
        page = await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme", **filters))
        return {event.message_id for event in page.events}

    everything = {f"SM{n}" for n in range(6)}
    assert await messages() == await events() == everything
    assert (
        await messages(state=event_pb2.EVENT_KIND_FAILED)
        == await events(kind=event_pb2.EVENT_KIND_FAILED)
        == {
            "SM3",
            "SM4",
            "SM5",
        }
    )
    assert await messages(error_code="30006") == await events(error_code="30006") == {"SM3", "SM4"}
    assert await messages(fulfilment_state=pb.FULFILMENT_STATE_INVALID_NUMBER) == {"SM5"}
    assert await messages(recipient="+15005559999") == await events(recipient="+15005559999") == {"SM5"}
    assert await messages(communication_id="spring") == await events(communication_id="spring") == everything
    assert await messages(channel="TWILIO") == everything
    assert await messages(channel="sendgrid") == await events(channel="sendgrid") == set()
    assert await events(channel="twilio", message_id="SM2") == {"SM2"}
    first = (await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme"))).events[-1]
    assert await events(from_us=first.received_at_us + 1) == everything - {first.message_id}
    assert await events(to_us=first.received_at_us + 1) == {first.message_id}


async def bytes_read(rig: Rig) -> int:
    """How much MongoDB has sent since its start; to nobody but the test that asks."""
    return int((await rig.database.command("serverStatus"))["network"]["bytesOut"])


async def store_for_acme(rig: Rig) -> MongoEventStore:
    await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
    return MongoEventStore(rig.client, rig.database)


async def test_pages_and_timelines_of_large_events_end_before_they_are_too_large(rig: Rig) -> None:
    store = await store_for_acme(rig)
    count, size = 90, 400_000  # 36 MB, more than gRPC carries.
    facts = [
        told(key=str(n), kind=EventKind.OPENED, name="M1", at=n, arrived=100 + n // 3, text="x" * size)
        for n in range(count)
    ]
    for start in range(0, count, 10):
        await store.commit(facts[start : start + 10], [])
    newest = sorted(facts, key=lambda one: (one.origin.received_at_us, one.id), reverse=True)

    seen: list[str] = []
    token, before = "", await bytes_read(rig)
    while True:
        page = await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme", page_size=500, page_token=token))
        assert page.ByteSize() < PAGE_BYTES + 4096
        if not seen:
            assert await bytes_read(rig) - before < 20_000_000  # The rest was not read to be thrown away.
        seen += [event.id for event in page.events]
        token = page.next_page_token
        if not token:
            break
        assert len(page.events) == PAGE_BYTES // size
    assert seen == [one.id for one in newest]

    found = await rig.stub.GetMessage(pb.GetMessageRequest(tenant_id="acme", channel="sendgrid", message_id="M1"))
    assert [event.id for event in found.timeline] == [one.id for one in facts[: PAGE_BYTES // size]]
    assert found.truncated


async def test_a_row_that_is_larger_than_a_page_is_a_page_of_its_own(rig: Rig) -> None:
    """An event of such a size is not taken any more."""
    store = await store_for_acme(rig)
    facts = [told(key=str(n), kind=EventKind.OPENED, arrived=100 + n) for n in range(3)]
    larger = Event(raw=bytes(PAGE_BYTES)).SerializeToString()
    await store.commit([msgspec.structs.replace(one, payload=one.payload + larger) for one in facts], [])
    token = ""
    for fact in reversed(facts):
        page = await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme", page_token=token))
        assert [event.id for event in page.events] == [fact.id]
        token = page.next_page_token
    assert not token


async def test_a_list_of_dead_letters_does_not_read_their_callbacks(rig: Rig) -> None:
    await rig.register(make.tenant("acme"))
    for n in range(10):
        letter: dict[str, Any] = {"_id": f"d{n}", "registration": "acme.1", "channel": "twilio", "provider": "twilio"}
        letter |= {"state": "open", "reason": "", "occurrences": 1, "first_seen_at_us": n, "last_seen_at_us": n}
        callback = Callback(body=bytes(1_000_000)).SerializeToString()
        await rig.database[DEAD_LETTERS_COLLECTION].insert_one({**letter, "callback": callback})
    before = await bytes_read(rig)
    page = await rig.stub.ListDeadLetters(pb.ListDeadLettersRequest(tenant_id="acme"))
    assert len(page.dead_letters) == 10
    assert await bytes_read(rig) - before < 1_000_000


async def test_a_dead_letter_counts_what_comes_anew_and_no_redelivery(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    unreadable = make.callback(acme, b"not json at all", channel="sendgrid")

    async def letter() -> pb.DeadLetter:
        await rig.drained()
        (only,) = (await rig.stub.ListDeadLetters(pb.ListDeadLettersRequest(tenant_id="acme"))).dead_letters
        assert isinstance(only, pb.DeadLetter)
        return only

    for times in (1, 2):
        await rig.publish(acme, unreadable)
        assert (await letter()).occurrences == times
    which = {"tenant_id": "acme", "id": (await letter()).id}
    await rig.stub.ReplayDeadLetter(pb.ReplayDeadLetterRequest(**which))
    assert ((await letter()).occurrences, (await letter()).state) == (3, pb.DEAD_LETTER_STATE_OPEN)
    await rig.stub.DiscardDeadLetter(pb.DiscardDeadLetterRequest(**which))

    # A new consumer delivers everything once more.
    await rig.nats.jetstream().delete_consumer(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
    assert ((await letter()).occurrences, (await letter()).state) == (3, pb.DEAD_LETTER_STATE_DISCARDED)
    await rig.publish(acme, unreadable)
    assert ((await letter()).occurrences, (await letter()).state) == (4, pb.DEAD_LETTER_STATE_OPEN)


async def test_duplicates_of_a_dead_letter_that_one_batch_brings_count_and_are_known_again(
    rig_factory: RigFactory,
) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        unreadable = make.callback(acme, "MessageStatus=sent")
        js = rig.nats.jetstream()
        await rig.publish(acme, unreadable, unreadable)
        for _ in range(3):
            await rig.publish(acme, unreadable)
        letters = rig.database[DEAD_LETTERS_COLLECTION]
        async with rig.another():
            await rig.drained()
            (row,) = await letters.find({}).to_list(None)
            assert (row["occurrences"], row["stream_seq"]) == (5, 4)
            await letters.update_one({"_id": row["_id"]}, {"$set": {"state": "discarded"}})
            # A new consumer delivers what is left once more, in another batch than before.
            await js.delete_msg(CALLBACKS_STREAM, 1)
            await js.delete_consumer(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
            await rig.drained()
            (again,) = await letters.find({}).to_list(None)
            assert (again["occurrences"], again["state"]) == (5, "discarded")
            await rig.publish(acme, unreadable, unreadable)
            await rig.drained()
            (again,) = await letters.find({}).to_list(None)
            assert (again["occurrences"], again["state"]) == (7, "open")


async def test_a_dead_letter_is_not_opened_by_what_a_slower_copy_settles_late(rig: Rig) -> None:
    await rig.register(make.tenant("acme"))
    store, letters = MongoEventStore(rig.client, rig.database), rig.database[DEAD_LETTERS_COLLECTION]

    async def file(stream_seq: int) -> tuple[int, str, int]:
        rejection = Rejection("d", "acme", "acme.1", "path-acme", "twilio", "twilio", "unreadable", b"", 1, stream_seq)
        await store.commit(facts=[], rejections=[rejection])
        row = await letters.find_one({"_id": "d"})
        assert row is not None
        return row["occurrences"], row["state"], row["stream_seq"]

    assert await file(11) == (1, "open", 11)
    await letters.update_one({"_id": "d"}, {"$set": {"state": "discarded"}})
    assert await file(10) == (1, "discarded", 11)
    assert await file(11) == (1, "discarded", 11)
    assert await file(12) == (2, "open", 12)


async def test_a_communication_that_every_message_left_is_unknown(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    # What happened first says where a message belongs, whenever it is heard of: the message moves.
    late, early = "2026-03-01T12:00:00Z", "2026-03-01T11:00:00Z"
    await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent", Timestamp=late), query="campaign=winter"))
    await rig.drained()
    assert (
        await rig.stub.GetCommunication(pb.GetCommunicationRequest(tenant_id="acme", communication_id="winter"))
    ).communication.messages == 1
    await rig.publish(acme, make.callback(acme, make.twilio("SM1", "queued", Timestamp=early), query="campaign=spring"))
    await rig.drained()
    with pytest.raises(BackhaulError) as left:
        await rig.stub.GetCommunication(pb.GetCommunicationRequest(tenant_id="acme", communication_id="winter"))
    assert left.value.code is Code.NOT_FOUND
    found = await rig.stub.GetCommunication(pb.GetCommunicationRequest(tenant_id="acme", communication_id="spring"))
    assert found.communication.messages == 1


@pytest.mark.parametrize("token", ["x", "AAAA", "MTIz", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5Ong=", "é", "LTE6YQ=="])
async def test_a_token_that_no_page_gave_is_refused(rig: Rig, token: str) -> None:
    await rig.register(make.tenant("acme"))
    with pytest.raises(BackhaulError) as refused:
        await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme", page_token=token))
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.field == "page_token"


async def test_what_is_not_there_is_told_with_what_to_do(rig: Rig) -> None:
    await rig.register(make.tenant("acme"))
    call: Any  # Each takes a request of its own.
    for call, request in (
        (rig.stub.GetMessage, pb.GetMessageRequest(tenant_id="acme", channel="twilio", message_id="SM1")),
        (rig.stub.GetCommunication, pb.GetCommunicationRequest(tenant_id="acme", communication_id="c")),
        (rig.stub.GetDeadLetter, pb.GetDeadLetterRequest(tenant_id="acme", id="x")),
        (rig.stub.ReplayDeadLetter, pb.ReplayDeadLetterRequest(tenant_id="acme", id="x")),
        (rig.stub.DiscardDeadLetter, pb.DiscardDeadLetterRequest(tenant_id="acme", id="x")),
    ):
        with pytest.raises(BackhaulError) as missing:
            await call(request)
        assert (missing.value.code, bool(missing.value.field), bool(missing.value.fix)) == (Code.NOT_FOUND, True, True)


@pytest.mark.parametrize("service", [pb.DESCRIPTOR.services_by_name["NormalizerService"], TENANT_DATA])
async def test_every_call_needs_a_tenant(rig: Rig, service: Any) -> None:
    for method in service.methods:
        request = message_factory.GetMessageClass(method.input_type)()
        with pytest.raises(BackhaulError) as refused:
            await getattr(rig.data if service is TENANT_DATA else rig.stub, method.name)(request)
        assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "tenant_id"), method.name


async def test_a_purge_takes_all_of_one_tenant_and_nothing_of_another(rig: Rig) -> None:
    acme, globex = make.tenant("acme"), make.tenant("globex")
    await rig.register(acme, globex)
    await fill(rig, acme, range(3))
    await fill(rig, globex, range(2))
    purge = tenantdata_pb2.PurgeTenantRequest(tenant_id="acme", registration="acme.1")
    with pytest.raises(BackhaulError) as lives:
        await rig.data.PurgeTenant(purge)
    assert (lives.value.code, lives.value.field) == (Code.FAILED_PRECONDITION, "registration")
    with pytest.raises(BackhaulError) as unnamed:
        await rig.data.PurgeTenant(tenantdata_pb2.PurgeTenantRequest(tenant_id="acme"))
    assert (unnamed.value.code, unnamed.value.field) == (Code.INVALID_ARGUMENT, "registration")
    assert await rig.usage("acme") == {"events": 3, "messages": 3, "counts": 2, "communications": 1, "dead_letters": 0}

    await rig.register(acme.model_copy(update={"status": "deleting"}))
    held = await rig.database[EVENTS_COLLECTION].count_documents({"registration": "acme.1"})
    assert (await rig.data.PurgeTenant(purge)).deleted == held + 3 + 2 + 1  # the last is the communication
    assert await rig.events_of("acme.1") == 0
    assert (await rig.data.PurgeTenant(purge)).deleted == 0
    # Somebody else has the id by now, and keeps what is theirs.
    await rig.register(acme.model_copy(update={"registration": "acme.2"}))
    assert (await rig.data.PurgeTenant(purge)).deleted == 0
    assert (await rig.usage("globex"))["events"] == 2


@pytest.mark.timed
async def test_a_filter_without_an_index_ends_on_the_server(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await fill(rig, acme, range(20))
    monkeypatch.setattr(reads, "MAX_READ_S", 0.15)
    # A row that takes 100 ms to look at stands for a thousand that take 0.1.
    slow = {"$where": "function() { sleep(100); return false; /* a scan of the test's own */ }"}
    began = time.monotonic()
    with pytest.raises(BackhaulError) as caught:
        await reads.MongoReads(rig.database).messages(acme.registration, slow, (0, 0), 50, "")
    assert time.monotonic() - began < 1.5
    assert_too_long(caught.value)
    running = await rig.client.admin.command({"currentOp": 1, "op": "query"})
    assert not [one for one in running["inprog"] if "of the test's own" in str(one)]
    # Through the service, with its usual bound, the same rows are found.
    monkeypatch.undo()
    page = await rig.stub.ListMessages(pb.ListMessagesRequest(tenant_id="acme", state=event_pb2.EVENT_KIND_READ))
    assert not page.messages


async def test_a_walk_through_buckets_of_which_none_fits_ends_on_the_server(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.register(make.tenant("acme"))
    marks = [buckets.ALL, buckets.kind_mark("sent"), buckets.channel_mark("twilio")]
    bucket = {"registration": "acme.1", "at_us": 1, "first_us": 1, "marks": marks, "events": []}
    await rig.database[EVENTS_COLLECTION].insert_many(
        [{**bucket, "_id": buckets.new_bucket_id()} for _ in range(30_000)]
    )
    both = {"kind": "sent", "channel": "sendgrid"}
    monkeypatch.setattr(reads, "MAX_READ_S", 0.002)
    with pytest.raises(BackhaulError) as caught:
        await reads.MongoReads(rig.database).events("acme.1", both, (0, 0), 50, "")
    assert_too_long(caught.value)
    monkeypatch.undo()
    assert await reads.MongoReads(rig.database).events("acme.1", both, (0, 0), 50, "") == ([], "")


def assert_too_long(error: BackhaulError) -> None:
    assert (error.code, error.field) == (Code.DEADLINE_EXCEEDED, "from")
    assert "Narrow the span" in error.fix
