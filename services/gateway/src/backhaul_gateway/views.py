"""The normalizer's protobuf as the tenants' JSON. Pure functions; enums in lower words, times in RFC 3339."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qsl

from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2
from pydantic import BaseModel

FULFILMENT_NAMES: dict[int, str] = {
    normalizer_pb2.FULFILMENT_STATE_QUEUED: "Queued",
    normalizer_pb2.FULFILMENT_STATE_SENT: "Sent",
    normalizer_pb2.FULFILMENT_STATE_DELIVERED: "Delivered",
    normalizer_pb2.FULFILMENT_STATE_UNDELIVERED: "Undelivered",
    normalizer_pb2.FULFILMENT_STATE_FAILED: "Failed",
    normalizer_pb2.FULFILMENT_STATE_INVALID_NUMBER: "InvalidNumber",
}


def _words(items: Iterable[tuple[str, int]], prefix: str) -> dict[int, str]:
    """An enum's values as lower words: ``delivered`` of EVENT_KIND_DELIVERED."""
    return {number: name.removeprefix(prefix).lower() for name, number in items}


_NAMES_BY_KIND = _words(event_pb2.EventKind.items(), "EVENT_KIND_")
_KINDS_BY_NAME = {name: number for number, name in _NAMES_BY_KIND.items() if number}
_DEAD_LETTER_NAMES = _words(normalizer_pb2.DeadLetterState.items(), "DEAD_LETTER_STATE_")
_SOURCE_NAMES = _words(callback_pb2.Source.items(), "SOURCE_")
_VERIFICATION_NAMES = _words(callback_pb2.Verification.items(), "VERIFICATION_")

KIND_NAMES = tuple(_KINDS_BY_NAME)
"""What may stand for a kind or a state."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DEEPEST = 64


class NameValue(BaseModel):
    """One custom parameter or attribute; names may repeat."""

    name: str
    value: str


class EventOut(BaseModel):
    """One normalised fact. ``data`` is the provider's own event: a JSON value, a form's fields, or base64."""

    id: str
    channel: str
    provider: str
    kind: str
    provider_status: str
    message_id: str
    recipient: str
    sender: str
    communication_id: str
    error_code: str
    error_text: str
    text: str
    occurred_at: str | None
    received_at: str | None
    source: str
    verification: str
    invalid_recipient: bool
    vars: list[NameValue]
    attributes: list[NameValue]
    data_format: Literal["json", "form", "base64"]
    data: Any
    callback_id: str
    traceparent: str


class MessageSummary(BaseModel):
    """What was sent to one recipient. ``fulfilment_state`` is null for an inbound message."""

    channel: str
    message_id: str
    provider: str
    state: str
    fulfilment_state: str | None
    recipient: str
    sender: str
    communication_id: str
    error_code: str
    error_text: str
    event_count: int
    created_at: str | None
    last_event_at: str | None


class MessageOut(MessageSummary):
    """With its timeline, in the order of happening; ``vars`` are those of all its events."""

    vars: list[NameValue]
    timeline: list[EventOut]
    timeline_truncated: bool


class MessagePage(BaseModel):
    """Newest first. ``next_cursor`` is null on the last page."""

    messages: list[MessageSummary]
    next_cursor: str | None


class EventPage(BaseModel):
    """Newest arrival first. ``next_cursor`` is null on the last page."""

    events: list[EventOut]
    next_cursor: str | None


class CommunicationOut(BaseModel):
    """Counts of one sending. ``fulfilment`` has all six states, ``events`` the kinds that occurred."""

    id: str
    fulfilment: dict[str, int]
    events: dict[str, int]
    messages: int
    created_at: str | None
    last_event_at: str | None


class DeadLetterSummary(BaseModel):
    """What could not be read, and why."""

    id: str
    channel: str
    provider: str
    state: str
    reason: str
    occurrences: int
    first_seen_at: str | None
    last_seen_at: str | None


class CallbackOut(BaseModel):
    """A provider's request as it arrived; ``body_base64`` is exact, ``body_text`` what can be read of it."""

    id: str
    method: str
    url: str
    headers: list[NameValue]
    body_base64: str
    body_text: str
    received_at: str | None
    source: str
    verification: str
    traceparent: str


class DeadLetterOut(DeadLetterSummary):
    """With the callback, its body cut down to the part that was refused."""

    callback: CallbackOut | None


class DeadLetterPage(BaseModel):
    """Newest first. ``next_cursor`` is null on the last page."""

    dead_letters: list[DeadLetterSummary]
    next_cursor: str | None


def time_of(microseconds: int) -> str | None:
    """RFC 3339 with microseconds; None where no time is known, or none that a calendar has."""
    if not microseconds:
        return None
    try:
        return (_EPOCH + timedelta(microseconds=microseconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except OverflowError:
        return None


def kind_name(kind: int) -> str:
    """``delivered`` of EVENT_KIND_DELIVERED; ``unknown`` of one that is newer than this service."""
    return _NAMES_BY_KIND.get(kind, "unknown")


def kind_value(name: str) -> int | None:
    """The inverse of ``kind_name``; None where there is no such kind."""
    return _KINDS_BY_NAME.get(name.lower())


def event_out(event: event_pb2.Event) -> EventOut:
    """One event."""
    data_format, data = data_of(event.raw)
    return EventOut(
        id=event.id,
        channel=event.channel,
        provider=event.provider,
        kind=kind_name(event.kind),
        provider_status=event.provider_status,
        message_id=event.message_id,
        recipient=event.recipient,
        sender=event.sender,
        communication_id=event.communication_id,
        error_code=event.error_code,
        error_text=event.error_text,
        text=event.text,
        occurred_at=time_of(event.occurred_at_us),
        received_at=time_of(event.received_at_us),
        source=_SOURCE_NAMES.get(event.source, "unknown"),
        verification=_VERIFICATION_NAMES.get(event.verification, "unknown"),
        invalid_recipient=event.invalid_recipient,
        vars=_pairs(event.vars),
        attributes=_pairs(event.attributes),
        data_format=data_format,
        data=data,
        callback_id=event.callback_id,
        traceparent=event.traceparent,
    )


def message_summary(message: normalizer_pb2.Message) -> MessageSummary:
    """One message without its timeline."""
    return MessageSummary(**_message_fields(message))


def message_out(answer: normalizer_pb2.GetMessageResponse) -> MessageOut:
    """One message with its timeline."""
    union: dict[tuple[str, str], NameValue] = {}
    for event in answer.timeline:
        for pair in event.vars:
            union.setdefault((pair.name, pair.value), NameValue(name=pair.name, value=pair.value))
    return MessageOut(
        **_message_fields(answer.message),
        vars=list(union.values()),
        timeline=[event_out(event) for event in answer.timeline],
        timeline_truncated=answer.truncated,
    )


def communication_out(communication: normalizer_pb2.Communication) -> CommunicationOut:
    """The counts, with a zero for every fulfilment state that no message is in."""
    fulfilment = dict.fromkeys(FULFILMENT_NAMES.values(), 0)
    for entry in communication.fulfilment:
        if entry.state in FULFILMENT_NAMES:
            fulfilment[FULFILMENT_NAMES[entry.state]] += entry.count
    events: dict[str, int] = {}
    for count in communication.events:
        events[kind_name(count.kind)] = events.get(kind_name(count.kind), 0) + count.count
    return CommunicationOut(
        id=communication.id,
        fulfilment=fulfilment,
        events=events,
        messages=communication.messages,
        created_at=time_of(communication.created_at_us),
        last_event_at=time_of(communication.last_event_at_us),
    )


def dead_letter_summary(letter: normalizer_pb2.DeadLetter) -> DeadLetterSummary:
    """One dead letter without its callback."""
    return DeadLetterSummary(**_dead_letter_fields(letter))


def dead_letter_out(letter: normalizer_pb2.DeadLetter) -> DeadLetterOut:
    """One dead letter with its callback."""
    callback = _callback_out(letter.callback) if letter.HasField("callback") else None
    return DeadLetterOut(**_dead_letter_fields(letter), callback=callback)


def data_of(raw: bytes) -> tuple[Literal["json", "form", "base64"], Any]:
    """A provider's event for people: parsed where that is safe, base64 where it is not.

    What is stored came from outside. Numbers that JSON does not have, nesting that would exhaust the stack of whoever
    reads the answer, and text that is not UTF-8 are not passed on as data.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "base64", base64.b64encode(raw).decode()
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        except (ValueError, RecursionError):
            return "base64", base64.b64encode(raw).decode()
        if _is_plain(value):
            return "json", value
    elif "=" in text:
        fields: dict[str, Any] = {}
        for name, value in parse_qsl(text, keep_blank_values=True, errors="replace"):
            if name not in fields:
                fields[name] = value
            elif isinstance(fields[name], list):
                fields[name].append(value)
            else:
                fields[name] = [fields[name], value]
        return "form", fields
    return "base64", base64.b64encode(raw).decode()


def _message_fields(message: normalizer_pb2.Message) -> dict[str, Any]:
    return {
        "channel": message.channel,
        "message_id": message.message_id,
        "provider": message.provider,
        "state": kind_name(message.state),
        "fulfilment_state": FULFILMENT_NAMES.get(message.fulfilment_state),
        "recipient": message.recipient,
        "sender": message.sender,
        "communication_id": message.communication_id,
        "error_code": message.error_code,
        "error_text": message.error_text,
        "event_count": message.event_count,
        "created_at": time_of(message.created_at_us),
        "last_event_at": time_of(message.last_event_at_us),
    }


def _dead_letter_fields(letter: normalizer_pb2.DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "channel": letter.channel,
        "provider": letter.provider,
        "state": dead_letter_state_name(letter.state),
        "reason": letter.reason,
        "occurrences": letter.occurrences,
        "first_seen_at": time_of(letter.first_seen_at_us),
        "last_seen_at": time_of(letter.last_seen_at_us),
    }


def dead_letter_state_name(state: int) -> str:
    """``open``, ``replayed`` or ``discarded``; ``unknown`` of one that is newer than this service."""
    return _DEAD_LETTER_NAMES.get(state, "unknown")


def _callback_out(callback: callback_pb2.Callback) -> CallbackOut:
    headers = []
    for line in callback.headers.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(": ")
        if colon:
            headers.append(NameValue(name=name, value=value))
    return CallbackOut(
        id=callback.id,
        method=callback.method,
        url=callback.url,
        headers=headers,
        body_base64=base64.b64encode(callback.body).decode(),
        body_text=callback.body.decode("utf-8", "replace"),
        received_at=time_of(callback.received_at_us),
        source=_SOURCE_NAMES.get(callback.source, "unknown"),
        verification=_VERIFICATION_NAMES.get(callback.verification, "unknown"),
        traceparent=callback.traceparent,
    )


def _pairs(pairs: Iterable[event_pb2.Attribute]) -> list[NameValue]:
    return [NameValue(name=pair.name, value=pair.value) for pair in pairs]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large")
    return value


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether ``value`` can be answered as JSON: not nested beyond reason, no lone surrogates."""
    if depth > _DEEPEST:
        return False
    if isinstance(value, dict):
        return all(_is_plain(key, depth) and _is_plain(item, depth + 1) for key, item in value.items())
    if isinstance(value, list):
        return all(_is_plain(item, depth + 1) for item in value)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return True
