"""One callback of Pointer's RCS API v3 as a fact."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from backhaul_channels.adapter import MalformedError
from backhaul_channels.addresses import phone
from backhaul_channels.engines.rcs import Attributes, Pressed
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
from backhaul_channels.values import MAX_ID, MAX_VALUE, MAX_WORD, bounded, id_of, word_of

MAX_VARS = 64

CAMPAIGN = "campaign_name"
# What "bloqueado por duplicidade" and its translations have in common.
_DUPLICATE = "duplic"
_RCS = "rcs"
# A mobile number of Brazil, as most are. Without its country it would be shorter, and could be anybody's abroad: from
# Porto Alegre a Peruvian's, from Natal a Vietnamese's.
_BRAZILIAN = re.compile(r"55[1-9][0-9]9[0-9]{8}", re.ASCII)
_WITHOUT_COUNTRY = re.compile(r"[1-9][0-9](?:9[0-9]{8}|[2-5][0-9]{7})", re.ASCII)
_BY_THE_PERSON = frozenset({EventKind.INBOUND, EventKind.CLICKED})
# Of these the event_id may be the interaction's, and no second name of the message.
_OWN_EVENT_ID = _BY_THE_PERSON | {EventKind.UNKNOWN}


@dataclass(slots=True)
class Told:
    """What a callback says; what it does not say is empty. ``word`` and ``direction`` are in lower case."""

    kind: EventKind
    word: str
    direction: str
    attributes: Attributes
    text: str = ""
    button: Pressed | None = None
    error_code: str = ""
    error_text: str = ""


def normalize_callback(part: bytes) -> NormalizedEvent:
    """``part`` as a fact. Raises MalformedError, naming the field."""
    callback = decode_object(part)
    word = word_of(callback.get("type"), "type")
    if not word:
        raise MalformedError("type is missing, so nobody can tell what happened.")
    direction = bounded(callback.get("direction"), MAX_WORD).strip().lower()
    status = bounded(callback.get("status")).strip()
    attributes = [(name, value) for field, name in ATTRIBUTES.items() if (value := bounded(callback.get(field)))]
    if _DUPLICATE in status.lower():
        # Whatever else the callback says, nothing was sent.
        word = status.lower()[:MAX_WORD]
        return _fact(callback, Told(EventKind.DUPLICATE_BLOCKED, word, direction, attributes, error_text=status))
    if status:
        attributes.append(("status", status))
    message = callback.get("message")
    button = pressed(message) if word == SUGGESTION_RESPONSE else None
    told = Told(_kind(word, direction, button), word, direction, attributes, button=button)
    if button is not None:
        attributes.append(("action", button.action))
    elif word in CONTENTS:
        attributes += described(message)
        told.text = text_in(message)
    elif told.kind is EventKind.FAILED:
        told.error_text = text_in(message)[:MAX_VALUE]
        told.error_code = http_status(told.error_text)
    elif told.kind is EventKind.BLOCKED_CREDIT:
        told.error_text = text_in(message)[:MAX_VALUE]
        attributes += credit(told.error_text)
    return _fact(callback, told)


def _kind(word: str, direction: str, button: Pressed | None) -> EventKind:
    if word in CONTENTS:
        kind = DIRECTIONS.get(direction)
        if kind is None:
            raise MalformedError(
                f"direction is {direction!r}, neither outbound nor inbound, so nobody can tell whether the message was "
                "sent or received."
            )
        return kind
    if button is not None:
        # Without a type it is taken for a reply: an opt-out that is lost does more harm.
        return SUGGESTIONS.get(button.action.lower() or "reply", EventKind.UNKNOWN)
    return STATUSES.get(word, EventKind.UNKNOWN)


def _fact(callback: Mapping[str, Any], told: Told) -> NormalizedEvent:
    """``told`` with what all callbacks have; its attributes are added to."""
    kind, attributes, button = told.kind, told.attributes, told.button
    reference, event_id = id_of(callback.get("reference"), "reference"), id_of(callback.get("event_id"), "event_id")
    timestamp = bounded(callback.get("timestamp"), MAX_TIME).strip()
    occurred_at_us = iso_microseconds(timestamp)
    if timestamp and occurred_at_us is None:
        attributes.append(("timestamp", timestamp))
    campaign = bounded(callback.get(CAMPAIGN))
    recipient = address_of(bounded(callback.get("user_id"), MAX_ID).strip())
    text, reply = told.text, None
    if kind is EventKind.INBOUND:
        # A message of the person's own. What it answers has a state, which no reply may touch, and the campaign counts
        # what was sent in it: a reply belongs to it by what it answers.
        message_id = event_id
        attributes.append((CAMPAIGN, campaign))
        campaign = ""
        option, payload = (button.option, button.payload) if button else ("", "")
        text = text or option
        if reference or payload or option:
            reply = Reply(reference, payload, option)
    else:
        # From the sending to the reading the event_id stays the same, so it can stand in for the reference.
        message_id = reference or ("" if kind is EventKind.CLICKED else event_id)
        # The text of one's own message is no reply.
        attributes.append(("sent_text", text))
        text = ""
        if button is not None:
            attributes += [("option", button.option), ("postback_data", button.payload)]
    # People answer one message more than once, and without an event_id only the time tells their answers apart.
    subject = event_id or (f"{reference}@{timestamp}" if kind in _BY_THE_PERSON else reference)
    if not event_id and not reference:
        raise MalformedError("event_id and reference are both missing, so nobody can tell what the callback is about.")
    return NormalizedEvent(
        kind=kind,
        key=f"{subject}:{_what(callback, told)}",
        provider_status=told.word,
        message_id=message_id,
        recipient=recipient,
        recipient_family=AddressFamily.PHONE if recipient else AddressFamily.UNKNOWN,
        occurred_at_us=occurred_at_us,
        error_code=told.error_code,
        error_text=told.error_text,
        text=text,
        reply=reply,
        references=[event_id] if kind not in _OWN_EVENT_ID and event_id not in ("", message_id) else [],
        vars=_vars(callback, campaign),
        attributes=[(name, value) for name, value in attributes if value],
    )


def _what(callback: Mapping[str, Any], told: Told) -> str:
    """What happened, as far as it tells one fact from the next."""
    # Blocked duplicates are one fact in whatever words.
    word = told.kind.value if told.kind is EventKind.DUPLICATE_BLOCKED else told.word
    # A message that goes by SMS after all is sent, and delivered, once more under its event_id.
    channel = bounded(callback.get("channel"), MAX_WORD).strip().lower()
    fallback = channel if channel != _RCS else ""
    return ":".join((word, told.direction, *filter(None, (fallback, told.error_code))))


@lru_cache(maxsize=4096)
def address_of(user_id: str) -> str:
    """The number as all channels write it. The provider's have their country code and no plus."""
    if _BRAZILIAN.fullmatch(user_id):
        return f"+{user_id}"
    if not (user_id.isascii() and user_id.isdigit()) or _WITHOUT_COUNTRY.fullmatch(user_id):
        return user_id
    # Only what is a valid number so.
    number = phone(f"00{user_id}")
    return number if number.startswith("+") else user_id


def _vars(callback: Mapping[str, Any], campaign: str) -> list[tuple[str, str]]:
    """The campaign, and the variables that the sender filled the message with."""
    found = [(CAMPAIGN, campaign)] if campaign else []
    told = callback.get("vars")
    if isinstance(told, dict):
        texts = ((name[:MAX_VALUE], bounded(value)) for name, value in told.items())
        found += [(name, value) for name, value in texts if name and value][:MAX_VARS]
    return found
