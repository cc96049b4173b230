"""From a stored callback to events, states, counts and the EVENTS stream, on real servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import (
    EVENTS_COLLECTION,
    MESSAGES_COLLECTION,
    TENANT_CHANGED_SUBJECT,
)
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig, RigFactory


async def test_a_message_comes_together_out_of_order_and_duplicated(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    for status in ("delivered", "queued", "sent", "queued", "delivered"):
        await rig.publish(acme, make.callback(acme, make.twilio("SM1", status), query="communicationId=c-1"))
    await rig.drained()

    found = await rig.stub.GetMessage(pb.GetMessageRequest(tenant_id="acme", channel="Twilio", message_id="SM1"))
    assert found.message.state == event_pb2.EVENT_KIND_DELIVERED
    assert found.message.fulfilment_state == pb.FULFILMENT_STATE_DELIVERED
    assert found.message.communication_id == "c-1"
    assert found.message.event_count == 3
    assert sorted(event.provider_status for event in found.timeline) == ["delivered", "queued", "sent"]
    assert [(v.name, v.value) for v in found.timeline[0].vars] == [("communicationId", "c-1")]

    (communication,) = await rig.communications()
    assert communication["messages"] == 1
    assert {k: v for k, v in communication["fulfilment"].items() if v} == {"Delivered": 1}
    assert communication["events"] == {"delivered": 1, "queued": 1, "sent": 1}
    assert sorted(event.id for event in await rig.published()) == sorted(
        row["_id"] for row in await rig.rows(EVENTS_COLLECTION)
    )


async def test_one_bad_event_of_a_batch_becomes_a_dead_letter_alone(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    good = [
        {
            "email": "a@example.com",
            "timestamp": 1700000000 + n,
            "event": "delivered",
            "sg_event_id": f"e{n}",
            "sg_message_id": f"m{n}",
        }
        for n in range(3)
    ]
    bad = {
        "email": "a@example.com",
        "timestamp": "soon",
        "event": "delivered",
        "sg_event_id": "bad",
        "sg_message_id": "m",
    }
    await rig.publish(acme, make.callback(acme, make.sendgrid(*good[:2], bad, good[2]), channel="sendgrid"))
    await rig.publish(acme, make.callback(acme, b"not json at all", channel="sendgrid"))
    await rig.drained()
    assert len(await rig.rows(EVENTS_COLLECTION)) == 3
    letters = (await rig.stub.ListDeadLetters(pb.ListDeadLettersRequest(tenant_id="acme"))).dead_letters
    assert len(letters) == 2
    assert any("timestamp" in letter.reason for letter in letters)

    (letter,) = [one for one in letters if "timestamp" in one.reason]
    whole = (await rig.stub.GetDeadLetter(pb.GetDeadLetterRequest(tenant_id="acme", id=letter.id))).dead_letter
    assert b"soon" in whole.callback.body
    assert b"e1" not in whole.callback.body
    replayed = await rig.stub.ReplayDeadLetter(pb.ReplayDeadLetterRequest(tenant_id="acme", id=letter.id))
    assert replayed.dead_letter.id == letter.id
    await rig.drained()
    again = (await rig.stub.GetDeadLetter(pb.GetDeadLetterRequest(tenant_id="acme", id=letter.id))).dead_letter
    assert again.state == pb.DEAD_LETTER_STATE_OPEN  # It is as unreadable as before.
    assert again.occurrences == whole.occurrences + 1  # It was looked at again.
    assert again.occurrences == 2
    discarded = await rig.stub.DiscardDeadLetter(pb.DiscardDeadLetterRequest(tenant_id="acme", id=letter.id))
    assert discarded.dead_letter.state == pb.DEAD_LETTER_STATE_DISCARDED


async def test_tenants_do_not_meet(rig: Rig) -> None:
    acme, globex = make.tenant("acme"), make.tenant("globex")
    await rig.register(acme, globex)
    await rig.publish(acme, make.callback(acme, make.twilio("SM1", "delivered"), query="communicationId=c"))
    await rig.publish(globex, make.callback(globex, make.twilio("SM1", "failed"), query="communicationId=c"))
    # A callback that names another tenant than the one whose queue path it lies on is not taken.
    await rig.publish(globex, make.callback(acme, make.twilio("SM2", "failed")))
    await rig.drained()
    assert {(row["registration"], row["message_id"], row["state"]) for row in await rig.rows(MESSAGES_COLLECTION)} == {
        ("acme.1", "SM1", "delivered"),
        ("globex.1", "SM1", "failed"),
    }
    with pytest.raises(BackhaulError) as nobody:
        await rig.stub.ListMessages(pb.ListMessagesRequest(tenant_id="nobody"))
    assert (nobody.value.code, nobody.value.field) == (Code.NOT_FOUND, "tenant_id")
    for tenant_id, count in (("acme", 1), ("globex", 1)):
        listed = await rig.stub.ListMessages(pb.ListMessagesRequest(tenant_id=tenant_id))
        assert len(listed.messages) == count
        events = await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id=tenant_id))
        assert {event.tenant_id for event in events.events} <= {tenant_id}


async def test_the_largest_callback_that_a_tenant_may_send_passes_and_what_comes_after_it_too(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    events = [
        {
            "email": f"person{n}@example.com",
            "timestamp": 1700000000,
            "event": "open",
            "sg_event_id": f"e{n}",
            "note": "x" * 3900,
        }
        for n in range(1000)
    ]
    body = make.sendgrid(*events)
    assert 3.9e6 < len(body) < 4_194_304
    await rig.publish(acme, make.callback(acme, body, channel="sendgrid"))
    await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))
    await rig.drained()
    assert len(await rig.rows(EVENTS_COLLECTION)) == 1001
    assert len(await rig.published()) == 1001


@pytest.mark.parametrize("dies", [False, True])
async def test_nats_fails_right_after_it_was_connected_to(
    rig_factory: RigFactory, nats_fails_once_connected: Any, dies: bool
) -> None:
    first = nats_fails_once_connected(dies)
    async with rig_factory() as rig:
        async with asyncio.timeout(60):
            await first.failed.wait()
            while not rig.nats.is_connected:  # a value of the test's own connection, which has no event
                await asyncio.sleep(0.02)
        acme = make.tenant("acme")
        await rig.register(acme)
        await rig.publish(acme, make.callback(acme, make.twilio("SM1", "delivered")))
        await rig.drained()
        assert len(await rig.rows(MESSAGES_COLLECTION)) == 1
        [client] = first.clients
        assert [sub.subject for sub in client._subs.values()].count(TENANT_CHANGED_SUBJECT) == 1
