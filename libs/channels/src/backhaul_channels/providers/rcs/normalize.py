"""One callback of Pointer's RCS API v3 as a fact."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from backhaul_channels.adapter import MalformedError
from backhaul_channels.addresses import phone
from backhaul_channels.engines.rcs import MAX_ID, MAX_VALUE, MAX_WORD, Attributes, Pressed, text_of
from backhaul_channels.engines.times import MAX_TIME, iso_microseconds
from backhaul_channels.event import AddressFamily, EventKind, NormalizedEvent, Reply
from backhaul_channels.jsonparts import decode_object
from backhaul_channels.providers.rcs.content import credit, described, http_status, pressed, text_in
from backhaul_channels.providers.rcs.mapping import (
    ATTRIBUTES,
    CONTENTS,
    DIRECTIONS,
    STATUSES,
    SUGGESTION_RESPONSE,
    SUGGESTIONS,
)

MAX_VARS = 64

CAMPAIGN = "campaign_name"
# What "bloqueado por duplicidade" and its translations have in common.
_DUPLICATE = "duplic"
_BY_THE_PERSON = frozenset({EventKind.INBOUND, EventKind.CLICKED})
# Of these the event_id may be the interaction's, and no second name of the message.
_OWN_EVENT_ID = _BY_THE_PERSON | {EventKind.UNKNOWN}


def normalize_callback(part: bytes) -> NormalizedEvent:
    """``part`` as a fact. Raises MalformedError, naming the field."""
    callback = decode_object(part)
    word = text_of(callback.get("type"), MAX_WORD + 1).strip().lower()
    if not 0 < len(word) <= MAX_WORD:
        raise MalformedError(f"type is missing, or no word of at most {MAX_WORD} characters.")
    direction = text_of(callback.get("direction"), MAX_WORD).strip().lower()
    status = text_of(callback.get("status")).strip()
    message = callback.get("message")
    button = pressed(message) if word == SUGGESTION_RESPONSE else None
    attributes = [(name, value) for field, name in ATTRIBUTES.items() if (value := text_of(callback.get(field)))]
    if _DUPLICATE in status.lower():
        # Whatever else the callback says, nothing was sent.
        word = status.lower()[:MAX_WORD]
        return _told(callback, EventKind.DUPLICATE_BLOCKED, word, direction, attributes, error_text=status)
    if status:
        attributes.append(("status", status))
    kind = _kind(word, direction, button)
    if button is not None:
        attributes.append(("action", button.action.upper()))
        return _told(callback, kind, word, direction, attributes, button=button)
    if word in CONTENTS:
        attributes += described(message)
        text = text_in(message)
        if kind is EventKind.SENT:
            # The text of one's own message is no reply.
            attributes.append(("sent_text", text))
            text = ""
        return _told(callback, kind, word, direction, attributes, text=text)
    error_code = error_text = ""
    if kind is EventKind.FAILED:
        error_text = text_in(message)[:MAX_VALUE]
        error_code = http_status(error_text)
    elif kind is EventKind.BLOCKED_CREDIT:
        error_text = text_in(message)[:MAX_VALUE]
        attributes += credit(error_text)
    return _told(callback, kind, word, direction, attributes, error_code=error_code, error_text=error_text)


def _kind(word: str, direction: str, button: Pressed | None) -> EventKind:
    if word in CONTENTS:
        kind = DIRECTIONS.get(direction)
        if kind is None:
            raise MalformedError(
                f"direction is {direction[:MAX_WORD]!r}, neither outbound nor inbound, so nobody can tell whether the "
                "message was sent or received."
            )
        return kind
    if button is not None:
        # Without a type it is taken for a reply: an opt-out that is lost does more harm.
        return SUGGESTIONS.get(button.action.lower() or "reply", EventKind.UNKNOWN)
    return STATUSES.get(word, EventKind.UNKNOWN)


def _told(
    callback: Mapping[str, Any],
    kind: EventKind,
    word: str,
    direction: str,
    attributes: Attributes,
    *,
    text: str = "",
    button: Pressed | None = None,
    error_code: str = "",
    error_text: str = "",
) -> NormalizedEvent:
    reference, event_id = _id(callback, "reference"), _id(callback, "event_id")
    timestamp = text_of(callback.get("timestamp"), MAX_TIME).strip()
    occurred_at_us = iso_microseconds(timestamp)
    if timestamp and occurred_at_us is None:
        attributes.append(("timestamp", timestamp))
    campaign = text_of(callback.get(CAMPAIGN))
    recipient = address_of(text_of(callback.get("user_id"), MAX_ID).strip())
    reply = None
    if kind is EventKind.INBOUND:
        # A message of the person's own. What it answers has a state, which no reply may touch, and the campaign counts
        # what was sent in it: a reply belongs to it by what it answers.
        message_id = event_id
        attributes.append((CAMPAIGN, campaign))
        option, payload = (button.option, button.payload) if button else ("", "")
        text = text or option
        if reference or payload or option:
            reply = Reply(reference, payload, option)
    else:
        # From the sending to the reading the event_id stays the same, so it can stand in for the reference.
        message_id = reference or ("" if kind is EventKind.CLICKED else event_id)
        if button is not None:
            attributes += [("option", button.option), ("postback_data", button.payload)]
    return NormalizedEvent(
        kind=kind,
        key=_key(kind, word, direction, error_code, reference, event_id, timestamp),
        provider_status=word,
        message_id=message_id,
        recipient=recipient,
        recipient_family=AddressFamily.PHONE if recipient else AddressFamily.UNKNOWN,
        occurred_at_us=occurred_at_us,
        error_code=error_code,
        error_text=error_text,
        text=text,
        reply=reply,
        references=[event_id] if kind not in _OWN_EVENT_ID and event_id not in ("", message_id) else [],
        vars=_vars(callback, "" if kind is EventKind.INBOUND else campaign),
        attributes=[(name, value) for name, value in attributes if value],
    )


def _key(
    kind: EventKind, word: str, direction: str, error_code: str, reference: str, event_id: str, timestamp: str
) -> str:
    if not event_id and not reference:
        raise MalformedError("event_id and reference are both missing, so nobody can tell what the callback is about.")
    # People answer one message more than once, and without an event_id only the time tells their answers apart.
    subject = event_id or (f"{reference}@{timestamp}" if kind in _BY_THE_PERSON else reference)
    # Blocked duplicates are one fact in whatever words.
    what = kind.value if kind is EventKind.DUPLICATE_BLOCKED else word
    return ":".join((subject, what, direction, *([error_code] if error_code else [])))


def _id(callback: Mapping[str, Any], field: str) -> str:
    value = text_of(callback.get(field), MAX_ID + 1).strip()
    if len(value) > MAX_ID:
        raise MalformedError(f"{field} is longer than {MAX_ID} characters.")
    return value


@lru_cache(maxsize=4096)
def address_of(user_id: str) -> str:
    """The number as all channels write it. The provider's have their country code and no plus."""
    if not (user_id.isascii() and user_id.isdigit()):
        return user_id
    # Only what is a valid number so: one without its country would become somebody else's.
    number = phone(f"00{user_id}")
    return number if number.startswith("+") else user_id


def _vars(callback: Mapping[str, Any], campaign: str) -> list[tuple[str, str]]:
    """The campaign, and the variables that the sender filled the message with."""
    found = [(CAMPAIGN, campaign)] if campaign else []
    told = callback.get("vars")
    if isinstance(told, dict):
        texts = ((name[:MAX_VALUE], text_of(value)) for name, value in told.items())
        found += [(name, value) for name, value in texts if name and value][:MAX_VARS]
    return found
