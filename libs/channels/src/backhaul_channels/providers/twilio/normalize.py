"""Twilio messaging callbacks as facts: status callbacks, inbound messages, Event Streams."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from backhaul_channels.adapter import EventKind, MalformedError, NormalizedEvent
from backhaul_channels.jsonparts import decode_object, scalar_text
from backhaul_channels.providers.twilio.form import parse_form
from backhaul_channels.providers.twilio.mapping import (
    BEFORE_READ,
    DATA_ATTRIBUTES,
    ERROR_CODES,
    FORM_ATTRIBUTES,
    INBOUND_EVENT_PREFIX,
    INCOMING_EVENT_TYPE,
    INVALID_RECIPIENT,
    KEYWORDS,
    OPT_OUT_TYPES,
    STATUS_EVENT_PREFIX,
    STATUSES,
)

# Twilio's own limits are lower; these only keep a hostile or broken sender from filling the store.
MAX_ID = 512
MAX_STATUS = 64
MAX_ADDRESS = 320
MAX_VALUE = 4096
MAX_TEXT = 16_384
MAX_MEDIA = 10
MAX_TAGS = 64

_SIDS = ("MessageSid", "SmsSid", "SmsMessageSid", "CallSid")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def normalize_form(part: bytes) -> NormalizedEvent:
    """A status callback or an inbound message, as Twilio's form posts bring them. Raises MalformedError."""
    return _from_fields(parse_form(part))


def normalize_json(part: bytes) -> NormalizedEvent:
    """One JSON object: the fields of a form, or a CloudEvent of Event Streams. Raises MalformedError."""
    content = decode_object(part)
    # A CloudEvent's own names are in lower case, so that none of these is among them.
    if any(name in content for name in _SIDS):
        texts = ((name, scalar_text(value)) for name, value in content.items())
        return _from_fields({name: text for name, text in texts if text is not None})
    return _from_cloud_event(content)


def _from_fields(fields: Mapping[str, str]) -> NormalizedEvent:
    get = fields.get
    message_id = get("MessageSid") or get("SmsSid") or get("SmsMessageSid")
    if not message_id:
        raise MalformedError(_no_message_sid(fields))
    status = (get("MessageStatus") or get("SmsStatus") or "").lower()
    if not status and ("Body" in fields or "NumMedia" in fields or _event_type(fields) == INCOMING_EVENT_TYPE):
        # Some inbound messages carry no status at all.
        status = "received"
    elif not status:
        raise MalformedError(
            "MessageStatus is missing, and there is neither Body nor NumMedia as in an inbound message; "
            "point Twilio's status callback or incoming message webhook here."
        )
    elif status in BEFORE_READ and _event_type(fields) == "READ":
        status = "read"
    attributes = [
        (FORM_ATTRIBUTES[name], value[:MAX_VALUE])
        for name, value in fields.items()
        if value and name in FORM_ATTRIBUTES
    ]
    inbound = STATUSES.get(status) is EventKind.INBOUND
    if inbound and get("NumMedia", "0") != "0":
        _add_media(fields, attributes)
    return _event(
        message_id=message_id,
        status=status,
        inbound=inbound,
        from_address=get("From", ""),
        to_address=get("To", ""),
        text=get("Body", ""),
        opt_out_type=get("OptOutType", ""),
        error_code=get("ErrorCode", ""),
        error_text=get("ErrorMessage") or get("ChannelStatusMessage") or "",
        occurred_at_us=parse_timestamp(get("Timestamp")),
        attributes=attributes,
        tags=[],
    )


def _from_cloud_event(envelope: Mapping[str, Any]) -> NormalizedEvent:
    """An event that is not about a message (a test event, say) becomes UNKNOWN under its own id."""
    event_type = envelope.get("type")
    event_id = scalar_text(envelope.get("id")) or ""
    if not isinstance(event_type, str) or not event_type:
        raise MalformedError(
            "type is missing: a JSON body must hold CloudEvents as Twilio Event Streams sends them, or objects with a "
            "MessageSid and the other fields of the form."
        )
    data = envelope.get("data")
    if not isinstance(data, dict):
        data = {}
    inbound = event_type.startswith(INBOUND_EVENT_PREFIX)
    if not inbound and not event_type.startswith(STATUS_EVENT_PREFIX):
        return _foreign_event(event_type, event_id, envelope)

    def text(name: str) -> str:
        return scalar_text(data.get(name)) or ""

    message_id = text("messageSid")
    if not message_id:
        raise MalformedError(f"data.messageSid is missing from an event of type {event_type[:MAX_STATUS]}.")
    attributes = [
        (attribute, value[:MAX_VALUE]) for name, attribute in DATA_ATTRIBUTES.items() if (value := text(name))
    ]
    if event_id:
        attributes.append(("cloud_event_id", event_id[:MAX_ID]))
    tags = data.get("tags")
    return _event(
        message_id=message_id,
        status="received" if inbound else event_type.removeprefix(STATUS_EVENT_PREFIX).lower(),
        inbound=inbound,
        from_address=text("from"),
        to_address=text("to"),
        text=text("body"),
        opt_out_type=text("optOutType"),
        error_code=text("errorCode"),
        error_text=text("errorMessage"),
        # A timestamp that cannot be read does not hide the time at which the event was sent.
        occurred_at_us=parse_timestamp(text("timestamp")) or parse_timestamp(scalar_text(envelope.get("time"))),
        attributes=attributes,
        tags=_tags(tags) if isinstance(tags, dict) else [],
    )


def classify_keyword(text: str, opt_out_type: str) -> tuple[str, str]:
    """(STOP, START or HELP; the keyword) for an inbound message, two empty strings for any other.

    ``OptOutType`` wins: where Twilio sends it, it has matched the tenant's own keywords, and has already answered.
    """
    stripped = text.strip()
    word = stripped.upper() if len(stripped) <= MAX_STATUS else ""
    declared = opt_out_type.upper()
    if declared in OPT_OUT_TYPES:
        return declared, word
    # Upper-casing maps a few letters outside of ASCII onto ASCII ones; Twilio does not take them for its keywords.
    meaning = KEYWORDS.get(word) if stripped.isascii() else None
    return (meaning, word) if meaning else ("", "")


def parse_timestamp(value: str | None) -> int | None:
    """Unix microseconds of an ISO 8601 or RFC 2822 time; None for nothing, nonsense, and times without a zone."""
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    if moment.tzinfo is None:
        return None
    microseconds = (moment - _EPOCH) // _MICROSECOND
    return microseconds if microseconds >= 0 else None


def _event(
    *,
    message_id: str,
    status: str,
    inbound: bool,
    from_address: str,
    to_address: str,
    text: str,
    opt_out_type: str,
    error_code: str,
    error_text: str,
    occurred_at_us: int | None,
    attributes: list[tuple[str, str]],
    tags: list[tuple[str, str]],
) -> NormalizedEvent:
    if len(message_id) > MAX_ID:
        raise MalformedError(f"MessageSid is longer than {MAX_ID} characters.")
    if len(status) > MAX_STATUS:
        raise MalformedError(f"MessageStatus is longer than {MAX_STATUS} characters.")
    if error_code:
        error_code, error_text = _error(error_code, error_text, attributes)
    if inbound:
        meaning, keyword = classify_keyword(text, opt_out_type)
        if meaning:
            attributes.append(("opt_out", meaning))
            attributes.append(("keyword", keyword))
        recipient, sender = from_address, to_address
        # Of a message that is still being received the text may be missing; as the same fact it would hide the whole.
        key = f"{message_id}:{'receiving' if status == 'receiving' else 'inbound'}"
    else:
        # The text of one's own message comes back in Event Streams; it is no reply.
        recipient, sender, text, key = to_address, from_address, "", f"{message_id}:{status}"
    return NormalizedEvent(
        kind=EventKind.INBOUND if inbound else STATUSES.get(status, EventKind.UNKNOWN),
        key=key,
        provider_status=status,
        message_id=message_id,
        recipient=recipient[:MAX_ADDRESS],
        sender=sender[:MAX_ADDRESS],
        occurred_at_us=occurred_at_us,
        error_code=error_code,
        error_text=error_text[:MAX_VALUE],
        text=text[:MAX_TEXT],
        invalid_recipient=error_code in INVALID_RECIPIENT,
        vars=tags,
        attributes=attributes,
    )


def _event_type(fields: Mapping[str, str]) -> str:
    return fields.get("EventType", "").upper()


def _error(code: str, text: str, attributes: list[tuple[str, str]]) -> tuple[str, str]:
    if code == "0":
        # Exported records write "no error" so.
        return "", text
    known = ERROR_CODES.get(code)
    if known is not None:
        attributes.append(("error_class", known.error_class))
        text = text or known.text
    return code[:MAX_STATUS], text


def _add_media(fields: Mapping[str, str], attributes: list[tuple[str, str]]) -> None:
    for number in range(MAX_MEDIA):
        url = fields.get(f"MediaUrl{number}")
        if not url:
            return
        attributes.append((f"media_url_{number}", url[:MAX_VALUE]))
        content_type = fields.get(f"MediaContentType{number}")
        if content_type:
            attributes.append((f"media_content_type_{number}", content_type[:MAX_VALUE]))


def _tags(tags: Mapping[str, Any]) -> list[tuple[str, str]]:
    # Message tags are the sender's custom parameters. https://www.twilio.com/docs/messaging/features/message-tags
    pairs = ((name, scalar_text(value)) for name, value in tags.items())
    return [(name[:MAX_ADDRESS], value[:MAX_VALUE]) for name, value in pairs if value is not None][:MAX_TAGS]


def _foreign_event(event_type: str, event_id: str, envelope: Mapping[str, Any]) -> NormalizedEvent:
    if not event_id or len(event_id) > MAX_ID:
        raise MalformedError(
            f"id is missing or longer than {MAX_ID} characters in an event of type {event_type[:MAX_STATUS]}, "
            "so that it could not be told from others."
        )
    return NormalizedEvent(
        kind=EventKind.UNKNOWN,
        key=f"event:{event_id}",
        provider_status=event_type.lower()[:MAX_ADDRESS],
        occurred_at_us=parse_timestamp(scalar_text(envelope.get("time"))),
        attributes=[("cloud_event_id", event_id)],
    )


def _no_message_sid(fields: Mapping[str, str]) -> str:
    if "CallSid" in fields:
        return (
            "MessageSid is missing: this is a voice callback (it has a CallSid), and only messaging is supported. "
            "Take this address out of the call's StatusCallback."
        )
    return "MessageSid is missing: the body is no messaging callback of Twilio; check which webhook points here."
