"""CloudEvents of Twilio's Event Streams as facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backhaul_channels.adapter import MalformedError
from backhaul_channels.engines.times import time_microseconds
from backhaul_channels.event import AddressFamily, EventKind, NormalizedEvent
from backhaul_channels.providers.twilio.calls import normalize_call_event
from backhaul_channels.providers.twilio.facts import Told, fact, family_of
from backhaul_channels.providers.twilio.mapping import (
    DATA_ATTRIBUTES,
    EVENT_PRODUCTS,
    INBOUND_EVENT_PREFIX,
    INVALID_RECIPIENT,
    LINK_ATTRIBUTES,
    LINK_EVENT_PREFIX,
    LINK_EVENTS,
    STATUS_EVENT_PREFIX,
    STATUSES,
    VERIFY_ATTRIBUTES,
    VERIFY_EVENT_PREFIX,
    VERIFY_FAMILIES,
    LinkEvent,
)
from backhaul_channels.providers.twilio.products import digest_of
from backhaul_channels.providers.twilio.values import MAX_TAGS, texts_in
from backhaul_channels.values import MAX_ADDRESS, MAX_ID, MAX_VALUE, MAX_WORD, id_of, text_of

_PREFIX = "com.twilio."


def normalize_cloud_event(envelope: Mapping[str, Any]) -> NormalizedEvent:
    """A message's event, a link's, a call's, or another product's, which becomes UNKNOWN. Raises MalformedError."""
    event_type = envelope.get("type")
    event_id = text_of(envelope.get("id"))
    if not isinstance(event_type, str) or not event_type:
        raise MalformedError(
            "type is missing: a JSON body must hold CloudEvents as Twilio Event Streams sends them, or objects with a "
            "MessageSid and the other fields of the form."
        )
    data = envelope.get("data")
    if not isinstance(data, dict):
        data = {}
    if event_type.startswith((INBOUND_EVENT_PREFIX, STATUS_EVENT_PREFIX)):
        return _message_event(event_type, event_id, envelope, data)
    link = LINK_EVENTS.get(event_type.removeprefix(LINK_EVENT_PREFIX))
    if link is not None:
        return _link_event(link, event_type, event_id, envelope, data)
    call = normalize_call_event(event_type, event_id, envelope, data)
    if call is not None:
        return call
    if event_type.startswith(VERIFY_EVENT_PREFIX) and text_of(data.get("attempt_sid")).strip():
        return _verify_event(event_type, event_id, envelope, data)
    return _foreign_event(event_type, event_id, envelope)


def _message_event(
    event_type: str, event_id: str, envelope: Mapping[str, Any], data: Mapping[str, Any]
) -> NormalizedEvent:
    def text(name: str) -> str:
        return text_of(data.get(name))

    message_id = text("messageSid")
    if not message_id:
        raise MalformedError(f"data.messageSid is missing from an event of type {event_type[:MAX_WORD]}.")
    inbound = event_type.startswith(INBOUND_EVENT_PREFIX)
    attributes = [
        (attribute, value[:MAX_VALUE]) for name, attribute in DATA_ATTRIBUTES.items() if (value := text(name))
    ]
    if event_id:
        attributes.append(("cloud_event_id", event_id[:MAX_ID]))
    tags = data.get("tags")
    return fact(
        Told(
            message_id=message_id,
            status="received" if inbound else event_type.removeprefix(STATUS_EVENT_PREFIX).lower(),
            inbound=inbound,
            from_address=text("from"),
            to_address=text("to"),
            text=text("body"),
            opt_out_type=text("optOutType"),
            messaging_service=text("messagingServiceSid"),
            error_code=text("errorCode"),
            error_text=text("errorMessage"),
            # A timestamp that cannot be read does not hide the time at which the event was sent.
            occurred_at_us=time_microseconds(text("timestamp")) or time_microseconds(text_of(envelope.get("time"))),
            attributes=attributes,
            tags=_tags(tags) if isinstance(tags, dict) else [],
        )
    )


def _link_event(
    link: LinkEvent, event_type: str, event_id: str, envelope: Mapping[str, Any], data: Mapping[str, Any]
) -> NormalizedEvent:
    """What happened to a shortened link of a message; each click is a fact of its own, under the event's id."""

    def text(name: str) -> str:
        return text_of(data.get(name))

    message_id = text("message_sid")
    if not message_id or len(message_id) > MAX_ID:
        raise MalformedError(
            f"data.message_sid is missing or longer than {MAX_ID} characters in an event of type "
            f"{event_type[:MAX_WORD]}."
        )
    event = _foreign_event(event_type, event_id, envelope)
    event.provider_status = event_type.removeprefix(LINK_EVENT_PREFIX)
    return _of_a_link(event, link, message_id, text)


def normalize_click(fields: Mapping[str, str]) -> NormalizedEvent | None:
    """What a domain for short links posts of a click; None for anything else."""

    def text(name: str) -> str:
        return fields.get(name, "")

    message_id = text("sms_sid") or text("message_sid")
    if text("event_type") != "click" or not 0 < len(message_id) <= MAX_ID - MAX_WORD:
        return None
    status = "link-clicked"
    event = NormalizedEvent(EventKind.UNKNOWN, f"{message_id}:click:{digest_of(fields)}", status)
    return _of_a_link(event, LINK_EVENTS[status], message_id, text)


def _of_a_link(event: NormalizedEvent, link: LinkEvent, message_id: str, text: Callable[[str], str]) -> NormalizedEvent:
    event.kind = link.kind
    event.message_id = message_id
    event.recipient, event.sender = text("to")[:MAX_ADDRESS], text("from")[:MAX_ADDRESS]
    event.recipient_family = family_of(event.recipient)
    event.occurred_at_us = time_microseconds(text(link.time)) or event.occurred_at_us
    event.attributes = [
        *((attribute, value[:MAX_VALUE]) for name, attribute in LINK_ATTRIBUTES.items() if (value := text(name))),
        *(pair for pair in event.attributes if pair[0] == "cloud_event_id"),
    ]
    return event


def _verify_event(
    event_type: str, event_id: str, envelope: Mapping[str, Any], data: Mapping[str, Any]
) -> NormalizedEvent:
    """What became of a message by which Verify sent a code: a message of its own, under the id of the attempt."""

    def text(name: str) -> str:
        return text_of(data.get(name))

    attempt = id_of(data.get("attempt_sid"), "data.attempt_sid")
    status = event_type.removeprefix(VERIFY_EVENT_PREFIX).lower()[:MAX_WORD]
    kind = STATUSES.get(status, EventKind.UNKNOWN)
    error_code = text("error_code")[:MAX_WORD]
    failed = kind in (EventKind.FAILED, EventKind.UNDELIVERED) and error_code != "0"
    recipient = text("to")[:MAX_ADDRESS]
    attributes = [("product", "verify")]
    attributes += [(name, value[:MAX_VALUE]) for field, name in VERIFY_ATTRIBUTES.items() if (value := text(field))]
    if event_id:
        attributes.append(("cloud_event_id", event_id[:MAX_ID]))
    return NormalizedEvent(
        # Nobody answers to a code, so a word of inbound messages means nothing here.
        kind=EventKind.UNKNOWN if kind is EventKind.INBOUND else kind,
        key=f"{attempt}:{status}",
        provider_status=status,
        message_id=attempt,
        recipient=recipient,
        occurred_at_us=time_microseconds(text_of(envelope.get("time"))),
        error_code=error_code if failed else "",
        invalid_recipient=failed and error_code in INVALID_RECIPIENT,
        recipient_family=VERIFY_FAMILIES.get(text("channel").lower(), family_of(recipient))
        if recipient
        else AddressFamily.UNKNOWN,
        attributes=attributes,
    )


def _foreign_event(event_type: str, event_id: str, envelope: Mapping[str, Any]) -> NormalizedEvent:
    product = event_type.removeprefix(_PREFIX).partition(".")[0] if event_type.startswith(_PREFIX) else ""
    product = EVENT_PRODUCTS.get(product, product)[:MAX_WORD]
    attributes = [("product", product)] if product else []
    if 0 < len(event_id) <= MAX_ID:
        attributes.append(("cloud_event_id", event_id))
    return NormalizedEvent(
        kind=EventKind.UNKNOWN,
        # The specification wants an id of every event. Whatever comes without is known by all that it says.
        key=f"event:{event_id if 0 < len(event_id) <= MAX_ID else digest_of(envelope)}",
        provider_status=event_type.lower()[:MAX_ADDRESS],
        occurred_at_us=time_microseconds(text_of(envelope.get("time"))),
        attributes=attributes,
    )


def _tags(tags: Mapping[str, Any]) -> list[tuple[str, str]]:
    # Message tags are the sender's custom parameters. https://www.twilio.com/docs/messaging/features/message-tags
    return [(name[:MAX_ADDRESS], value[:MAX_VALUE]) for name, value in texts_in(tags).items()][:MAX_TAGS]
