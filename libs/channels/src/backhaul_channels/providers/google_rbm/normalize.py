"""One event of RCS for Business as a fact: a person's message, what became of the agent's, or the agent's launch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backhaul_channels.adapter import MalformedError
from backhaul_channels.engines.rcs import Attributes, Pressed, file_of, place_of, pressed_of, written
from backhaul_channels.engines.times import iso_microseconds
from backhaul_channels.event import AddressFamily, Consent, ConsentBy, EventKind, Ignored, NormalizedEvent, Reply
from backhaul_channels.jsonparts import decode_object
from backhaul_channels.providers.google_rbm.mapping import (
    ACTION,
    CONSENTS,
    ERROR_CODES,
    EVENTS,
    IGNORED,
    LAUNCH,
    LAUNCH_ATTRIBUTES,
)
from backhaul_channels.values import MAX_ID, MAX_WORD, bounded, id_of, word_of

_FOREIGN = (
    "The event has neither eventType nor newLaunchState, and is no message of a person, which has a messageId and a "
    "senderPhoneNumber; check which webhook points here."
)


def normalize_event(part: bytes) -> NormalizedEvent | Ignored:
    """``part`` as a fact, or ignored. Raises MalformedError, naming the field."""
    event = decode_object(part)
    word = word_of(event.get("eventType"), "eventType")
    if word in IGNORED:
        return Ignored(IGNORED[word])
    if word:
        return _status(event, word)
    if LAUNCH in event:
        return _launch(event)
    return _message(event)


def _status(event: Mapping[str, Any], word: str) -> NormalizedEvent:
    message_id, event_id = id_of(event.get("messageId"), "messageId"), id_of(event.get("eventId"), "eventId")
    recipient = _person(event)
    if not event_id and not message_id:
        raise MalformedError("eventId and messageId are both missing, so nobody can tell what the event is about.")
    action = CONSENTS.get(word)
    code = word.upper()
    return NormalizedEvent(
        kind=EVENTS.get(word, EventKind.UNKNOWN),
        key=f"{event_id or f'{message_id}@{recipient}'}:{word}",
        provider_status=word,
        message_id=message_id,
        recipient=recipient,
        recipient_family=_family(recipient),
        sender=_agent(event),
        occurred_at_us=iso_microseconds(bounded(event.get("sendTime"))),
        error_code=code if code in ERROR_CODES else "",
        consent=Consent(ConsentBy.PROVIDER, action) if action is not None else None,
        attributes=[("event_id", event_id)] if event_id else [],
    )


def _message(event: Mapping[str, Any]) -> NormalizedEvent:
    """A message of a person's own. It does not say which one it answers."""
    message_id, recipient = id_of(event.get("messageId"), "messageId"), _person(event)
    if not message_id or not recipient:
        raise MalformedError(_FOREIGN)
    word, attributes, button = _content(event)
    kind = EventKind.INBOUND if word else EventKind.UNKNOWN
    if button is not None and button.action == ACTION:
        kind = EventKind.CLICKED
        attributes += [("option", button.option), ("postback_data", button.payload)]
    inbound = kind is EventKind.INBOUND
    reply = Reply("", button.payload, button.option) if inbound and button is not None else None
    return NormalizedEvent(
        kind=kind,
        key=f"{message_id}:message",
        provider_status=word or "message",
        # What was clicked is not told, and a click is no message.
        message_id=message_id if inbound else "",
        recipient=recipient,
        recipient_family=_family(recipient),
        sender=_agent(event),
        occurred_at_us=iso_microseconds(bounded(event.get("sendTime"))),
        text=(button.option if button is not None else written(event.get("text"))) if inbound else "",
        reply=reply if reply != Reply() else None,
        attributes=[(name, value) for name, value in attributes if value],
    )


def _content(event: Mapping[str, Any]) -> tuple[str, Attributes, Pressed | None]:
    """(what the message consists of, its attributes, the button that was pressed); empty for what nobody knows."""
    if isinstance(event.get("suggestionResponse"), dict):
        button = pressed_of(event["suggestionResponse"])
        return "suggestion_response", [("action", button.action)], button
    file = event.get("userFile")
    if isinstance(file, dict):
        thumbnail = file.get("thumbnail")
        url = bounded(thumbnail.get("fileUri")) if isinstance(thumbnail, dict) else ""
        return "user_file", [*file_of(file.get("payload")), ("thumbnail_url", url)], None
    if isinstance(event.get("location"), dict):
        return "location", place_of(event["location"]), None
    return ("text", [], None) if isinstance(event.get("text"), str) else ("", [], None)


def _launch(event: Mapping[str, Any]) -> NormalizedEvent:
    """The launch of an agent on a network: no message's event, and nobody's."""
    subject = id_of(event.get("eventId"), "eventId") or _agent(event)
    if not subject:
        raise MalformedError("eventId and agentId are both missing, so nobody can tell whose launch it is.")
    told = [(name, bounded(event.get(field))) for field, name in LAUNCH_ATTRIBUTES.items()]
    attributes = [("product", "agent_launch"), ("agent_id", _agent(event)), *told]
    region, state = bounded(event.get("regionId"), MAX_ID), bounded(event.get(LAUNCH), MAX_WORD).lower()
    return NormalizedEvent(
        kind=EventKind.UNKNOWN,
        key=f"{subject}:{region}:agent_launch:{state}",
        provider_status="agent_launch_event",
        occurred_at_us=iso_microseconds(bounded(event.get("sendTime"))),
        attributes=[(name, value) for name, value in attributes if value],
    )


def _person(event: Mapping[str, Any]) -> str:
    # The platform's own events call the person's number otherwise.
    return bounded(event.get("senderPhoneNumber") or event.get("phoneNumber"), MAX_ID).strip()


def _agent(event: Mapping[str, Any]) -> str:
    return bounded(event.get("agentId"), MAX_ID).strip()


def _family(recipient: str) -> AddressFamily:
    return AddressFamily.PHONE if recipient else AddressFamily.UNKNOWN
