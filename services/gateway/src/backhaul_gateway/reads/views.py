"""The normalizer's protobuf as the tenants' JSON. Pure functions; enums in lower words, times in RFC 3339.

The models describe what is answered, for OpenAPI; the functions write it, in steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import orjson
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2
from pydantic import BaseModel

from backhaul_gateway.reads.rawdata import Format, base64_of, data_of, text_of
from backhaul_gateway.reads.turns import Steps

Row = TypeVar("Row")

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


def _named(items: Iterable[tuple[str, int]], prefix: str) -> dict[int, str]:
    """The same without the value that says nothing."""
    return {number: name for number, name in _words(items, prefix).items() if number}


_NAMES_BY_KIND = _words(event_pb2.EventKind.items(), "EVENT_KIND_")
_KINDS_BY_NAME = {name: number for number, name in _NAMES_BY_KIND.items() if number}
_DEAD_LETTER_NAMES = _words(normalizer_pb2.DeadLetterState.items(), "DEAD_LETTER_STATE_")
_SOURCE_NAMES = _words(callback_pb2.Source.items(), "SOURCE_")
_VERIFICATION_NAMES = _words(callback_pb2.Verification.items(), "VERIFICATION_")

KIND_NAMES = tuple(_KINDS_BY_NAME)
"""What may stand for a kind or a state."""

_FAMILY_NAMES = _named(event_pb2.AddressFamily.items(), "ADDRESS_FAMILY_")
_ACTION_NAMES = _named(event_pb2.ConsentAction.items(), "CONSENT_ACTION_")
_BY_NAMES = _named(event_pb2.ConsentBy.items(), "CONSENT_BY_")
_SCOPE_NAMES = _named(event_pb2.ConsentScope.items(), "CONSENT_SCOPE_")
_BASIS_NAMES = {event_pb2.TIME_BASIS_ARRIVAL: "arrival", event_pb2.TIME_BASIS_PROVIDER: "provider"}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NameValue(BaseModel):
    """One custom parameter or attribute; names may repeat."""

    name: str
    value: str


class ConsentOut(BaseModel):
    """What a person said about being contacted. ``by`` says who decided so: ``provider``, or ``keyword`` where Backhaul
    read it in their text. ``scope`` is the provider's id of what ``scope_kind`` names; null: it named nothing."""

    action: Literal["opt_out", "opt_in", "help"]
    by: Literal["keyword", "provider"]
    word: str
    scope_kind: Literal["messaging_service", "group"] | None
    scope: str | None


class ReplyOut(BaseModel):
    """What an inbound message answers: a message, by the provider's id, and what was chosen of it."""

    message_id: str
    payload: str
    option: str


class EventOut(BaseModel):
    """One normalised fact. ``data`` is the provider's own event: its JSON as it came, a form's fields,
    or base64. ``occurred_at_basis`` says whose word ``occurred_at`` is: the provider's, or the arrival's when it gave
    none. Of two with one id the higher ``revision`` counts."""

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
    occurred_at_basis: Literal["arrival", "provider"] | None
    received_at: str | None
    source: str
    verification: str
    invalid_recipient: bool
    by_machine: bool
    recipient_family: Literal["phone", "email", "voice"] | None
    consent: ConsentOut | None
    reply: ReplyOut | None
    revision: int
    references: list[str]
    vars: list[NameValue]
    attributes: list[NameValue]
    data_format: Format
    data: Any
    callback_id: str
    traceparent: str


class EngagementOut(BaseModel):
    """Openings and clicks, by people and by machines. ``unique_…`` counts messages: of one message, 0 or 1."""

    opened: int
    opened_by_machine: int
    unique_opened: int
    clicked: int
    clicked_by_machine: int
    unique_clicked: int


class MessageSummary(BaseModel):
    """What was sent to one recipient. ``fulfilment_state`` is null for an inbound message. ``references`` are texts by
    which it is found as well, and which other messages may share."""

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
    engagement: EngagementOut
    references: list[str]
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
    engagement: EngagementOut
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


def _consent(consent: event_pb2.Consent) -> dict[str, str | None] | None:
    """None where there is none, or one in words that are newer than this service."""
    action, by = _ACTION_NAMES.get(consent.action), _BY_NAMES.get(consent.by)
    if action is None or by is None:
        return None
    return {
        "action": action,
        "by": by,
        "word": consent.word,
        "scope_kind": _SCOPE_NAMES.get(consent.scope_kind),
        "scope": consent.scope or None,
    }


def _reply(reply: event_pb2.Reply) -> dict[str, str]:
    return {"message_id": reply.message_id, "payload": reply.payload, "option": reply.option}


def event_json(event: event_pb2.Event) -> Steps[bytes]:
    """One event, an ``EventOut``."""
    data_format, data = yield from data_of(event.raw)
    return orjson.dumps(
        {
            "id": event.id,
            "channel": event.channel,
            "provider": event.provider,
            "kind": kind_name(event.kind),
            "provider_status": event.provider_status,
            "message_id": event.message_id,
            "recipient": event.recipient,
            "sender": event.sender,
            "communication_id": event.communication_id,
            "error_code": event.error_code,
            "error_text": event.error_text,
            "text": event.text,
            "occurred_at": time_of(event.occurred_at_us),
            "occurred_at_basis": _BASIS_NAMES.get(event.occurred_at_basis),
            "received_at": time_of(event.received_at_us),
            "source": _SOURCE_NAMES.get(event.source, "unknown"),
            "verification": _VERIFICATION_NAMES.get(event.verification, "unknown"),
            "invalid_recipient": event.invalid_recipient,
            "by_machine": event.by_machine,
            "recipient_family": _FAMILY_NAMES.get(event.recipient_family),
            "consent": _consent(event.consent),
            "reply": _reply(event.reply) if event.HasField("reply") else None,
            "revision": event.revision,
            "references": list(event.references),
            "vars": _pairs(event.vars),
            "attributes": _pairs(event.attributes),
            "data_format": data_format,
            "data": orjson.Fragment(data),
            "callback_id": event.callback_id,
            "traceparent": event.traceparent,
        }
    )


def message_summary_json(message: normalizer_pb2.Message) -> Steps[bytes]:
    """One message without its timeline, a ``MessageSummary``."""
    yield
    return orjson.dumps(_message_fields(message))


def message_json(answer: normalizer_pb2.GetMessageResponse) -> Steps[bytes]:
    """One message with its timeline, a ``MessageOut``."""
    union: dict[tuple[str, str], None] = {}
    timeline = []
    for event in answer.timeline:
        for pair in event.vars:
            union.setdefault((pair.name, pair.value))
        timeline.append(orjson.Fragment((yield from event_json(event))))
        yield
    return orjson.dumps(
        {
            **_message_fields(answer.message),
            "vars": [{"name": name, "value": value} for name, value in union],
            "timeline": timeline,
            "timeline_truncated": answer.truncated,
        }
    )


def communication_json(communication: normalizer_pb2.Communication) -> Steps[bytes]:
    """The counts, a ``CommunicationOut``: with a zero for every fulfilment state that no message is in."""
    yield
    fulfilment = dict.fromkeys(FULFILMENT_NAMES.values(), 0)
    for entry in communication.fulfilment:
        if entry.state in FULFILMENT_NAMES:
            fulfilment[FULFILMENT_NAMES[entry.state]] += entry.count
    events: dict[str, int] = {}
    for count in communication.events:
        events[kind_name(count.kind)] = events.get(kind_name(count.kind), 0) + count.count
    return orjson.dumps(
        {
            "id": communication.id,
            "fulfilment": fulfilment,
            "events": events,
            "messages": communication.messages,
            "engagement": _engagement(communication.engagement),
            "created_at": time_of(communication.created_at_us),
            "last_event_at": time_of(communication.last_event_at_us),
        }
    )


def dead_letter_summary_json(letter: normalizer_pb2.DeadLetter) -> Steps[bytes]:
    """One dead letter without its callback, a ``DeadLetterSummary``."""
    yield
    return orjson.dumps(_dead_letter_fields(letter))


def dead_letter_json(letter: normalizer_pb2.DeadLetter) -> Steps[bytes]:
    """One dead letter with its callback, a ``DeadLetterOut``."""
    callback = orjson.Fragment((yield from _callback_json(letter.callback))) if letter.HasField("callback") else None
    return orjson.dumps({**_dead_letter_fields(letter), "callback": callback})


def page_json(name: str, rows: Iterable[Row], encode: Callable[[Row], Steps[bytes]], next_cursor: str) -> Steps[bytes]:
    """A page of ``rows``, under ``name``."""
    encoded = []
    for row in rows:
        encoded.append(orjson.Fragment((yield from encode(row))))
        yield
    return orjson.dumps({name: encoded, "next_cursor": next_cursor or None})


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
        "engagement": _engagement(message.engagement),
        "references": list(message.references),
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


def _callback_json(callback: callback_pb2.Callback) -> Steps[bytes]:
    headers = []
    for line in callback.headers.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(": ")
        if colon:
            headers.append({"name": name, "value": value})
    return orjson.dumps(
        {
            "id": callback.id,
            "method": callback.method,
            "url": callback.url,
            "headers": headers,
            "body_base64": orjson.Fragment((yield from base64_of(callback.body))),
            "body_text": orjson.Fragment((yield from text_of(callback.body))),
            "received_at": time_of(callback.received_at_us),
            "source": _SOURCE_NAMES.get(callback.source, "unknown"),
            "verification": _VERIFICATION_NAMES.get(callback.verification, "unknown"),
            "traceparent": callback.traceparent,
        }
    )


def _pairs(pairs: Iterable[event_pb2.Attribute]) -> list[dict[str, str]]:
    return [{"name": pair.name, "value": pair.value} for pair in pairs]


def _engagement(engagement: normalizer_pb2.Engagement) -> dict[str, int]:
    return {name: getattr(engagement, name) for name in EngagementOut.model_fields}
