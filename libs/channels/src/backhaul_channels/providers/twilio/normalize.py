"""Twilio messaging callbacks as facts: status callbacks, inbound messages, Event Streams."""

from __future__ import annotations

from collections.abc import Mapping

from backhaul_channels.adapter import MalformedError
from backhaul_channels.engines.forms import parse_form
from backhaul_channels.engines.times import time_microseconds
from backhaul_channels.event import EventKind, NormalizedEvent, Reply
from backhaul_channels.jsonparts import decode_object
from backhaul_channels.providers.twilio.calls import is_call, normalize_call
from backhaul_channels.providers.twilio.events import normalize_click, normalize_cloud_event
from backhaul_channels.providers.twilio.facts import Told, fact
from backhaul_channels.providers.twilio.mapping import (
    BEFORE_READ,
    INBOUND_ATTRIBUTES,
    INCOMING_EVENT_TYPE,
    MESSAGE_SIDS,
    PRODUCTS,
    STATUS_ATTRIBUTES,
    STATUSES,
)
from backhaul_channels.providers.twilio.products import (
    is_conversation,
    looks_like,
    normalize_conversation,
    normalize_product,
    normalize_unknown,
    product_of,
)
from backhaul_channels.providers.twilio.records import fields_of_row, is_row
from backhaul_channels.providers.twilio.values import MAX_MEDIA, texts_in
from backhaul_channels.values import MAX_ID, MAX_VALUE

_SIDS = ("MessageSid", "SmsSid", "SmsMessageSid")
# What a JSON object with the fields of a form is known by, unless it is a CloudEvent.
_FORM_NAMES = frozenset({*_SIDS, "EventType", "CallSid"}).union(*(one.subjects for one in PRODUCTS.values()))


def normalize_form(part: bytes) -> NormalizedEvent:
    """A status callback, an inbound message or a call, as Twilio's form posts bring them; a webhook of another product
    as UNKNOWN. Raises MalformedError."""
    return _from_fields(parse_form(part))


def normalize_json(part: bytes, *, told_by_api: bool = False) -> NormalizedEvent:
    """One JSON object: the fields of a form, a CloudEvent of Event Streams, or, of what the API told, a row. Raises
    MalformedError."""
    content = decode_object(part)
    if told_by_api and is_row(content):
        return _from_fields(fields_of_row(content))
    if "specversion" not in content:
        if not _FORM_NAMES.isdisjoint(content):
            return _from_fields(texts_in(content))
        # Webhooks of newer products are objects without the envelope of a CloudEvent.
        event = _of_no_product(texts_in(content))
        if event is not None:
            return event
    return normalize_cloud_event(content)


def _from_fields(fields: Mapping[str, str]) -> NormalizedEvent:
    """What the webhook is, is decided by the words and SIDs that say so, never by what happens to be there: other
    products' webhooks have texts and authors too."""
    get = fields.get
    message_id = get("MessageSid") or get("SmsSid") or get("SmsMessageSid") or ""
    if is_conversation(get("EventType", ""), message_id):
        return normalize_conversation(fields)
    if is_call(fields, message_id):
        return normalize_call(fields)
    status = (get("MessageStatus") or get("SmsStatus") or "").lower()
    if message_id[:2] in MESSAGE_SIDS:
        return _from_message(message_id, status, fields)
    product = product_of(fields)
    if not product and message_id and status:
        return _from_message(message_id, status, fields)
    product = product or looks_like(fields)
    if product:
        return normalize_product(product, fields)
    event = _of_no_product(fields)
    if event is None:
        raise MalformedError(
            "MessageSid is missing, and so is every other id of Twilio's: the body is no callback of Twilio; check "
            "what points here."
        )
    return event


def _of_no_product(fields: Mapping[str, str]) -> NormalizedEvent | None:
    return normalize_click(fields) or normalize_unknown(fields)


def _from_message(message_id: str, status: str, fields: Mapping[str, str]) -> NormalizedEvent:
    get = fields.get
    event_type = get("EventType", "").upper()
    if not status and ("Body" in fields or "NumMedia" in fields or event_type == INCOMING_EVENT_TYPE):
        # Some inbound messages carry no status at all, which no status callback does.
        status = "received"
    elif not status:
        raise MalformedError(
            "MessageStatus is missing, and there is neither Body nor NumMedia as in an inbound message; "
            "point Twilio's status callback or incoming message webhook here."
        )
    elif status in BEFORE_READ and event_type == "READ":
        status = "read"
    inbound = STATUSES.get(status) is EventKind.INBOUND
    names = INBOUND_ATTRIBUTES if inbound else STATUS_ATTRIBUTES
    # Two fields may be one attribute.
    kept = {names[name]: value[:MAX_VALUE] for name, value in fields.items() if value and name in names}
    attributes = list(kept.items())
    if inbound and get("NumMedia", "0") != "0":
        _add_media(fields, attributes)
    return fact(
        Told(
            message_id=message_id,
            status=status,
            inbound=inbound,
            from_address=get("From", ""),
            to_address=get("To", ""),
            text=get("Body", ""),
            opt_out_type=get("OptOutType", ""),
            messaging_service=get("MessagingServiceSid", ""),
            reply=_reply(fields) if inbound else None,
            error_code=get("ErrorCode", ""),
            error_text=get("ErrorMessage") or get("ChannelStatusMessage") or "",
            occurred_at_us=time_microseconds(get("Timestamp")),
            attributes=attributes,
        )
    )


def _reply(fields: Mapping[str, str]) -> Reply | None:
    answered = fields.get("OriginalRepliedMessageSid", "")[:MAX_ID]
    # A button's, or an entry's of a list.
    payload = (fields.get("ButtonPayload") or fields.get("ListId") or "")[:MAX_VALUE]
    option = (fields.get("ButtonText") or fields.get("ListTitle") or "")[:MAX_VALUE]
    return Reply(answered, payload, option) if answered or payload or option else None


def _add_media(fields: Mapping[str, str], attributes: list[tuple[str, str]]) -> None:
    for number in range(MAX_MEDIA):
        url = fields.get(f"MediaUrl{number}")
        if not url:
            return
        attributes.append((f"media_url_{number}", url[:MAX_VALUE]))
        content_type = fields.get(f"MediaContentType{number}")
        if content_type:
            attributes.append((f"media_content_type_{number}", content_type[:MAX_VALUE]))
