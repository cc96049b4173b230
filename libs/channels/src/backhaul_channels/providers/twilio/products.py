"""Webhooks of Twilio's other products: recognised by what says so, kept as unknown events that name their product.

They are signed like messaging's and may hold a Body and a MessageSid too, so that nothing but their own words tells
them from messages. None is about a message of messaging: what they say goes into no message's state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from backhaul_channels.adapter import MalformedError
from backhaul_channels.event import EventKind, NormalizedEvent
from backhaul_channels.providers.twilio.mapping import CONVERSATION_IDS, PRODUCTS
from backhaul_channels.providers.twilio.values import MAX_ADDRESS, MAX_ID, MAX_STATUS, parse_timestamp

# onMessageAdded, onConversationStateUpdated; onMediaMessageSent is about a message.
_CONVERSATION_EVENT = re.compile(r"on(?:Media)?([A-Z][a-z]+)")
_IN_A_CONVERSATION = "IM"
_TIMES = ("Timestamp", "DateUpdated", "interactionDateUpdated", "DateCreated")


def is_conversation(event_type: str, message_sid: str) -> bool:
    """Whether a webhook is one of Conversations or Chat: its event says so, or else the SID of its message."""
    if event_type and _CONVERSATION_EVENT.match(event_type) is not None:
        return True
    return message_sid[:2] == _IN_A_CONVERSATION


def product_of(fields: Mapping[str, str]) -> str:
    """The product whose SID ``fields`` carry under the name that it has there; empty when there is none."""
    for name, product in PRODUCTS.items():
        for field, prefix in product.subjects.items():
            if fields.get(field, "").startswith(prefix):
                return name
    return ""


def looks_like(fields: Mapping[str, str]) -> str:
    """The product that has one of the fields, to name it to people who look for what they pointed here."""
    for name, product in PRODUCTS.items():
        if any(field in fields for field in (*product.subjects, *product.words)):
            return name
    return ""


def normalize_conversation(fields: Mapping[str, str]) -> NormalizedEvent:
    """A webhook of Conversations, or of Chat, which came before it. Raises MalformedError."""
    event = fields.get("EventType", "")
    match = _CONVERSATION_EVENT.match(event)
    subject = CONVERSATION_IDS.get(match[1], "MessageSid") if match is not None else "MessageSid"
    is_chat = "ConversationSid" not in fields and ("ChannelSid" in fields or "InstanceSid" in fields)
    name = "chat" if is_chat else "conversations"
    # Before something happens Twilio asks whether it may; what does not exist yet has no id to be told by.
    if not fields.get(subject):
        raise without_id(name, subject)
    return _event(name, event, [fields[subject]], fields)


def normalize_product(name: str, fields: Mapping[str, str]) -> NormalizedEvent:
    """A webhook of the product ``name``. Raises MalformedError."""
    product = PRODUCTS[name]
    event = next((fields[field] for field in (*product.words, "EventType") if fields.get(field)), "")
    ids = [fields[field] for field in product.ids if fields.get(field)]
    if not ids:
        raise without_id(name, product.ids[0])
    return _event(name, event, ids, fields)


def without_id(name: str, field: str) -> MalformedError:
    """Why a webhook of another product is not even kept as unknown."""
    return MalformedError(
        f"This is a webhook of Twilio's {name}, not of messaging, and without {field} it cannot be told from others; "
        "take this address out of that product's settings."
    )


def _event(name: str, event: str, ids: list[str], fields: Mapping[str, str]) -> NormalizedEvent:
    # The same thing may happen to one subject again, as when a message is changed twice; the same report, repeated,
    # has the same moment.
    moments = [fields[field] for field in PRODUCTS[name].moments if fields.get(field)]
    key = ":".join([name, *ids, event, *moments])
    if len(key) > MAX_ID:
        raise MalformedError(f"The ids of this webhook of Twilio's {name} are longer than {MAX_ID} characters.")
    return NormalizedEvent(
        kind=EventKind.UNKNOWN,
        key=key,
        provider_status=(event or name).lower()[:MAX_STATUS],
        occurred_at_us=next((at for field in _TIMES if (at := parse_timestamp(fields.get(field))) is not None), None),
        attributes=[("product", name[:MAX_ADDRESS])],
    )
