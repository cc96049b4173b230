"""What people in the field expect of what they report, through the whole normalizer on real servers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import JOINS_COLLECTION, MESSAGES_COLLECTION
from backhaul_proto.callback.v1.callback_pb2 import (
    VERIFICATION_OBSERVED_INVALID,
    VERIFICATION_VERIFIED,
)
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig

NOW = 1_772_366_400  # 2026-03-01T12:00:00Z
SMTP = "<mail-1@ismtpd-1>"
ANNE = "anne@example.com"


def mail(event: str, **more: Any) -> dict[str, Any]:
    """An event of SendGrid."""
    return {"event": event, "email": ANNE, "timestamp": NOW, "sg_event_id": f"{event}-1", **more}


DELIVERED = mail("delivered", sg_message_id="abc.filter1.0", **{"smtp-id": SMTP})
OPENED = mail("open", sg_message_id="abc.filter1.0", timestamp=NOW + 5)
# As SendGrid sends it when a mail that was delivered bounces later: neither its id nor any custom argument.
BOUNCED = mail("bounce", timestamp=NOW + 60, status="5.1.1", reason="511 no such user", **{"smtp-id": SMTP})


@pytest.fixture
async def acme(rig: Rig) -> Any:
    tenant = make.tenant("acme")
    await rig.register(tenant)
    return tenant


@pytest.fixture
def post(rig: Rig, acme: Any) -> Any:
    """``await post(event, …, channel="sendgrid", query=…)``: each in a callback and a message of its own."""

    async def publish(*bodies: Any, channel: str = "sendgrid", **more: Any) -> None:
        for body in bodies:
            text = json.dumps([body]) if isinstance(body, dict) else body
            await rig.publish(acme, make.callback(acme, text, channel=channel, **more))
            await rig.drained()

    return publish


async def message(rig: Rig, message_id: str, channel: str = "sendgrid") -> pb.GetMessageResponse:
    found: pb.GetMessageResponse = await rig.stub.GetMessage(
        pb.GetMessageRequest(tenant_id="acme", channel=channel, message_id=message_id)
    )
    return found


async def messages(rig: Rig, **filters: Any) -> list[str]:
    answer = await rig.stub.ListMessages(pb.ListMessagesRequest(tenant_id="acme", **filters))
    return [row.message_id for row in answer.messages]


async def events(rig: Rig, **filters: Any) -> list[Event]:
    return list((await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme", **filters))).events)


async def communication(rig: Rig, name: str) -> pb.Communication:
    answer = await rig.stub.GetCommunication(pb.GetCommunicationRequest(tenant_id="acme", communication_id=name))
    found: pb.Communication = answer.communication
    return found


async def newest(rig: Rig) -> dict[str, Event]:
    """What a consumer of EVENTS holds that keeps the highest revision of each event."""
    kept: dict[str, Event] = {}
    for event in await rig.published():
        if event.id not in kept or event.revision > kept[event.id].revision:
            kept[event.id] = event
    return kept


@pytest.mark.parametrize("order", ["DOB", "DBO", "BDO", "BOD", "ODB", "OBD"])
async def test_an_asynchronous_bounce_is_of_the_mail_that_was_delivered(rig: Rig, post: Any, order: str) -> None:
    mails = {"D": DELIVERED, "O": OPENED, "B": BOUNCED}
    for letter in order:
        await post({**mails[letter], "communicationId": "spring"} if letter != "B" else mails[letter])
    assert await messages(rig) == ["abc.filter1.0"]
    found = await message(rig, "abc.filter1.0")
    assert [event.kind for event in found.timeline] == [
        event_pb2.EVENT_KIND_DELIVERED,
        event_pb2.EVENT_KIND_OPENED,
        event_pb2.EVENT_KIND_BOUNCED,
    ]
    assert {event.message_id for event in found.timeline} == {"abc.filter1.0"}
    counts = await communication(rig, "spring")
    assert counts.messages == 1
    assert {count.kind: count.count for count in counts.events} == dict.fromkeys(
        (event_pb2.EVENT_KIND_DELIVERED, event_pb2.EVENT_KIND_OPENED, event_pb2.EVENT_KIND_BOUNCED), 1
    )
    # The bounce alone may have gone to EVENTS under the name that it came with; its last revision names the message.
    assert {event.message_id for event in (await newest(rig)).values()} == {"abc.filter1.0"}
    # By its other name it is found as well.
    assert (await message(rig, f"mail-1:{ANNE}")).message.message_id == "abc.filter1.0"


async def test_a_mail_to_three_people_is_three_messages(rig: Rig, post: Any) -> None:
    people = [ANNE, "ben@example.com", "cem@example.com"]
    for number, (person, event) in enumerate(zip(people, ("delivered", "bounce", "delivered"), strict=True)):
        await post(mail(event, email=person, sg_event_id=str(number), **{"smtp-id": SMTP}))
    found = await rig.rows(MESSAGES_COLLECTION)
    assert {row["recipient"]: row["state"] for row in found} == dict(
        zip(people, ("delivered", "bounced", "delivered"), strict=True)
    )


async def test_what_the_api_answered_to_a_sending_finds_its_messages(rig: Rig, post: Any) -> None:
    await post(
        mail("delivered", sg_message_id="abc.filter1.0"),
        mail("delivered", sg_message_id="abc.filter1.1", email="ben@example.com", sg_event_id="2"),
        mail("delivered", sg_message_id="xyz.filter1.0", sg_event_id="3"),
    )
    assert sorted(await messages(rig, message_id="abc")) == ["abc.filter1.0", "abc.filter1.1"]
    assert await messages(rig, message_id="abc.filter1.1") == ["abc.filter1.1"]
    assert await messages(rig, message_id="abc.filter1") == []
    assert (await message(rig, "xyz")).message.message_id == "xyz.filter1.0"
    with pytest.raises(BackhaulError) as several:
        await message(rig, "abc")
    assert (several.value.code, several.value.field) == (Code.FAILED_PRECONDITION, "message_id")
    # An empty list would say that nothing happened to it.
    assert [event.message_id for event in await events(rig, channel="sendgrid", message_id="xyz")] == ["xyz.filter1.0"]
    with pytest.raises(BackhaulError) as ambiguous:
        await events(rig, channel="sendgrid", message_id="abc")
    assert ambiguous.value.code is Code.FAILED_PRECONDITION
    assert await events(rig, channel="sendgrid", message_id="nobody's") == []


async def test_events_of_one_second_are_listed_in_the_order_of_happening(rig: Rig, post: Any) -> None:
    await post(
        mail("delivered", sg_message_id="abc.f.0"),
        mail("processed", sg_message_id="abc.f.0"),
        mail("open", sg_message_id="abc.f.0", timestamp=NOW + 1),
    )
    timeline = (await message(rig, "abc.f.0")).timeline
    assert [event.provider_status for event in timeline] == ["processed", "delivered", "open"]


@pytest.mark.parametrize("asked", ["User@Example.com", "user@example.com", "User@EXAMPLE.com"])
async def test_an_address_is_the_same_whatever_its_case_and_shown_as_it_came(rig: Rig, post: Any, asked: str) -> None:
    await post(
        mail("processed", sg_message_id="m.f.0", email="User@Example.com"),
        mail("delivered", sg_message_id="m.f.0", email="user@example.com"),
        mail("delivered", sg_message_id="n.f.0", sg_event_id="3", email="other@example.com"),
    )
    assert await messages(rig, recipient=asked) == ["m.f.0"]
    assert sorted(event.recipient for event in await events(rig, recipient=asked)) == [
        "User@Example.com",
        "user@example.com",
    ]


async def test_a_number_is_the_same_with_the_zero_that_people_write(rig: Rig, post: Any) -> None:
    await post(make.twilio("SM1", "sent", To="+442079460958"), channel="twilio")
    assert await messages(rig, recipient="+44 020 7946 0958") == ["SM1"]


@pytest.mark.parametrize("later", [0, 1], ids=["in_one_second", "a_second_later"])
@pytest.mark.parametrize("first", [0, 1], ids=["in_order", "reversed"])
async def test_a_category_that_changes_its_place_moves_nothing(rig: Rig, post: Any, first: int, later: int) -> None:
    reports = [
        mail("processed", sg_message_id="m.f.0", category=["order", "eu"]),
        mail("delivered", sg_message_id="m.f.0", timestamp=NOW + later, category=["eu", "order"]),
    ]
    await post(reports[first], reports[1 - first])
    counts = await communication(rig, "order")
    assert (counts.messages, {count.kind for count in counts.events}) == (
        1,
        {event_pb2.EVENT_KIND_QUEUED, event_pb2.EVENT_KIND_DELIVERED},
    )
    assert len(await events(rig, communication_id="order")) == 2
    assert await events(rig, communication_id="eu") == []
    with pytest.raises(BackhaulError) as nothing:
        await communication(rig, "eu")
    assert nothing.value.code is Code.NOT_FOUND


async def test_a_communication_lists_what_it_counts_whichever_event_named_it(rig: Rig, post: Any) -> None:
    await post(make.twilio("SM1", "sent"), channel="twilio")
    await post(make.twilio("SM1", "delivered"), channel="twilio", query="communicationId=spring")
    await post(make.twilio("SM1", "read"), channel="twilio")
    counts = await communication(rig, "spring")
    listed = await events(rig, communication_id="spring")
    assert sum(count.count for count in counts.events) == len(listed) == 3
    assert {event.communication_id for event in listed} == {"spring"}


async def test_openings_of_people_and_of_machines_are_counted_apart(rig: Rig, post: Any) -> None:
    await post(
        mail("open", sg_message_id="m.f.0", category="c", sg_machine_open=True, sg_event_id="o1"),
        mail("open", sg_message_id="m.f.0", category="c", sg_machine_open=False, sg_event_id="o2"),
        mail("open", sg_message_id="m.f.0", category="c", sg_machine_open=False, sg_event_id="o3"),
        mail("open", sg_message_id="n.f.0", category="c", sg_machine_open=True, sg_event_id="o4"),
        mail("click", sg_message_id="n.f.0", category="c", sg_event_id="o5"),
        mail("open", sg_message_id="m.f.0", category="c", sg_machine_open=False, sg_event_id="o2"),
    )
    by_message = (await message(rig, "m.f.0")).message.engagement
    assert (by_message.opened, by_message.opened_by_machine, by_message.unique_opened) == (2, 1, 1)
    assert (by_message.clicked, by_message.clicked_by_machine, by_message.unique_clicked) == (0, 0, 0)
    counts = (await communication(rig, "c")).engagement
    assert (counts.opened, counts.opened_by_machine, counts.unique_opened) == (2, 2, 1)
    assert (counts.clicked, counts.clicked_by_machine, counts.unique_clicked) == (1, 0, 1)


@pytest.mark.parametrize("first", ["with", "without"])
async def test_an_error_that_only_a_duplicate_tells_is_the_events(rig: Rig, post: Any, first: str) -> None:
    told = [make.twilio("SM1", "undelivered"), make.twilio("SM1", "undelivered", ErrorCode="30006")]
    await post(*(told if first == "without" else reversed(told)), channel="twilio")
    (event,) = await events(rig, error_code="30006")
    assert (event.message_id, event.revision) == ("SM1", 1 if first == "without" else 0)
    assert await messages(rig, error_code="30006") == ["SM1"]
    assert (await newest(rig))[event.id].error_code == "30006"
    # What a consumer is told last is what is stored.
    assert len(await rig.published()) == (2 if first == "without" else 1)


@pytest.mark.parametrize("first", ["event streams", "webhook"])
async def test_an_opt_out_that_only_one_of_two_ways_tells_is_one(rig: Rig, post: Any, first: str) -> None:
    webhook = "MessageSid=SM1&SmsStatus=received&From=%2B15005550001&To=%2B15005550006&Body=leave&OptOutType=STOP"
    streamed = json.dumps(
        [
            {
                "specversion": "1.0",
                "type": "com.twilio.messaging.inbound-message.received",
                "id": "EZ1",
                "time": "2026-03-01T12:00:00Z",
                "data": {"messageSid": "SM1", "from": "+15005550001", "to": "+15005550006", "body": "leave"},
            }
        ]
    )
    await post(*((streamed, webhook) if first == "event streams" else (webhook, streamed)), channel="twilio")
    (event,) = await events(rig)
    assert event.consent == event_pb2.Consent(
        action=event_pb2.CONSENT_ACTION_OPT_OUT, by=event_pb2.CONSENT_BY_PROVIDER, word="LEAVE"
    )
    assert event.recipient_family == event_pb2.ADDRESS_FAMILY_PHONE
    # The time is the provider's, whichever way it came.
    assert (event.occurred_at_us, event.occurred_at_basis) == (NOW * 1_000_000, event_pb2.TIME_BASIS_PROVIDER)
    assert (await newest(rig))[event.id].occurred_at_us == NOW * 1_000_000
    assert (await message(rig, "SM1", "twilio")).message.last_event_at_us == NOW * 1_000_000


@pytest.mark.parametrize(
    ("text", "expected", "review"),
    [
        (
            "please+stop",
            event_pb2.Classification(
                confidence=event_pb2.CONFIDENCE_LIKELY,
                action=event_pb2.CONSENT_ACTION_OPT_OUT,
                word="STOP",
                scope_kind=event_pb2.CONSENT_SCOPE_MESSAGING_SERVICE,
                scope="MG1",
            ),
            event_pb2.REVIEW_FLAGGED,
        ),
        ("see+you+at+5", event_pb2.Classification(), event_pb2.REVIEW_UNSPECIFIED),
    ],
)
async def test_what_a_reply_means_is_kept_whole_and_a_duplicate_changes_nothing(
    rig: Rig, post: Any, text: str, expected: event_pb2.Classification, review: int
) -> None:
    body = f"MessageSid=SM1&SmsStatus=received&From=%2B15005550001&To=%2B1500&Body={text}&MessagingServiceSid=MG1"
    await post(body, channel="twilio")
    await post(body, channel="twilio")
    (event,) = await events(rig)
    assert event.HasField("classification")
    assert (event.classification, event.review, event.HasField("consent")) == (expected, review, False)
    assert len(await rig.published()) == 1


async def test_a_duplicate_that_tells_nothing_new_changes_nothing(rig: Rig, post: Any) -> None:
    body = make.twilio("SM1", "delivered", Timestamp="2026-03-01T12:00:00Z")
    await post(body, channel="twilio", query="communicationId=spring")
    before = await rig.rows(MESSAGES_COLLECTION), await rig.rows("events"), await rig.rows("counts")
    # A retry, and the same status by a way that knows no time.
    await post(body, make.twilio("SM1", "delivered"), body, channel="twilio", query="communicationId=spring")
    assert (await rig.rows(MESSAGES_COLLECTION), await rig.rows("events"), await rig.rows("counts")) == before
    assert len(await rig.published()) == 1


async def test_a_verified_event_takes_the_place_of_a_forged_one(rig: Rig, post: Any) -> None:
    forged = make.twilio("SM1", "failed", ErrorCode="21610", To="+15005559999")
    genuine = make.twilio("SM1", "failed", ErrorCode="30007")
    await post(forged, channel="twilio", query="communicationId=evil", verification=VERIFICATION_OBSERVED_INVALID)
    await post(genuine, channel="twilio", query="communicationId=spring", verification=VERIFICATION_VERIFIED)
    await post(forged, channel="twilio", query="communicationId=evil", verification=VERIFICATION_OBSERVED_INVALID)
    (event,) = await events(rig)
    assert (event.error_code, event.recipient, event.verification) == (
        "30007",
        "+15005550001",
        VERIFICATION_VERIFIED,
    )
    found = (await message(rig, "SM1", "twilio")).message
    assert (found.error_code, found.recipient, found.communication_id) == ("30007", "+15005550001", "spring")
    with pytest.raises(BackhaulError):
        await communication(rig, "evil")


async def test_a_replay_under_another_query_moves_nothing_and_files_nothing_anew(rig: Rig, post: Any) -> None:
    await post(mail("delivered", sg_message_id="m.f.0"), query="communicationId=spring")
    before = await rig.rows(MESSAGES_COLLECTION), await rig.rows("events")
    for number in range(3):
        await post(mail("delivered", sg_message_id="m.f.0"), query=f"communicationId=a{number}&x={number}")
        await post('[{"event": "open"}]', query=f"x={number}")
    assert (await rig.rows(MESSAGES_COLLECTION), await rig.rows("events")) == before
    (letter,) = await rig.rows("dead_letters")
    assert letter["occurrences"] == 3


async def test_a_query_that_is_not_utf8_joins_its_message_all_the_same(rig: Rig, post: Any) -> None:
    await post(make.twilio("SM1", "sent"), channel="twilio", query="communicationId=caf%E9&a%3Db=c&flag%20x")
    found = await message(rig, "SM1", "twilio")
    assert found.message.communication_id == "caf\ufffd"
    assert [(pair.name, pair.value) for pair in found.timeline[0].vars] == [
        ("communicationId", "caf\ufffd"),
        ("a=b", "c"),
        ("flag x", ""),
    ]


async def test_a_message_that_gets_all_its_events_from_another_name_leaves_no_trace(rig: Rig, post: Any) -> None:
    await post(BOUNCED)
    assert (await messages(rig)) == [f"mail-1:{ANNE}"]
    await post(DELIVERED)
    assert await messages(rig) == ["abc.filter1.0"]
    (join,) = await rig.rows(JOINS_COLLECTION, message={"$ne": ""})
    assert join["message_id"] == "abc.filter1.0"
    usage = await rig.usage("acme")
    assert (usage["events"], usage["messages"]) == (2, 1)
