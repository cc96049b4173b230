"""Calls over Twilio: one message each, whichever way and in whatever order they are told."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from backhaul_testing.twilio import ACCOUNT_SID, TwilioSimulator, call_fields, new_sid
from normalizer_rig import Rig

STEPS = ("initiated", "ringing", "in-progress", "completed")
AT = "Tue, 25 Nov 2025 10:00:00 +0000"


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
async def test_a_call_is_in_the_order_of_its_numbers_though_all_its_times_are_one_second(
    rig: Rig, order: tuple[int, ...]
) -> None:
    acme, call = make.tenant("acme"), new_sid("CA")
    await rig.register(acme)
    for number in order:
        form = urlencode(call_fields(call, STEPS[number], number, Timestamp=AT))
        for _ in range(2):  # Twilio repeats what was answered too late.
            await rig.publish(acme, make.callback(acme, form))
    await rig.drained()

    found = await rig.stub.GetMessage(pb.GetMessageRequest(tenant_id="acme", channel="twilio", message_id=call))
    assert [event.provider_status for event in found.timeline] == list(STEPS)
    assert [event.sequence for event in found.timeline] == [0, 1, 2, 3]
    assert found.message.state == event_pb2.EVENT_KIND_COMPLETED
    assert {event.recipient_family for event in found.timeline} == {event_pb2.ADDRESS_FAMILY_VOICE}


async def test_a_number_outweighs_a_clock_that_is_behind(rig: Rig) -> None:
    acme, call = make.tenant("acme"), new_sid("CA")
    await rig.register(acme)
    earlier = "Tue, 25 Nov 2025 09:59:58 +0000"
    for number, (status, at) in enumerate(zip(STEPS, (AT, AT, earlier, AT), strict=True)):
        await rig.publish(acme, make.callback(acme, urlencode(call_fields(call, status, number, Timestamp=at))))
    await rig.drained()
    found = await rig.stub.GetMessage(pb.GetMessageRequest(tenant_id="acme", channel="twilio", message_id=call))
    assert [event.provider_status for event in found.timeline] == list(STEPS)


async def test_a_form_and_event_streams_tell_one_fact_and_reports_belong_to_the_call(rig: Rig) -> None:
    acme, call, twilio = make.tenant("acme"), new_sid("CA"), TwilioSimulator()
    await rig.register(acme)
    ring = {"Timestamp": AT}
    busy = {"Timestamp": AT, "SipResponseCode": "486"}
    stream = [twilio.call_event(call, "ringing", 1, **ring), twilio.call_event(call, "busy", 2, **busy)]
    machine = {"AccountSid": ACCOUNT_SID, "CallSid": call, "AnsweredBy": "unknown"}
    for body in (
        json.dumps(stream),
        urlencode(call_fields(call, "busy", 2, **busy)),
        urlencode(call_fields(call, "ringing", 1, **ring)),
        urlencode(machine),
    ):
        await rig.publish(acme, make.callback(acme, body))
    await rig.drained()

    found = await rig.stub.GetMessage(pb.GetMessageRequest(tenant_id="acme", channel="twilio", message_id=call))
    assert found.message.event_count == 3
    assert found.message.state == event_pb2.EVENT_KIND_BUSY
    assert found.message.error_code == "486"
    assert [event.provider_status for event in found.timeline] == ["ringing", "busy", "amd.unknown"]
    # Both ways completed the one event.
    assert {"cloud_event_id", "sip_response_code"} <= {pair.name for pair in found.timeline[1].attributes}


async def test_what_another_product_posts_is_an_event_of_no_message_and_no_dead_letter(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    asked = {"EventType": "onMessageAdd", "ConversationSid": "CH" + "1" * 32, "Body": "STOP", "AccountSid": ACCOUNT_SID}
    unheard = {"ThingSid": "XY" + "1" * 32, "ThingStatus": "ready", "Body": "STOP", "AccountSid": ACCOUNT_SID}
    for fields in (asked, unheard, dict(reversed(unheard.items()))):
        await rig.publish(acme, make.callback(acme, urlencode(fields)))
    await rig.drained()
    events = (await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme"))).events
    assert {event.provider_status for event in events} == {"onmessageadd", "ready"}
    assert {event.kind for event in events} == {event_pb2.EVENT_KIND_UNKNOWN}
    assert not [event for event in events if event.message_id or event.HasField("consent")]
    assert len(events) == 2
    assert not (await rig.stub.ListMessages(pb.ListMessagesRequest(tenant_id="acme"))).messages
    assert not (await rig.stub.ListDeadLetters(pb.ListDeadLettersRequest(tenant_id="acme"))).dead_letters
