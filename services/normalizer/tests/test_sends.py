"""What senders tell of their messages, from stored callbacks to messages, beside what providers tell of the same."""

from __future__ import annotations

import time
from itertools import permutations
from typing import Any

import pytest
from backhaul_channels.sends import Send, SendStatus, encoded
from backhaul_common.names import DEAD_LETTERS_COLLECTION, MESSAGES_COLLECTION
from backhaul_common.sendercallbacks import MAX_CALLBACK_SENDS, sender_callback, sender_callbacks
from backhaul_common.tenants import Tenant
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_SENDER, Callback
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_QUEUED
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig

TO = "+15005550010"


def told(tenant: Tenant, *sends: Send | bytes, channel: str = "twilio") -> Callback:
    parts = [encoded(one) if isinstance(one, Send) else one for one in sends]
    return sender_callback(tenant, channel, parts, received_at_us=time.time_ns() // 1000, traceparent="")


async def test_a_send_and_a_status_are_of_one_message_in_every_order(rig: Rig) -> None:
    orders = list(permutations(("send", "send", "delivered")))
    tenants = [make.tenant(f"t{n}") for n in range(len(orders))]
    await rig.register(*tenants)
    send = Send(message_id="SM1", recipient=TO, communication="spring", batch="b", member="m")
    for number, (tenant, order) in enumerate(zip(tenants, orders, strict=True)):
        for what in order:
            callback = told(tenant, send) if what == "send" else make.callback(tenant, make.twilio("SM1", what, To=TO))
            await rig.publish(tenant, callback)
            if number % 2:
                await rig.drained()
    await rig.drained()
    for tenant in tenants:
        (message,) = await rig.rows(MESSAGES_COLLECTION, registration=tenant.registration)
        assert (message["state"], message["event_count"]) == ("delivered", 2)
        assert message["communication_id"] == "spring"
        queued = [one for one in await rig.published() if one.tenant_id == tenant.id and one.kind == EVENT_KIND_QUEUED]
        assert {(one.id, one.batch_id, one.member_key, one.source) for one in queued} == {
            (queued[0].id, "b", "m", SOURCE_SENDER)
        }


@pytest.mark.parametrize("settings", [{}, {"message_id_from": ["my_id"]}], ids=["by default", "by an argument"])
async def test_a_mail_is_joined_by_what_its_sender_knows(rig: Rig, settings: dict[str, Any]) -> None:
    mail: dict[str, Any] = {"email": "A@Example.com", "timestamp": 1_700_000_000, "sg_message_id": "wrf.recvd-1.0"}
    mail |= {"smtp-id": "<wrf@geopod-ismtpd-1>", "my_id": "order-77"}
    known = Send(message_id="order-77" if settings else "wrf", recipient="a@example.com", communication="spring")
    # An opening lacks the smtp-id, and finds its way by the names that the others list.
    events = [
        make.sendgrid({**mail, "event": "processed", "sg_event_id": "p"}),
        make.sendgrid({**mail, "event": "open", "sg_event_id": "o", "smtp-id": ""}),
        None,
    ]
    orders = list(permutations(events))
    tenants = [make.tenant(f"t{n}", sendgrid=settings) for n in range(len(orders))]
    await rig.register(*tenants)
    for tenant, order in zip(tenants, orders, strict=True):
        for one in order:
            await rig.publish(
                tenant,
                make.callback(tenant, one, channel="sendgrid") if one else told(tenant, known, channel="sendgrid"),
            )
            await rig.drained()
    for tenant in tenants:
        (message,) = await rig.rows(MESSAGES_COLLECTION, registration=tenant.registration)
        assert message["message_id"] == ("order-77:a@example.com" if settings else "wrf.recvd-1.0")
        # That it was handed over is no duplicate of that SendGrid took it, which happens to a mail once.
        assert (message["state"], message["event_count"], message["kinds"]) == ("opened", 3, {"queued": 2, "opened": 1})
        assert message["communication_id"] == "spring"


async def test_what_was_refused_failed_and_what_was_not_there_is_an_invalid_number(rig: Rig) -> None:
    acme, other = make.tenant("acme"), make.tenant("other")
    await rig.register(acme, other)
    sends = [
        Send(status=SendStatus.REFUSED, recipient=TO, error_code="21610", communication="spring"),
        Send(status=SendStatus.REFUSED, recipient="+15005550001", error_code="21211", communication="spring"),
        Send(status=SendStatus.NOT_GENERATED, id="7", error_text="No such template", communication="spring"),
    ]
    for _ in range(2):
        await rig.publish(acme, told(acme, *sends))
    await rig.publish(other, told(other, sends[0]))
    await rig.drained()
    (spring,) = await rig.communications(registration=acme.registration)
    assert {state: n for state, n in spring["fulfilment"].items() if n} == {"Failed": 2, "InvalidNumber": 1}
    (another,) = await rig.communications(registration=other.registration)
    assert another["messages"] == 1
    messages = await rig.rows(MESSAGES_COLLECTION, registration=acme.registration)
    assert all(message["message_id"].startswith("unsent-") for message in messages)
    assert {message["event_count"] for message in messages} == {1}


async def test_one_bad_send_is_a_dead_letter_alone_and_stays_a_senders(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    good = Send(message_id="SM1", recipient=TO)
    await rig.publish(acme, told(acme, b'{"message_id": 5}', good, b'{"recipient": "x"}', b"7"))
    await rig.drained()
    assert [row["message_id"] for row in await rig.rows(MESSAGES_COLLECTION)] == ["SM1"]
    letters = await rig.rows(DEAD_LETTERS_COLLECTION)
    assert sorted(letter["reason"].partition(" ")[0] for letter in letters) == ["Expected", "message_id", "message_id:"]
    letter = next(letter for letter in letters if letter["reason"].startswith("message_id:"))
    await rig.stub.ReplayDeadLetter(pb.ReplayDeadLetterRequest(tenant_id="acme", id=letter["_id"]))
    await rig.drained()
    (again,) = [one for one in await rig.rows(DEAD_LETTERS_COLLECTION) if one["_id"] == letter["_id"]]
    assert (again["state"], again["occurrences"], again["reason"]) == ("open", 2, letter["reason"])
    # A body that is none is one dead letter.
    callback = told(acme)
    callback.body = b"MessageSid=SM2&MessageStatus=sent"
    await rig.publish(acme, callback)
    await rig.drained()
    assert len(await rig.rows(DEAD_LETTERS_COLLECTION)) == 4
    assert len(await rig.rows(MESSAGES_COLLECTION)) == 1


async def test_a_previewed_send_is_read_as_a_callback(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    for body, read in ((b'[{"message_id": "SM1"}]', False), (make.twilio("SM1", "sent").encode(), True)):
        callback = told(acme)
        callback.body = body
        answer = await rig.stub.PreviewCallback(
            pb.PreviewCallbackRequest(tenant_id="acme", channel="twilio", callback=callback)
        )
        assert [part.HasField("event") for part in answer.parts] == [read]


def test_many_sends_are_several_callbacks() -> None:
    acme = make.tenant("acme")
    sends = [b'{"message_id":"SM%05d"}' % number for number in range(2 * MAX_CALLBACK_SENDS + 1)]
    large = [b'{"message_id":"%b"}' % (b"x" * 200_000)] * 3
    assert [len(one.body) for one in sender_callbacks(acme, "twilio", [], received_at_us=1, traceparent="")] == []
    callbacks = sender_callbacks(acme, "twilio", [*sends, *large], received_at_us=1, traceparent="t")
    assert b"".join(one.body for one in callbacks).replace(b"][", b",") == b"[%b]" % b",".join([*sends, *large])
    assert [one.body.count(b"message_id") for one in callbacks] == [1000, 1000, 2, 1, 1]
    assert len({one.id for one in callbacks}) == 5
    assert {(one.tenant_id, one.registration, one.channel, one.provider) for one in callbacks} == {
        ("acme", acme.registration, "twilio", "twilio")
    }
