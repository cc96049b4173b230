"""Calls: their status callbacks as forms and as Event Streams, and what else is told of one call.

A call is a message of its own, under its CallSid. A state is known by call and status, whoever tells it: the status
callback, Event Streams, or the request for TwiML that carries the call's state along.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backhaul_channels.adapter import MalformedError
from backhaul_channels.engines.times import time_microseconds
from backhaul_channels.event import AddressFamily, EventKind, NormalizedEvent
from backhaul_channels.providers.twilio.facts import family_of
from backhaul_channels.providers.twilio.mapping import (
    CALL_ATTRIBUTES,
    CALL_EVENT_STATUSES,
    CALL_REPORTS,
    CALL_STATUSES,
    FIELDS,
    FROM_THE_PERSON,
    INVALID_RECIPIENT,
    MESSAGE_SIDS,
)
from backhaul_channels.providers.twilio.products import digest_of, product_of
from backhaul_channels.providers.twilio.values import parse_sequence, texts_in
from backhaul_channels.values import MAX_ADDRESS, MAX_ID, MAX_VALUE, MAX_WORD, text_of

_CALL = "CA"
_PROGRESS = "call-progress-events"
_PRODUCT = ("product", "voice")
# The second name is the one of events until 2024, which can still be subscribed to.
_EVENT_PREFIXES = ("com.twilio.voice.status-callback.", "com.twilio.voice.webhook.status-callback.")
_MIN_SIP_ERROR, _MAX_SIP_ERROR = 400, 699


def is_call(fields: Mapping[str, str], message_id: str) -> bool:
    """Whether a webhook is about a call, and neither about a message nor about what another product does with one."""
    if fields.get("CallSid", "")[:2] != _CALL or message_id[:2] in MESSAGE_SIDS:
        return False
    if fields.get("CallbackSource") == _PROGRESS:
        return True
    product = product_of(fields)
    # A recording is its call's, unless it is a conference's.
    return not product or (product == "voice" and "ConferenceSid" not in fields)


def normalize_call(fields: Mapping[str, str]) -> NormalizedEvent:
    """A call's state, or a report on it (a recording, who answered), which moves no state. Raises MalformedError."""
    call_id = fields["CallSid"]
    if len(call_id) > MAX_ID:
        raise MalformedError(f"CallSid is longer than {MAX_ID} characters.")
    name = next((name for name in CALL_REPORTS if fields.get(name)), "")
    status = fields.get("CallStatus", "").lower()
    # A machine's detection comes along with a state, or by itself.
    if name and not (status and CALL_REPORTS[name].with_a_state):
        return _report(call_id, name, fields)
    if not status:
        return _call_event(EventKind.UNKNOWN, f"{call_id}:{digest_of(fields)}", "call", fields)
    if len(status) > MAX_WORD:
        raise MalformedError(f"CallStatus is longer than {MAX_WORD} characters.")
    event = _call_event(CALL_STATUSES.get(status, EventKind.UNKNOWN), f"{call_id}:{status}", status, fields)
    if fields.get("CallbackSource") == _PROGRESS:
        # Other requests number what is theirs, such as the partial results of a speech.
        event.sequence = parse_sequence(fields.get("SequenceNumber"))
    known = FIELDS.get(status)
    # A completed call has a SIP answer too, which is no error; a fallback request has the webhook's error.
    if (known is None or "ErrorCode" in known) and "ErrorUrl" not in fields:
        event.error_code, event.error_text = _error(fields), fields.get("ErrorMessage", "")[:MAX_VALUE]
        event.invalid_recipient = event.error_code in INVALID_RECIPIENT
    return event


def normalize_call_event(
    event_type: str, event_id: str, envelope: Mapping[str, Any], data: Mapping[str, Any]
) -> NormalizedEvent | None:
    """A CloudEvent that brings a call's status callback; None for any other. Raises MalformedError.

    Twilio puts the fields of the form into ``data.request.parameters``, and may leave them out.
    """
    prefix = next((one for one in _EVENT_PREFIXES if event_type.startswith(one)), "")
    subject, _, what = event_type.removeprefix(prefix).partition(".")
    if not prefix or subject not in ("call", "amd", "recording", "transcription"):
        return None
    fields = _parameters(data)
    fields.setdefault("CallSid", text_of(data.get("sid")))
    if fields["CallSid"][:2] != _CALL:
        return None
    if subject == "call":
        fields.setdefault("CallStatus", CALL_EVENT_STATUSES.get(what, what))
    else:
        fields.pop("CallStatus", None)
    event = normalize_call(fields)
    if event.occurred_at_us is None:
        event.occurred_at_us = time_microseconds(text_of(data.get("timestamp"))) or time_microseconds(
            text_of(envelope.get("time"))
        )
    if event_id:
        event.attributes.append(("cloud_event_id", event_id[:MAX_ID]))
    return event


def _parameters(data: Mapping[str, Any]) -> dict[str, str]:
    request = data.get("request")
    parameters = request.get("parameters") if isinstance(request, dict) else None
    return texts_in(parameters) if isinstance(parameters, dict) else {}


def _report(call_id: str, name: str, fields: Mapping[str, str]) -> NormalizedEvent:
    report = CALL_REPORTS[name]
    word = fields[name].lower()[:MAX_WORD]
    parts = [call_id, report.name, *(fields[field] for field in report.ids if fields.get(field)), word]
    key = ":".join(parts)
    if len(key) > MAX_ID:
        key = f"{call_id}:{digest_of(fields)}"
    return _call_event(EventKind.UNKNOWN, key, f"{report.name}.{word}"[:MAX_WORD], fields)


def _call_event(kind: EventKind, key: str, status: str, fields: Mapping[str, str]) -> NormalizedEvent:
    get = fields.get
    caller, called = get("From") or get("Caller") or "", get("To") or get("Called") or ""
    # The person is on the other side: who called, or who is called.
    inbound = get("Direction", "").lower() in FROM_THE_PERSON
    recipient, sender = (caller, called) if inbound else (called, caller)
    return NormalizedEvent(
        kind=kind,
        key=key,
        provider_status=status,
        message_id=fields["CallSid"],
        recipient=recipient[:MAX_ADDRESS],
        sender=sender[:MAX_ADDRESS],
        occurred_at_us=time_microseconds(get("Timestamp")),
        recipient_family=_family_of(recipient),
        attributes=[_PRODUCT, *_attributes(fields)],
    )


def _attributes(fields: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if value and name in CALL_ATTRIBUTES:
            yield CALL_ATTRIBUTES[name], value[:MAX_VALUE]


def sent_family(sid: str, address: str) -> AddressFamily:
    """The family of an address to which a sender says that it sent a message, or called, under that SID."""
    return _family_of(address) if sid[:2] == _CALL else family_of(address)


def _family_of(address: str) -> AddressFamily:
    """Numbers are called, whichever way; a client of an application and a SIP address are of no family."""
    is_number = family_of(address) is AddressFamily.PHONE and "@" not in address
    return AddressFamily.VOICE if is_number else AddressFamily.UNKNOWN


def _error(fields: Mapping[str, str]) -> str:
    code = fields.get("ErrorCode", "")
    if code and code != "0":
        return code[:MAX_WORD]
    answer = fields.get("SipResponseCode", "")
    is_error = len(answer) == len("486") and answer.isascii() and answer.isdecimal()
    return answer if is_error and _MIN_SIP_ERROR <= int(answer) <= _MAX_SIP_ERROR else ""
