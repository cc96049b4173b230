"""The gRPC reads: pages that stay stable under writes, filters, hostile tokens, usage and purge."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb


async def fill(rig: Any, make: Any, of: Any, numbers: range, status: str = "sent", **more: str) -> None:
    for n in numbers:
        await rig.publish(of, make.callback(of, make.twilio(f"SM{n}", status, **more), query="campaign=spring"))
    await rig.drained()


async def test_pages_show_every_row_once_while_new_ones_arrive(rig: Any, make: Any) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await fill(rig, make, acme, range(25))
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
        await fill(rig, make, acme, range(100 + round_trip, 101 + round_trip))
        await fill(rig, make, acme, range(round_trip, round_trip + 1), "delivered")
    assert sorted(seen) == sorted(f"SM{n}" for n in range(25))


async def test_filters_meet_what_they_name_and_nothing_else(rig: Any, make: Any) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await fill(rig, make, acme, range(3))
    await fill(rig, make, acme, range(3, 5), "failed", ErrorCode="30006")
    await fill(rig, make, acme, range(5, 6), "failed", ErrorCode="21211", To="+15005559999")

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


@pytest.mark.parametrize("token", ["x", "AAAA", "MTIz", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5Ong=", "é", "LTE6YQ=="])
async def test_a_token_that_no_page_gave_is_refused(rig: Any, token: str) -> None:
    with pytest.raises(BackhaulError) as refused:
        await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme", page_token=token))
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.field == "page_token"


async def test_every_call_needs_a_tenant(rig: Any) -> None:
    for call, request in (
        (rig.stub.GetMessage, pb.GetMessageRequest(channel="twilio", message_id="SM1")),
        (rig.stub.ListMessages, pb.ListMessagesRequest()),
        (rig.stub.ListEvents, pb.ListEventsRequest()),
        (rig.stub.GetCommunication, pb.GetCommunicationRequest(communication_id="c")),
        (rig.stub.ListDeadLetters, pb.ListDeadLettersRequest()),
        (rig.stub.GetDeadLetter, pb.GetDeadLetterRequest(id="x")),
        (rig.stub.ReplayDeadLetter, pb.ReplayDeadLetterRequest(id="x")),
        (rig.stub.DiscardDeadLetter, pb.DiscardDeadLetterRequest(id="x")),
        (rig.stub.GetUsage, pb.GetUsageRequest()),
        (rig.stub.PurgeTenant, pb.PurgeTenantRequest()),
        (rig.stub.Normalize, pb.NormalizeRequest(channel="twilio")),
    ):
        with pytest.raises(BackhaulError) as refused:
            await call(request)
        assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "tenant_id")


async def test_a_dry_run_says_what_would_become_of_a_callback_and_keeps_nothing(rig: Any, make: Any) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await fill(rig, make, acme, range(1))
    answer = await rig.stub.Normalize(
        pb.NormalizeRequest(
            tenant_id="acme",
            channel="SendGrid",
            url="https://x.example.com/api/postevents?channelLabel=SendGrid&offerId=7",
            body=make.sendgrid(
                {"email": "a@example.com", "event": "open", "timestamp": 1700000000, "sg_event_id": "e"},
                {"email": "a@example.com", "timestamp": 1700000000},
            ).encode(),
        )
    )
    (event,) = answer.events
    assert (event.kind, event.communication_id) == (event_pb2.EVENT_KIND_OPENED, "7")
    assert "event" in answer.rejected[0].reason
    usage = await rig.stub.GetUsage(pb.GetUsageRequest(tenant_id="acme"))
    assert (usage.events, usage.messages, usage.communications, usage.dead_letters) == (1, 1, 1, 0)
    with pytest.raises(BackhaulError) as unknown:
        await rig.stub.Normalize(pb.NormalizeRequest(tenant_id="acme", channel="mPulse"))
    assert unknown.value.code is Code.NOT_FOUND


async def test_a_purge_takes_all_of_one_tenant_and_nothing_of_another(rig: Any, make: Any) -> None:
    acme, globex = make.tenant("acme"), make.tenant("globex")
    await rig.register(acme, globex)
    await fill(rig, make, acme, range(3))
    await fill(rig, make, globex, range(2))
    purged = await rig.stub.PurgeTenant(pb.PurgeTenantRequest(tenant_id="acme"))
    assert purged.deleted == 3 + 3 + 1
    assert (await rig.stub.PurgeTenant(pb.PurgeTenantRequest(tenant_id="acme"))).deleted == 0
    assert (await rig.stub.GetUsage(pb.GetUsageRequest(tenant_id="globex"))).events == 2
