"""What is read of communications, batches and members, over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_normalizer.communications.reading import MAX_BATCHES
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2
from backhaul_testing import make
from normalizer_rig import Rig
from register_rig import Register, member, phone, register_of


@pytest.fixture
async def register(rig: Rig) -> AsyncIterator[Register]:
    async with register_of(rig) as made:
        yield made


async def told(rig: Rig, number: int, status: str, **more: str) -> None:
    """What Twilio tells of the message to a member; it belongs to the communication sale."""
    body = make.twilio(f"SM{number}", status, To=phone(number), **more)
    await rig.publish(make.tenant("acme"), make.callback(make.tenant("acme"), body, query="communicationId=sale"))


async def test_members_are_read_with_what_became_of_each(rig: Rig, register: Register) -> None:
    await register.communication()
    await register.put_batch()
    await register.add([member(number) for number in range(1, 5)])
    await told(rig, 1, "delivered")
    await told(rig, 2, "failed", ErrorCode="30003")
    await told(rig, 3, "queued")
    await rig.drained()

    members = await register.members()
    states = {key: [one.message.state for one in found.destinations] for key, found in members.items()}
    assert states == {
        "m1": [event_pb2.EVENT_KIND_DELIVERED],
        "m2": [event_pb2.EVENT_KIND_FAILED],
        "m3": [event_pb2.EVENT_KIND_QUEUED],
        "m4": [event_pb2.EVENT_KIND_UNSPECIFIED],
    }
    assert not members["m4"].destinations[0].HasField("message")
    message = members["m2"].destinations[0].message
    assert (message.message_id, message.error_code) == ("SM2", "30003")
    assert (message.batch_id, message.member_key) == ("b1", "m2")
    asked = normalizer_pb2.GetMessageRequest(tenant_id="acme", channel="twilio", message_id="SM2")
    alone = (await rig.stub.GetMessage(asked)).message
    assert (alone.batch_id, alone.member_key) == ("b1", "m2")

    progress = (await register.batch()).progress
    assert (progress.members, progress.destinations, progress.waiting) == (4, 4, 1)
    assert (progress.processed, progress.final) == (2, 2)
    counted = {one.state: one.count for one in progress.fulfilment if one.count}
    assert counted == {
        normalizer_pb2.FULFILMENT_STATE_QUEUED: 1,
        normalizer_pb2.FULFILMENT_STATE_DELIVERED: 1,
        normalizer_pb2.FULFILMENT_STATE_FAILED: 1,
    }
    described = await register.describe()
    assert described.counts.messages == 3
    assert [one.progress for one in described.batches] == [progress]
    errors = [(one.channel, one.error_code, one.count) for one in described.counts.errors]
    assert errors == [("twilio", "30003", 1)]
    counts = await rig.stub.GetCommunication(
        normalizer_pb2.GetCommunicationRequest(tenant_id="acme", communication_id="sale")
    )
    assert counts.communication == described.counts


async def test_errors_of_messages_are_counted_in_the_index_alone(rig: Rig, register: Register) -> None:
    await register.communication()
    await told(rig, 1, "failed", ErrorCode="30003")
    await rig.drained()
    index = {"registration": 1, "communication_id": 1, "channel": 1, "error_code": 1}
    query = {"registration": "acme.1", "communication_id": "sale", "error_code": {"$gt": ""}}
    group = {"_id": {"channel": "$channel", "error_code": "$error_code"}, "count": {"$sum": 1}}
    explained = await rig.database.command(
        "explain",
        {
            "aggregate": "messages",
            "pipeline": [{"$match": query}, {"$group": group}],
            "hint": index,
            "cursor": {},
        },
        verbosity="executionStats",
    )
    stats = explained.get("executionStats") or explained["stages"][0]["$cursor"]["executionStats"]
    assert (stats["totalKeysExamined"], stats["totalDocsExamined"]) == (1, 0)


async def test_a_member_tells_of_its_message_before_any_callback(rig: Rig, register: Register) -> None:
    await register.communication()
    await register.put_batch()
    sent: list[dict[str, Any]] = [
        {"member_key": "m1", "destinations": [{"recipient": phone(1), "message_id": "SM1"}]},
        {"member_key": "m2", "destinations": [{"message_id": "SM2"}]},
        {
            "member_key": "m3",
            "destinations": [{"channel": "SendGrid", "recipient": "c@example.com", "message_id": "x"}],
        },
    ]
    for _ in range(2):  # Whoever is not sure that it was taken sends it again.
        await register.add(sent)
    await rig.drained()
    members = await register.members()
    states = {key: one.destinations[0].message.state for key, one in members.items()}
    assert states == dict.fromkeys(("m1", "m2", "m3"), event_pb2.EVENT_KIND_QUEUED)
    for number in (1, 2):
        await told(rig, number, "delivered")
    await rig.drained()
    progress = (await register.batch()).progress
    assert (progress.destinations, progress.waiting, progress.final) == (3, 0, 2)
    assert (await register.members())["m2"].destinations[0].message.event_count == 2


async def test_a_communication_that_nobody_registered_is_described_and_can_be_disabled(
    rig: Rig, register: Register
) -> None:
    with pytest.raises(BackhaulError) as caught:
        await register.describe()
    assert (caught.value.code, caught.value.field) == (Code.NOT_FOUND, "communication_id")
    await told(rig, 1, "sent")
    await rig.drained()
    described = await register.describe()
    assert described.counts.messages == 1
    assert described.communication.status == pb.COMMUNICATION_STATUS_ACTIVE
    assert not described.communication.HasField("settings")
    request = pb.DisableCommunicationRequest(tenant_id="acme", communication_id="sale", reason="x")
    disabled = (await register.stub.DisableCommunication(request)).communication
    assert disabled.HasField("settings")
    assert disabled.created_at_us == described.communication.created_at_us
    assert not (await register.communication()).created


async def test_communications_are_listed_by_what_they_are(rig: Rig, register: Register) -> None:
    await told(rig, 1, "sent")
    await rig.drained()
    for number in range(5):
        await register.communication(f"c{number}", mode="live" if number % 2 else "test")
    await register.communication("mail", channel="sendgrid")
    request = pb.DisableCommunicationRequest(tenant_id="acme", communication_id="c1", reason="x")
    await register.stub.DisableCommunication(request)

    async def ids(**filters: Any) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            request = pb.ListCommunicationsRequest(tenant_id="acme", page_size=2, page_token=token, **filters)
            page = await register.stub.ListCommunications(request)
            assert len(page.communications) <= 2
            found += [one.id for one in page.communications]
            if not (token := page.next_page_token):
                return found

    assert await ids() == ["mail", "c4", "c3", "c2", "c1", "c0", "sale"]
    assert await ids(registered=True) == ["mail", "c4", "c3", "c2", "c1", "c0"]
    assert await ids(mode="live") == ["c3", "c1"]
    assert await ids(channel="SendGrid") == ["mail"]
    assert await ids(status=pb.COMMUNICATION_STATUS_DISABLED) == ["c1"]
    first = (await register.describe("c2")).communication.created_at_us
    assert await ids(from_us=first) == ["mail", "c4", "c3", "c2"]
    assert await ids(to_us=first) == ["c1", "c0", "sale"]
    for wrong in ({"page_size": 501}, {"page_token": "?"}):
        with pytest.raises(BackhaulError) as caught:
            await register.stub.ListCommunications(pb.ListCommunicationsRequest(tenant_id="acme", **wrong))
        assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, next(iter(wrong)))


async def test_batches_are_listed_newest_first(register: Register) -> None:
    await register.communication()
    await register.communication("other")
    names = [f"b{number}" for number in range(MAX_BATCHES + 2)]
    for name in names:
        await register.put_batch(name)
    await register.put_batch("of-other", of="other")
    await register.add([member(1), member(2)], "b3")
    await register.close("b3")

    async def page(**asked: Any) -> tuple[list[pb.Batch], str]:
        answer = await register.stub.ListBatches(pb.ListBatchesRequest(tenant_id="acme", **asked))
        return list(answer.batches), answer.next_page_token

    newest = names[::-1]
    rows, token = await page(communication_id="sale", page_size=60)
    assert [one.id for one in rows] == newest[:60]
    rows, token = await page(communication_id="sale", page_size=60, page_token=token)
    assert [one.id for one in rows] == newest[60:]
    assert not token
    assert [one.progress.members for one in rows if one.id == "b3"] == [2]
    rows, _ = await page(page_size=1)
    assert [one.id for one in rows] == ["of-other"]
    rows, _ = await page(status=pb.BATCH_STATUS_CLOSED)
    assert [one.id for one in rows] == ["b3"]

    described = await register.describe()
    assert [one.id for one in described.batches] == newest[:MAX_BATCHES]
    assert described.more_batches
    assert described.communication.batches == len(names)
    with pytest.raises(BackhaulError) as caught:
        await register.batch("none")
    assert (caught.value.code, caught.value.field) == (Code.NOT_FOUND, "batch_id")


async def test_a_batch_that_takes_several_answers_is_read_whole(register: Register) -> None:
    await register.communication()
    await register.put_batch()
    long = {f"a{number}": "x" * 900 for number in range(20)}
    await register.add([member(number, attributes=long) for number in range(300)])
    answers = await register.answers()
    assert len(answers) > 1
    assert all(answer.ByteSize() < (3 << 20) for answer in answers)
    assert len({one.key for answer in answers for one in answer.members}) == 300


async def test_one_member_is_read_with_what_became_of_it(rig: Rig, register: Register) -> None:
    await register.communication()
    await register.put_batch()
    await register.add([member(1, attributes={"First name": "Ada"}), member(2)])
    await told(rig, 1, "delivered")
    await rig.drained()
    ask = register.stub.GetMember
    found = (await ask(pb.GetMemberRequest(tenant_id="acme", batch_id="b1", member_key="m1"))).member
    assert found == (await register.members())["m1"]
    assert [(one.name, one.value) for one in found.attributes] == [("First name", "Ada")]
    assert found.destinations[0].message.message_id == "SM1"
    for batch, key in (("b1", "m3"), ("none", "m1")):
        with pytest.raises(BackhaulError) as caught:
            await ask(pb.GetMemberRequest(tenant_id="acme", batch_id=batch, member_key=key))
        assert (caught.value.code, caught.value.field) == (Code.NOT_FOUND, "member_key")
