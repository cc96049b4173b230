"""One event of SendGrid's event webhook as a fact."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec

from backhaul_channels.adapter import EventKind, MalformedError, NormalizedEvent
from backhaul_channels.jsonparts import decode_object, scalar_text
from backhaul_channels.providers.sendgrid.mapping import (
    DISTINGUISHING,
    ERROR_EVENTS,
    EVENTS,
    INVALID_ADDRESS_CLASSIFICATION,
    REJECT_REASONS,
    RESERVED,
)

# SendGrid's own limits are lower (100 characters for an event id, 10,000 bytes for all custom arguments); these only
# keep a hostile or broken sender from filling the store.
MAX_ID = 512
MAX_EVENT = 64
MAX_VALUE = 4096
MAX_VARS = 256

# The Single Send example of the documentation counts milliseconds where all others count seconds. Seconds beyond this
# would be after the year 5138.
_FIRST_MILLISECONDS = 100_000_000_000
_LAST_SECOND = 253_402_300_799
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,9})?", re.ASCII)
_REPLY_CODE = re.compile(r"\s*([245][0-9]{2})\b", re.ASCII)


def normalize_event(part: bytes, message_id_from: tuple[str, ...]) -> NormalizedEvent:
    """``part`` as a fact; its message is named by the first of the keys ``message_id_from`` that it has.

    Raises MalformedError, naming the field.
    """
    event = decode_object(part)
    get = event.get
    word = get("event")
    if not isinstance(word, str) or not word or len(word) > MAX_EVENT:
        raise MalformedError(f"event is missing, or no string of at most {MAX_EVENT} characters.")
    word = word.lower()
    kind = EVENTS.get(word)
    occurred_at_us = _microseconds(get("timestamp"))
    message_id = _message_id(event, message_id_from)
    attributes, custom = _sort_fields(event, message_id_from)
    if len(part) > MAX_VALUE:
        # A shorter event cannot hold a longer value, which spares the many short ones the cutting.
        attributes, custom = _cut(attributes), _cut(custom[:MAX_VARS])
    category = get("category")
    if category:
        _add_categories(category, custom)
    provider_id = get("sg_message_id")
    if provider_id and provider_id != message_id:
        attributes.append(("sg_message_id", _text(provider_id)[:MAX_ID]))
    error_code = error_text = ""
    invalid_recipient = False
    if kind is None:
        kind = EventKind.UNKNOWN
        _add_unread(event, attributes)
    elif word in ERROR_EVENTS:
        error_code, error_text = _error(event)
        invalid_recipient = _add_refusal(word, event, attributes)
    machine_open = get("sg_machine_open")
    if machine_open is not None:
        attributes.append(("machine_open", scalar_text(machine_open) or ""))
    return NormalizedEvent(
        kind=kind,
        key=_key(event, word, message_id),
        provider_status=word,
        message_id=message_id,
        recipient=_text(get("email"))[:MAX_ID],
        occurred_at_us=occurred_at_us,
        error_code=error_code,
        error_text=error_text,
        invalid_recipient=invalid_recipient,
        vars=custom,
        attributes=attributes,
    )


def _sort_fields(
    event: Mapping[str, Any], message_id_from: tuple[str, ...]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(attributes, vars): what SendGrid says, and what the sender attached."""
    attributes: list[tuple[str, str]] = []
    custom: list[tuple[str, str]] = []
    reserved = RESERVED.get
    for name, value in event.items():
        attribute = reserved(name)
        if attribute == "":
            continue
        text = value if type(value) is str else scalar_text(value)
        if text is None:
            continue
        if attribute is not None:
            attributes.append((attribute, text))
        # A custom argument that names the message is its id, not one of its parameters.
        elif name not in message_id_from:
            custom.append((name, text))
    return attributes, custom


def _cut(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name[:MAX_VALUE], value[:MAX_VALUE]) for name, value in pairs]


def _add_categories(category: object, custom: list[tuple[str, str]]) -> None:
    # A string, or an array of them.
    for entry in category[:MAX_VARS] if isinstance(category, list) else (category,):
        text = scalar_text(entry)
        if text:
            custom.append(("category", text[:MAX_VALUE]))


def _message_id(event: Mapping[str, Any], message_id_from: tuple[str, ...]) -> str:
    for name in message_id_from:
        value = _text(event.get(name))
        if value:
            if len(value) > MAX_ID:
                raise MalformedError(f"{name} is longer than {MAX_ID} characters.")
            return value
    return ""


def _key(event: Mapping[str, Any], word: str, message_id: str) -> str:
    event_id = _text(event.get("sg_event_id"))
    if event_id:
        if len(event_id) > MAX_ID:
            raise MalformedError(f"sg_event_id is longer than {MAX_ID} characters.")
        # The documentation shows one id on events of different types, so the id alone might drop one of them.
        return f"{event_id}:{word}"
    identity = [message_id, word, *(_text(event.get(name)) for name in ("email", "timestamp", "url", "reason"))]
    own = [_text(event.get(name)) for name in DISTINGUISHING.get(word, ())]
    # Keys are contracts, so an event without these fields keeps the key that the others alone give it.
    if any(own):
        identity += own
    # Encoded as JSON, so that no two lists run together into the same bytes.
    return f"sha256:{sha256(msgspec.json.encode(identity)).hexdigest()[:40]}"


def _error(event: Mapping[str, Any]) -> tuple[str, str]:
    """(code, text): SMTP's enhanced status, or else the reply code that the text begins with."""
    text = _text(event.get("reason")) or _text(event.get("response"))
    code = _text(event.get("status"))
    if not code:
        reply = _REPLY_CODE.match(text)
        code = reply[1] if reply else ""
    return code[:MAX_EVENT], text[:MAX_VALUE]


def _add_refusal(word: str, event: Mapping[str, Any], attributes: list[tuple[str, str]]) -> bool:
    """Adds what a refused message was refused for; returns whether the address itself is invalid."""
    if word == "dropped":
        reason = REJECT_REASONS.get(_text(event.get("reason")).strip().lower(), "other")
        attributes.append(("reject_reason", reason))
        return reason == "invalid"
    if word == "bounce":
        # Without a type it is a bounce proper; only blocks are always marked.
        attributes.append(("bounce_type", (_text(event.get("type")) or "bounce").lower()[:MAX_EVENT]))
        return _text(event.get("bounce_classification")).lower() == INVALID_ADDRESS_CLASSIFICATION
    return False


def _add_unread(event: Mapping[str, Any], attributes: list[tuple[str, str]]) -> None:
    """Keeps, of an event that nothing here understands, what is otherwise read only for the kinds that have it."""
    for name in ("type", "status", "reason"):
        text = _text(event.get(name))
        if text:
            attributes.append((name, text[:MAX_VALUE]))


def _microseconds(timestamp: object) -> int:
    # bool is an int to Python, and no time to anybody.
    if type(timestamp) is int:
        number: int | float = timestamp
    elif type(timestamp) is float:
        number = timestamp
    elif isinstance(timestamp, str) and _NUMBER.fullmatch(timestamp.strip()):
        number = float(timestamp) if "." in timestamp else int(timestamp)
    else:
        raise MalformedError("timestamp is missing or no number; it must be a unix time in seconds or milliseconds.")
    scale = 1_000 if number > _FIRST_MILLISECONDS else 1_000_000
    if not 0 < number * scale <= _LAST_SECOND * 1_000_000:
        raise MalformedError("timestamp is no unix time in seconds or milliseconds between the years 1970 and 9999.")
    return round(number * scale)


def _text(value: object) -> str:
    # Nearly all values are strings; asking for the type first saves a call for each.
    return value if type(value) is str else scalar_text(value) or ""
