"""What a sender that calls its own application by Dispatch's rules has to know of a sending: all of it is answered.

Dispatch tells an application of messages that are sent, of delivery problems, of changed delivery statuses, and of a
communication that is complete. It prints values of the message into the addresses that it calls, and mails a list of
people when it disables a communication. Each test is one of these cases.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_channels.sends import Send, SendStatus, encoded
from backhaul_common.names import NOTICES_STREAM
from backhaul_common.sendercallbacks import sender_callback
from backhaul_proto.event.v1 import event_pb2 as ev
from backhaul_proto.event.v1.event_pb2 import Attribute, Event
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2 as reads
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_testing import make
from backhaul_testing.waiting import until
from normalizer_rig import Rig
from register_rig import Register, phone, register_of

MAIL = "anna@example.com"
PROCESSED = {
    reads.FULFILMENT_STATE_SENT,
    reads.FULFILMENT_STATE_DELIVERED,
    reads.FULFILMENT_STATE_UNDELIVERED,
    reads.FULFILMENT_STATE_FAILED,
    reads.FULFILMENT_STATE_INVALID_NUMBER,
}
"""In which a destination has been sent to, or failed."""

PROBLEMS = {ev.EVENT_KIND_REJECTED, ev.EVENT_KIND_FAILED}
"""Kinds of what could not be generated, or was not taken."""


class Sending:
    """The communication sale of the tenant acme, with its batch b1."""

    def __init__(self, rig: Rig, register: Register) -> None:
        self.rig = rig
        self.register = register
        self.tenant = make.tenant("acme")

    async def registered(self, *members: dict[str, Any], **settings: Any) -> None:
        await self.register.communication(**settings)
        await self.register.put_batch()
        await self.register.add(members)

    async def told(self, *sends: Send, channel: str = "twilio") -> None:
        """What the sender says of its messages."""
        parts = [encoded(one) for one in sends]
        now_us = time.time_ns() // 1000
        callback = sender_callback(self.tenant, channel, parts, received_at_us=now_us, traceparent="")
        await self.rig.publish(self.tenant, callback)
        await self.rig.drained()

    async def twilio(self, sid: str, *statuses: str, query: str = "communicationId=sale", **fields: str) -> None:
        for status in statuses:
            body = make.twilio(sid, status, **fields)
            await self.rig.publish(self.tenant, make.callback(self.tenant, body, query=query))
        await self.rig.drained()

    async def mail(self, word: str, **fields: Any) -> None:
        event = {
            "email": MAIL,
            "timestamp": 1_700_000_000,
            "event": word,
            "sg_event_id": word,
            "sg_message_id": "w.1-0",
        }
        body = make.sendgrid({**event, "communicationId": "sale", **fields})
        await self.rig.publish(self.tenant, make.callback(self.tenant, body, channel="sendgrid"))
        await self.rig.drained()

    async def sent(self, member_key: str) -> bool:
        """Whether the member's message is sent: all of its destinations have been processed."""
        destinations = (await self.register.members())[member_key].destinations
        assert destinations
        return all(one.message.fulfilment_state in PROCESSED for one in destinations)

    async def notices(self, count: int) -> list[Notice]:
        """All notices, as soon as there are ``count``."""
        js = self.rig.nats.jetstream()

        async def published() -> int | None:
            last = (await js.stream_info(NOTICES_STREAM)).state.last_seq
            return last if last >= count else None

        last = await until(f"{count} notices", published)
        return [Notice.FromString((await js.get_msg(NOTICES_STREAM, seq)).data or b"") for seq in range(1, last + 1)]

    async def status(self) -> int:
        return (await self.register.describe()).communication.status


def person(key: str, *recipients: tuple[str, str], **attributes: str) -> dict[str, Any]:
    destinations = [{"channel": channel, "recipient": recipient} for channel, recipient in recipients]
    return {"member_key": key, "attributes": attributes, "destinations": destinations}


@pytest.fixture
async def sending(rig: Rig) -> AsyncIterator[Sending]:
    async with register_of(rig) as register:
        yield Sending(rig, register)


async def test_a_message_is_sent_when_all_of_its_destinations_are_processed(sending: Sending) -> None:
    """Whether it is delivered is another question, and a destination that failed is processed, too."""
    await sending.registered(person("m1", ("twilio", phone(1)), ("sendgrid", MAIL)))
    await sending.told(Send(message_id="SM1", recipient=phone(1), communication="sale", batch="b1", member="m1"))
    await sending.told(Send(message_id="w", recipient=MAIL, communication="sale"), channel="sendgrid")
    # Handed over to the providers, and not more.
    assert not await sending.sent("m1")
    await sending.twilio("SM1", "sent", To=phone(1))
    assert not await sending.sent("m1")
    await sending.mail("dropped", reason="Bounced Address", **{"smtp-id": "<w@ismtpd-1>"})
    assert await sending.sent("m1")
    progress = (await sending.register.batch()).progress
    assert (progress.processed, progress.final, progress.waiting) == (2, 1, 0)
    states = {one.state: one.count for one in progress.fulfilment if one.count}
    assert states == {reads.FULFILMENT_STATE_SENT: 1, reads.FULFILMENT_STATE_FAILED: 1}
    assert (await sending.register.close()).status == pb.BATCH_STATUS_COMPLETE


async def test_a_delivery_problem_is_what_was_refused_or_not_generated_and_no_bounce(sending: Sending) -> None:
    await sending.registered(*(person(f"m{n}", ("twilio", phone(n))) for n in range(1, 6)))
    of: dict[str, Any] = {"communication": "sale", "batch": "b1"}
    await sending.told(
        Send(status=SendStatus.REFUSED, member="m1", recipient=phone(1), error_code="21610", **of),
        Send(status=SendStatus.NOT_GENERATED, member="m2", id="2", error_text="No such template", **of),
        Send(message_id="SM3", member="m3", recipient=phone(3), **of),
    )
    await sending.twilio("SM3", "failed", To=phone(3), ErrorCode="30008")
    await sending.twilio("SM4", "undelivered", To=phone(4), ErrorCode="30003")
    await sending.twilio("SM5", "delivered", To=phone(5))
    await sending.mail("bounce", type="bounce", reason="550 unknown", status="5.1.1")
    await sending.mail("dropped", reason="Invalid", sg_message_id="w.1-1")
    events = await sending.rig.published()
    assert len(events) == 8
    problems = [one for one in events if one.kind in PROBLEMS]
    told = {(one.member_key, one.error_code or one.error_text) for one in problems if one.channel == "twilio"}
    assert told == {("m1", "21610"), ("m2", "No such template"), ("", "30008")}
    assert [one.error_code for one in problems if one.channel == "sendgrid"] == ["invalid_address"]
    (bounce,) = [one for one in events if one.error_code == "5.1.1"]
    assert bounce.kind == ev.EVENT_KIND_BOUNCED
    # Each of them names the communication, whose people want to know.
    assert {one.communication_id for one in problems} == {"sale"}


async def test_a_status_may_change_after_completion_and_is_told_as_ever(sending: Sending) -> None:
    await sending.registered(person("m1", ("twilio", phone(1))))
    await sending.register.close()
    await sending.twilio("SM1", "queued", "sent", To=phone(1))
    complete = await sending.register.batch()
    assert complete.status == pb.BATCH_STATUS_COMPLETE
    await sending.twilio("SM1", "delivered", To=phone(1))
    changes = [one.provider_status for one in await sending.rig.published()]
    assert changes == ["queued", "sent", "delivered"]
    message = (await sending.register.members())["m1"].destinations[0].message
    assert (message.state, message.fulfilment_state) == (ev.EVENT_KIND_DELIVERED, reads.FULFILMENT_STATE_DELIVERED)
    batch = await sending.register.batch()
    assert (batch.status, batch.completed_at_us) == (pb.BATCH_STATUS_COMPLETE, complete.completed_at_us)
    assert (batch.changed_since, batch.at_completion) == (1, complete.at_completion)
    assert len(await sending.notices(1)) == 1


async def test_a_notice_refers_to_the_batch_that_is_complete_and_its_members_are_read_by_that(sending: Sending) -> None:
    people = [person(f"m{n}", ("twilio", phone(n)), first_name=f"N{n}") for n in range(3)]
    await sending.registered(*people)
    await sending.register.put_batch("b2")
    await sending.register.close()
    for n in range(3):
        assert await sending.status() == pb.COMMUNICATION_STATUS_ACTIVE
        await sending.twilio(f"SM{n}", "sent", To=phone(n))
    (notice,) = await sending.notices(1)
    assert (notice.type, notice.tenant_id, notice.about.communication_id) == ("communication.completed", "acme", "sale")
    assert notice.about.reference == "b1"
    members = await sending.register.members(notice.about.reference)
    read = {
        key: (one.attributes[0].value, one.destinations[0].message.message_id, one.destinations[0].recipient)
        for key, one in members.items()
    }
    assert read == {f"m{n}": (f"N{n}", f"SM{n}", phone(n)) for n in range(3)}
    # One batch is complete, the communication is when all are.
    assert await sending.status() == pb.COMMUNICATION_STATUS_ACTIVE
    await sending.register.close("b2")
    assert await sending.status() == pb.COMMUNICATION_STATUS_COMPLETE
    assert [one.about.reference for one in await sending.notices(2)] == ["b1", "b2"]


async def test_every_variable_that_an_address_may_print_is_there(sending: Sending) -> None:
    """Members may have attributes of the names that Backhaul's own values go by; both are there, and neither covers the
    other."""
    attributes = {"id": "customer-77", "batchId": "theirs", "first_name": "Anna"}
    environments = [
        pb.Environment(mode="live", variables=[Attribute(name="shop", value="https://shop.example.com")]),
        pb.Environment(mode="test", variables=[Attribute(name="shop", value="https://test.example.com")]),
    ]
    people = [person("m1", ("twilio", phone(1)), **attributes), person("m2", ("twilio", phone(2)))]
    await sending.registered(*people, mode="live", environments=environments)
    await sending.twilio("SM1", "sent", To=phone(1), query="communicationId=sale&batchId=b1&memberId=m1")
    # That its parameters name no member is no reason not to know who it was for.
    await sending.twilio("SM2", "sent", To=phone(2))

    def ids(one: Event | reads.Message) -> tuple[str, str, str, str]:
        return one.communication_id, one.batch_id, one.member_key, one.message_id

    assert [ids(one) for one in await sending.rig.published()] == [("sale", "b1", "m1", "SM1"), ("sale", "", "", "SM2")]
    members = await sending.register.members()
    for sid, key, told in (("SM1", "m1", attributes), ("SM2", "m2", {})):
        answer = await sending.rig.stub.GetMessage(
            reads.GetMessageRequest(tenant_id="acme", channel="twilio", message_id=sid)
        )
        assert ids(answer.message) == ("sale", "b1", key, sid)
        assert ids(members[key].destinations[0].message) == ("sale", "b1", key, sid)
        assert {one.name: one.value for one in members[key].attributes} == told
    settings = (await sending.register.describe()).communication.settings
    (environment,) = [one for one in settings.environments if one.mode == settings.mode]
    assert [(one.name, one.value) for one in environment.variables] == [("shop", "https://shop.example.com")]


async def test_a_mode_without_an_environment_has_no_variables(sending: Sending) -> None:
    variables = [Attribute(name="shop", value="https://test.example.com")]
    await sending.registered(mode="live", environments=[pb.Environment(mode="test", variables=variables)])
    settings = (await sending.register.describe()).communication.settings
    assert settings.mode == "live"
    assert [one for one in settings.environments if one.mode == settings.mode] == []


async def test_a_communication_that_is_disabled_takes_callbacks_and_completes(sending: Sending) -> None:
    """Somebody disables it for safety, and the people on its list are told; what providers report counts as ever."""
    people = ["anna@example.com", "bert@example.com"]
    await sending.registered(person("m1", ("twilio", phone(1))), notify=people)
    names = {"tenant_id": "acme", "communication_id": "sale"}
    answer = await sending.register.stub.DisableCommunication(
        pb.DisableCommunicationRequest(**names, reason="Three calls in a row failed.", author="notifier")
    )
    disabled = answer.communication
    assert disabled.status == pb.COMMUNICATION_STATUS_DISABLED
    (switched,) = disabled.switched
    assert (switched.disabled, switched.reason, switched.author) == (True, "Three calls in a row failed.", "notifier")
    assert list(disabled.settings.notify) == people

    await sending.twilio("SM1", "sent", "delivered", To=phone(1))
    await sending.register.close()
    described = await sending.register.describe()
    assert described.communication.status == pb.COMMUNICATION_STATUS_DISABLED
    assert (described.counts.messages, described.communication.batches_complete) == (1, 1)
    assert {one.state: one.count for one in described.counts.fulfilment if one.count} == {
        reads.FULFILMENT_STATE_DELIVERED: 1
    }
    assert (await sending.register.batch()).status == pb.BATCH_STATUS_COMPLETE
    told = [notice.type for notice in await sending.notices(2)]
    assert sorted(told) == ["communication.completed", "communication.disabled"]

    request = pb.EnableCommunicationRequest(**names, reason="The application is back.", author="anna")
    enabled = (await sending.register.stub.EnableCommunication(request)).communication
    assert enabled.status == pb.COMMUNICATION_STATUS_COMPLETE
    assert [(one.disabled, one.author) for one in enabled.switched] == [(False, "anna"), (True, "notifier")]


async def test_of_a_communication_that_nobody_registered_there_is_nobody_to_tell(sending: Sending) -> None:
    """It appears by itself; its own people are not known, so the tenant's contact is told."""
    await sending.twilio("SM1", "sent", query="communicationId=walk-in")
    described = await sending.register.describe("walk-in")
    assert not described.communication.HasField("settings")
    assert (described.communication.status, described.counts.messages) == (pb.COMMUNICATION_STATUS_ACTIVE, 1)
