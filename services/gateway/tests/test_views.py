"""The translation of the normalizer's answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from backhaul_gateway.reads.communicationviews import COMMUNICATION, COMMUNICATIONS, MEMBER, ONE_BATCH
from backhaul_gateway.reads.views import (
    DEAD_LETTERS,
    EVENTS,
    MESSAGE,
    MESSAGES,
    ONE_DEAD_LETTER,
    EventOut,
)
from backhaul_gateway.twins.turns import finished
from backhaul_gateway.twins.twin import Twin, time_of
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import communications_pb2 as told
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from pydantic import BaseModel


def test_times() -> None:
    assert time_of(0) is None
    assert time_of(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"
    assert time_of(2**62) is None


def event(**fields: Any) -> event_pb2.Event:
    return event_pb2.Event(
        id="1",
        kind=event_pb2.EVENT_KIND_DELIVERED,
        occurred_at_us=1_700_000_000_000_000,
        source=callback_pb2.SOURCE_BACKFILL,
        verification=callback_pb2.VERIFICATION_OBSERVED_INVALID,
        vars=[event_pb2.Attribute(name="a", value="1"), event_pb2.Attribute(name="a", value="2")],
        **fields,
    )


EVENT: Twin[event_pb2.Event] = Twin(EventOut, event_pb2.Event.DESCRIPTOR)


def read(twin: Twin[Any], message: Any) -> Any:
    """The answer as its model, which has every field of it and no other, in this order."""
    answer = finished(twin.json(message))
    found = twin.model.model_validate_json(answer)
    written = json.loads(answer)
    assert json.loads(found.model_dump_json()) == written
    assert list(written) == list(twin.model.model_fields)
    return found


def test_event() -> None:
    out = read(EVENT, event(raw=b"MessageStatus=delivered&To=%2B1"))
    assert (out.kind, out.source, out.verification) == ("delivered", "backfill", "observed_invalid")
    assert [(pair.name, pair.value) for pair in out.vars] == [("a", "1"), ("a", "2")]
    assert (out.data_format, out.data) == ("form", {"MessageStatus": "delivered", "To": "+1"})
    assert (out.occurred_at_basis, out.by_machine, out.revision, out.references) == (None, False, 0, [])
    assert out.sequence is None
    out = read(
        EVENT,
        event(
            raw=b'{"a": [1.50, 12345678901234567890123]}',
            by_machine=True,
            revision=3,
            references=["x"],
            occurred_at_basis=event_pb2.TIME_BASIS_PROVIDER,
        ),
    )
    assert (out.occurred_at_basis, out.by_machine, out.revision, out.references) == ("provider", True, 3, ["x"])


def test_what_a_person_said() -> None:
    out = read(EVENT, event())
    assert (out.recipient_family, out.consent, out.reply) == (None, None, None)
    consent = event_pb2.Consent(action=event_pb2.CONSENT_ACTION_OPT_OUT, by=event_pb2.CONSENT_BY_KEYWORD, word="STOP")
    family = event_pb2.ADDRESS_FAMILY_PHONE
    reply = event_pb2.Reply(message_id="SM1")
    out = read(EVENT, event(consent=consent, recipient_family=family, reply=reply))
    assert out.recipient_family == "phone"
    assert out.consent is not None
    assert out.consent.model_dump() == {
        "action": "opt_out",
        "by": "keyword",
        "word": "STOP",
        "scope_kind": None,
        "scope": None,
        "only_if_opted_out": False,
    }
    assert out.reply is not None
    assert out.reply.model_dump() == {"message_id": "SM1", "payload": "", "option": ""}
    consent.scope_kind, consent.scope = event_pb2.CONSENT_SCOPE_GROUP, "7"
    out = read(EVENT, event(consent=consent))
    assert out.consent is not None
    assert (out.consent.scope_kind, out.consent.scope) == ("group", "7")
    # An action that only a newer normalizer knows.
    assert read(EVENT, event(consent=event_pb2.Consent(action=77))).consent is None  # type: ignore[arg-type]  # not in this version's enum


def test_what_a_reply_was_understood_to_mean() -> None:
    out = read(EVENT, event())
    assert (out.classification, out.review, out.answered, out.missing_parameters) == (None, None, None, [])
    likely = event_pb2.Classification(
        confidence=event_pb2.CONFIDENCE_LIKELY,
        action=event_pb2.CONSENT_ACTION_OPT_OUT,
        word="STOP",
        templates=["delivery"],
        survey_response=True,
    )
    answered = event_pb2.Answered(channel="twilio", message_id="SM1", by=event_pb2.ANSWERED_BY_ADDRESSES)
    told = event(classification=likely, review=event_pb2.REVIEW_FLAGGED, answered=answered, missing_parameters=["id"])
    out = read(EVENT, told)
    assert out.classification is not None
    assert out.classification.model_dump() == {
        "confidence": "likely",
        "action": "opt_out",
        "word": "STOP",
        "templates": ["delivery"],
        "survey_response": True,
    }
    assert out.answered is not None
    assert out.answered.model_dump() == {"channel": "twilio", "message_id": "SM1", "by": "addresses"}
    assert (out.review, out.missing_parameters) == ("flagged", ["id"])
    # A text that holds no keyword.
    out = read(EVENT, event(classification=event_pb2.Classification()))
    assert out.classification is not None
    assert (out.classification.confidence, out.classification.action) == (None, None)


def test_a_providers_json_is_passed_on_as_it_came() -> None:
    raw = b'{"a": [1.50, 12345678901234567890123, 1e5], "b":"\\u00e9 \\" \\\\"}'
    assert raw in finished(EVENT.json(event(raw=raw)))


def test_message() -> None:
    message = pb.Message(
        channel="twilio",
        message_id="SM1",
        state=event_pb2.EVENT_KIND_SENT,
        fulfilment_state=pb.FULFILMENT_STATE_INVALID_NUMBER,
        engagement=pb.Engagement(opened=3, unique_opened=1),
        references=["short"],
    )
    other = event_pb2.Event(vars=[event_pb2.Attribute(name="a", value="1"), event_pb2.Attribute(name="b", value="")])
    answer = pb.GetMessageResponse(message=message, timeline=[event(), other], truncated=True)
    out = read(MESSAGE, answer)
    assert (out.state, out.fulfilment_state, out.timeline_truncated) == ("sent", "InvalidNumber", True)
    assert [(pair.name, pair.value) for pair in out.vars] == [("a", "1"), ("a", "2"), ("b", "")]
    assert len(out.timeline) == 2
    assert (out.engagement.opened, out.engagement.unique_opened, out.engagement.clicked) == (3, 1, 0)
    assert out.references == ["short"]
    assert out.deliveries == "/v1/deliveries?channel=twilio&message_id=SM1&history=true"
    message.message_id = "a&b=ü c"
    escaped = read(MESSAGE, pb.GetMessageResponse(message=message)).deliveries
    assert escaped == "/v1/deliveries?channel=twilio&message_id=a%26b%3D%C3%BC+c&history=true"
    page = read(MESSAGES, pb.ListMessagesResponse(messages=[pb.Message()]))
    assert (page.messages[0].fulfilment_state, page.messages[0].state) == (None, "unknown")


def test_page() -> None:
    assert read(EVENTS, pb.ListEventsResponse(events=[event(), event()], next_page_token="next")).next_cursor == "next"
    last = read(EVENTS, pb.ListEventsResponse())
    assert (last.events, last.next_cursor) == ([], None)


COUNTS = pb.Communication(
    id="offer",
    fulfilment=[pb.FulfilmentCount(state=pb.FULFILMENT_STATE_SENT, count=3)],
    events=[pb.EventCount(kind=event_pb2.EVENT_KIND_READ, count=2)],
    messages=4,
    created_at_us=5,
    last_event_at_us=6,
    engagement=pb.Engagement(clicked_by_machine=2),
    replies=pb.ReplyCounts(all=3, stop=1, templates=[pb.TemplateCount(name="Food", count=2)]),
    errors=[pb.MessageErrorCount(channel="twilio", error_code="30006", count=1)],
)
INFO = told.CommunicationInfo(
    id="offer",
    status=told.COMMUNICATION_STATUS_DISABLED,
    created_at_us=1,
    updated_at_us=2,
    settings=told.CommunicationSettings(
        name="Spring",
        mode="live",
        channel="twilio",
        notify=["a@example.com"],
        deadline_s=5400,
        completes_on=told.COMPLETES_ON_FINAL,
        environments=[
            told.Environment(mode="live", variables=[event_pb2.Attribute(name="shop", value="x")]),
            told.Environment(mode="test"),
        ],
    ),
    switched=[told.Switched(disabled=True, reason="Wrong shop.", author="key:1", at_us=3)],
    batches=7,
    batches_complete=3,
)
PROGRESS = told.BatchProgress(
    members=2,
    destinations=3,
    waiting=1,
    fulfilment=[pb.FulfilmentCount(state=pb.FULFILMENT_STATE_DELIVERED, count=2)],
    processed=2,
    final=2,
)
STATES = {"Queued": 0, "Sent": 0, "Delivered": 0, "Undelivered": 0, "Failed": 0, "InvalidNumber": 0}


def test_communication() -> None:
    out = read(COMMUNICATION, told.DescribeCommunicationResponse(communication=INFO, counts=COUNTS))
    assert out.replies.model_dump() == {
        "all": 3, "stop": 1, "start": 0, "help": 0, "survey_response": 0, "templates": {"Food": 2},
    }  # fmt: skip
    assert out.fulfilment == {**STATES, "Sent": 3}
    assert (out.events, out.messages, out.engagement.clicked_by_machine) == ({"read": 2}, 4, 2)
    assert [one.model_dump() for one in out.errors] == [{"channel": "twilio", "error_code": "30006", "count": 1}]
    assert (out.id, out.status, out.batch_count, out.batches_complete, out.batches) == ("offer", "disabled", 7, 3, [])
    assert (out.created_at, out.updated_at, out.last_event_at) == tuple(time_of(at) for at in (1, 2, 6))
    assert out.registered is not None
    assert out.registered.model_dump() == {
        "name": "Spring",
        "mode": "live",
        "channel": "twilio",
        "notify": ["a@example.com"],
        "deadline_hours": 1.5,
        "completes_on": "final",
        "environments": {"live": {"shop": "x"}, "test": {}},
    }
    (switched,) = out.switched
    assert (switched.disabled, switched.reason, switched.author, switched.at) == (
        True, "Wrong shop.", "key:1", time_of(3),
    )  # fmt: skip


def test_a_communication_that_events_alone_have_named() -> None:
    info = told.CommunicationInfo(id="offer", status=told.COMMUNICATION_STATUS_ACTIVE, created_at_us=5)
    out = read(COMMUNICATION, told.DescribeCommunicationResponse(communication=info, counts=COUNTS))
    assert (out.registered, out.status, out.switched, out.updated_at) == (None, "active", [], None)
    page = read(COMMUNICATIONS, told.ListCommunicationsResponse(communications=[INFO, info], next_page_token="next"))
    assert [one.registered is None for one in page.communications] == [False, True]
    assert (page.communications[0].batch_count, page.next_cursor) == (7, "next")


def test_batch() -> None:
    batch = told.Batch(
        id="b", status=told.BATCH_STATUS_OPEN, completes_on=told.COMPLETES_ON_PROCESSED, progress=PROGRESS
    )
    out = read(ONE_BATCH, batch)
    assert (out.status, out.completes_on, out.expected_members, out.closed_at) == ("open", "processed", None, None)
    assert (out.completed_at, out.completed_by, out.at_completion, out.changed_since) == (None, None, None, 0)
    assert out.progress.model_dump() == {
        "members": 2, "destinations": 3, "waiting": 1, "fulfilment": {**STATES, "Delivered": 2}, "processed": 2,
        "final": 2,
    }  # fmt: skip
    batch.MergeFrom(
        told.Batch(
            status=told.BATCH_STATUS_COMPLETE,
            expected_members=2,
            deadline_at_us=4,
            completed_by=told.COMPLETED_BY_DEADLINE,
            at_completion=told.BatchProgress(members=2),
            changed_since=1,
        )
    )
    out = read(ONE_BATCH, batch)
    assert (out.status, out.expected_members, out.deadline, out.completed_by) == ("complete", 2, time_of(4), "deadline")
    assert out.at_completion is not None
    assert (out.at_completion.members, out.at_completion.fulfilment, out.changed_since) == (2, STATES, 1)
    described = told.DescribeCommunicationResponse(
        communication=INFO, counts=COUNTS, batches=[batch], more_batches=True
    )
    communication = read(COMMUNICATION, described)
    assert ([one.id for one in communication.batches], communication.more_batches) == (["b"], True)


def test_member() -> None:
    member = told.Member(
        key="anna",
        attributes=[event_pb2.Attribute(name="name", value="Anna")],
        destinations=[
            told.Destination(channel="twilio", recipient="+1", message=pb.Message(message_id="SM1")),
            told.Destination(channel="sendgrid", recipient="a@example.com"),
        ],
    )
    out = read(MEMBER, member)
    assert (out.member_key, out.attributes) == ("anna", {"name": "Anna"})
    sent, waiting = out.destinations
    assert sent.message is not None
    assert (sent.channel, sent.message.message_id, waiting.recipient, waiting.message) == (
        "twilio", "SM1", "a@example.com", None,
    )  # fmt: skip


def test_dead_letter() -> None:
    letter = pb.DeadLetter(id="d", state=pb.DEAD_LETTER_STATE_OPEN, reason="no JSON")
    assert read(ONE_DEAD_LETTER, letter).callback is None
    letter.callback.body = b"\xff{" + "é\n\u2028".encode() * 60_000 + b"\xc3"
    letter.callback.headers = b"a: 1\r\nb: x: y\r\n"
    out = read(ONE_DEAD_LETTER, letter)
    assert out.state == "open"
    assert out.callback is not None
    assert base64.b64decode(out.callback.body_base64) == letter.callback.body
    assert out.callback.body_text == letter.callback.body.decode("utf-8", "replace")
    assert [(pair.name, pair.value) for pair in out.callback.headers] == [("a", "1"), ("b", "x: y")]
    page = read(DEAD_LETTERS, pb.ListDeadLettersResponse(dead_letters=[letter]))
    assert page.dead_letters[0].reason == "no JSON"


def test_what_is_newer_than_this_program_is_unknown() -> None:
    new = event()
    new.MergeFromString(b"\x28\xe7\x07\x78\x63")  # kind 999, source 99
    out = read(EVENT, new)
    assert (out.kind, out.source) == ("unknown", "unknown")
    counted = pb.Communication(events=[pb.EventCount(count=1), pb.EventCount(count=2)])
    described = told.DescribeCommunicationResponse(communication=INFO, counts=counted)
    assert read(COMMUNICATION, described).events == {"unknown": 3}


def test_a_model_shows_nothing_that_the_message_does_not_have() -> None:
    class Wrong(BaseModel):
        ident: str

    with pytest.raises(ValueError, match=r"Wrong\.ident shows nothing"):
        Twin(Wrong, event_pb2.Event.DESCRIPTOR)

    class Unsaid(BaseModel):
        raw: str

    with pytest.raises(ValueError, match=r"Unsaid\.raw: nothing says"):
        Twin(Unsaid, event_pb2.Event.DESCRIPTOR)
