"""The translation of the normalizer's answers."""

from __future__ import annotations

import base64
import json
from typing import Any

from backhaul_gateway.reads.turns import Steps, finished
from backhaul_gateway.reads.views import (
    FULFILMENT_NAMES,
    KIND_NAMES,
    CommunicationOut,
    DeadLetterOut,
    EventOut,
    EventPage,
    MessageOut,
    MessageSummary,
    communication_json,
    dead_letter_json,
    event_json,
    kind_name,
    kind_value,
    message_json,
    message_summary_json,
    page_json,
    time_of,
)
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb


def test_times() -> None:
    assert time_of(0) is None
    assert time_of(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"
    assert time_of(2**62) is None


def test_kinds() -> None:
    assert kind_name(event_pb2.EVENT_KIND_NO_ANSWER) == "no_answer"
    assert kind_name(999) == "unknown"
    assert kind_value("Delivered") == event_pb2.EVENT_KIND_DELIVERED
    assert kind_value("unspecified") is None
    assert len(KIND_NAMES) == 26
    assert all(kind_name(kind_value(name) or 0) == name for name in KIND_NAMES)


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


def read(model: Any, steps: Steps[bytes]) -> Any:
    """The answer as its model, which has every field of it and no other."""
    answer = finished(steps)
    found = model.model_validate_json(answer)
    assert json.loads(found.model_dump_json()) == json.loads(answer)
    return found


def test_event() -> None:
    out = read(EventOut, event_json(event(raw=b"MessageStatus=delivered&To=%2B1")))
    assert (out.kind, out.source, out.verification) == ("delivered", "backfill", "observed_invalid")
    assert [(pair.name, pair.value) for pair in out.vars] == [("a", "1"), ("a", "2")]
    assert (out.data_format, out.data) == ("form", {"MessageStatus": "delivered", "To": "+1"})
    assert (out.occurred_at_basis, out.by_machine, out.revision, out.references) == (None, False, 0, [])
    out = read(
        EventOut,
        event_json(
            event(
                raw=b'{"a": [1.50, 12345678901234567890123]}',
                by_machine=True,
                revision=3,
                references=["x"],
                occurred_at_basis=event_pb2.TIME_BASIS_PROVIDER,
            )
        ),
    )
    assert (out.occurred_at_basis, out.by_machine, out.revision, out.references) == ("provider", True, 3, ["x"])


def test_what_a_person_said() -> None:
    out = read(EventOut, event_json(event()))
    assert (out.recipient_family, out.consent, out.reply) == (None, None, None)
    consent = event_pb2.Consent(action=event_pb2.CONSENT_ACTION_OPT_OUT, by=event_pb2.CONSENT_BY_KEYWORD, word="STOP")
    family = event_pb2.ADDRESS_FAMILY_PHONE
    reply = event_pb2.Reply(message_id="SM1")
    out = read(EventOut, event_json(event(consent=consent, recipient_family=family, reply=reply)))
    assert out.recipient_family == "phone"
    assert out.consent is not None
    assert out.consent.model_dump() == {
        "action": "opt_out",
        "by": "keyword",
        "word": "STOP",
        "scope_kind": None,
        "scope": None,
    }
    assert out.reply is not None
    assert out.reply.model_dump() == {"message_id": "SM1", "payload": "", "option": ""}
    consent.scope_kind, consent.scope = event_pb2.CONSENT_SCOPE_GROUP, "7"
    out = read(EventOut, event_json(event(consent=consent)))
    assert out.consent is not None
    assert (out.consent.scope_kind, out.consent.scope) == ("group", "7")
    # An action that only a newer normalizer knows.
    assert read(EventOut, event_json(event(consent=event_pb2.Consent(action=77)))).consent is None  # type: ignore[arg-type]


def test_a_providers_json_is_passed_on_as_it_came() -> None:
    raw = b'{"a": [1.50, 12345678901234567890123, 1e5], "b":"\\u00e9 \\" \\\\"}'
    assert raw in finished(event_json(event(raw=raw)))


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
    out = read(MessageOut, message_json(answer))
    assert (out.state, out.fulfilment_state, out.timeline_truncated) == ("sent", "InvalidNumber", True)
    assert [(pair.name, pair.value) for pair in out.vars] == [("a", "1"), ("a", "2"), ("b", "")]
    assert len(out.timeline) == 2
    assert (out.engagement.opened, out.engagement.unique_opened, out.engagement.clicked) == (3, 1, 0)
    assert out.references == ["short"]
    assert read(MessageSummary, message_summary_json(pb.Message())).fulfilment_state is None


def test_page() -> None:
    assert read(EventPage, page_json("events", [event(), event()], event_json, "next")).next_cursor == "next"
    last = read(EventPage, page_json("events", [], event_json, ""))
    assert (last.events, last.next_cursor) == ([], None)


def test_communication() -> None:
    out = read(
        CommunicationOut,
        communication_json(
            pb.Communication(
                id="offer",
                fulfilment=[pb.FulfilmentCount(state=pb.FULFILMENT_STATE_SENT, count=3)],
                events=[pb.EventCount(kind=event_pb2.EVENT_KIND_READ, count=2)],
                messages=4,
                engagement=pb.Engagement(clicked_by_machine=2),
            )
        ),
    )
    assert out.fulfilment == {
        "Queued": 0, "Sent": 3, "Delivered": 0, "Undelivered": 0, "Failed": 0, "InvalidNumber": 0,
    }  # fmt: skip
    assert len(FULFILMENT_NAMES) == 6
    assert (out.events, out.messages, out.engagement.clicked_by_machine) == ({"read": 2}, 4, 2)


def test_dead_letter() -> None:
    letter = pb.DeadLetter(id="d", state=pb.DEAD_LETTER_STATE_OPEN, reason="no JSON")
    assert read(DeadLetterOut, dead_letter_json(letter)).callback is None
    letter.callback.body = b"\xff{" + "é\n\u2028".encode() * 60_000 + b"\xc3"
    letter.callback.headers = b"a: 1\r\nb: x: y\r\n"
    out = read(DeadLetterOut, dead_letter_json(letter))
    assert out.state == "open"
    assert out.callback is not None
    assert base64.b64decode(out.callback.body_base64) == letter.callback.body
    assert out.callback.body_text == letter.callback.body.decode("utf-8", "replace")
    assert [(pair.name, pair.value) for pair in out.callback.headers] == [("a", "1"), ("b", "x: y")]
