"""The translation of the normalizer's answers."""

from __future__ import annotations

import base64

import pytest
from backhaul_gateway.views import (
    FULFILMENT_NAMES,
    KIND_NAMES,
    communication_out,
    data_of,
    dead_letter_out,
    event_out,
    kind_name,
    kind_value,
    message_out,
    message_summary,
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


def event(**fields: object) -> event_pb2.Event:
    return event_pb2.Event(
        id="1",
        kind=event_pb2.EVENT_KIND_DELIVERED,
        occurred_at_us=1_700_000_000_000_000,
        source=callback_pb2.SOURCE_BACKFILL,
        verification=callback_pb2.VERIFICATION_OBSERVED_INVALID,
        vars=[event_pb2.Attribute(name="a", value="1"), event_pb2.Attribute(name="a", value="2")],
        **fields,
    )


def test_event() -> None:
    out = event_out(event(raw=b"MessageStatus=delivered&To=%2B1"))
    assert (out.kind, out.source, out.verification) == ("delivered", "backfill", "observed_invalid")
    assert [(pair.name, pair.value) for pair in out.vars] == [("a", "1"), ("a", "2")]
    assert (out.data_format, out.data) == ("form", {"MessageStatus": "delivered", "To": "+1"})


def test_message() -> None:
    message = pb.Message(
        channel="twilio",
        message_id="SM1",
        state=event_pb2.EVENT_KIND_SENT,
        fulfilment_state=pb.FULFILMENT_STATE_INVALID_NUMBER,
    )
    other = event_pb2.Event(vars=[event_pb2.Attribute(name="a", value="1"), event_pb2.Attribute(name="b", value="")])
    out = message_out(pb.GetMessageResponse(message=message, timeline=[event(), other], truncated=True))
    assert (out.state, out.fulfilment_state, out.timeline_truncated) == ("sent", "InvalidNumber", True)
    assert [(pair.name, pair.value) for pair in out.vars] == [("a", "1"), ("a", "2"), ("b", "")]
    assert len(out.timeline) == 2
    assert message_summary(pb.Message()).fulfilment_state is None


def test_communication() -> None:
    out = communication_out(
        pb.Communication(
            id="offer",
            fulfilment=[pb.FulfilmentCount(state=pb.FULFILMENT_STATE_SENT, count=3)],
            events=[pb.EventCount(kind=event_pb2.EVENT_KIND_READ, count=2)],
            messages=4,
        )
    )
    assert out.fulfilment == {
        "Queued": 0, "Sent": 3, "Delivered": 0, "Undelivered": 0, "Failed": 0, "InvalidNumber": 0,
    }  # fmt: skip
    assert len(FULFILMENT_NAMES) == 6
    assert (out.events, out.messages) == ({"read": 2}, 4)


def test_dead_letter() -> None:
    letter = pb.DeadLetter(id="d", state=pb.DEAD_LETTER_STATE_OPEN, reason="no JSON")
    assert dead_letter_out(letter).callback is None
    letter.callback.body = b"\xff{"
    letter.callback.headers = b"a: 1\r\nb: x: y\r\n"
    out = dead_letter_out(letter)
    assert out.state == "open"
    assert out.callback is not None
    assert base64.b64decode(out.callback.body_base64) == b"\xff{"
    assert [(pair.name, pair.value) for pair in out.callback.headers] == [("a", "1"), ("b", "x: y")]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", ("base64", "")),
        (b'{"a": [1, null, "x"]}', ("json", {"a": [1, None, "x"]})),
        (b"a=1&a=2&a=3&b=", ("form", {"a": ["1", "2", "3"], "b": ""})),
        (b"a=%ff", ("form", {"a": "\ufffd"})),
    ],
)
def test_data(raw: bytes, expected: object) -> None:
    assert data_of(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": Infinity}',
        b"[" * 100_000,
        b"[" * 100 + b"]" * 100,
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b"{",
        b"\xff\xfe",
        b"plain",
        b"[" + b"9" * 5000 + b"]",
    ],
)
def test_hostile_data_is_kept_as_bytes(raw: bytes) -> None:
    assert data_of(raw) == ("base64", base64.b64encode(raw).decode())
