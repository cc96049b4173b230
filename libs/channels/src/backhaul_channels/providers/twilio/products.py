"""Webhooks of Twilio's other products: recognised by what says so, kept as unknown under their own id and product.

They are signed like messaging's and may hold a Body and a MessageSid too, so that nothing but their own words tells
them from messages. None is about a message of messaging: what they say goes into no message's state, and no text in
them is anybody's opt-out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import msgspec

from backhaul_channels.engines.times import time_microseconds
from backhaul_channels.event import EventKind, NormalizedEvent
from backhaul_channels.providers.twilio.mapping import (
    CONVERSATION_IDS,
    OF_A_RETRY,
    PRODUCTS,
    SID_PRODUCTS,
    WORDS,
)
from backhaul_channels.values import MAX_ADDRESS, MAX_ID, MAX_WORD

# onMessageAdded, onConversationStateUpdated; onMediaMessageSent is about a message.
_CONVERSATION_EVENT = re.compile(r"on(?:Media)?([A-Z][a-z]+)")
_IN_A_CONVERSATION = "IM"
_TIMES = ("Timestamp", "DateUpdated", "interactionDateUpdated", "DateCreated")
# A SID, or an id in the form that Twilio gives to newer resources, as in comms_message_01h9krwprkeee8fzqspvwy6nq8.
_SID = re.compile(r"([A-Z]{2})[0-9a-f]{32}")
_NEWER_ID = re.compile(r"([a-z]{2,16})(?:_[a-z]{2,24}){1,4}_[0-7][0-9a-hjkmnp-tv-z]{25,34}")
_ACCOUNT = "AC"


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
    """The product that has one of the fields, where no SID tells."""
    for name, product in PRODUCTS.items():
        if any(field in fields for field in (*product.subjects, *product.words)):
            return name
    return ""


def normalize_conversation(fields: Mapping[str, str]) -> NormalizedEvent:
    """A webhook of Conversations, or of Chat, which came before it."""
    event = fields.get("EventType", "")
    match = _CONVERSATION_EVENT.match(event)
    subject = CONVERSATION_IDS.get(match[1], "MessageSid") if match is not None else "MessageSid"
    is_chat = "ConversationSid" not in fields and ("ChannelSid" in fields or "InstanceSid" in fields)
    # Before something happens Twilio asks whether it may; what does not exist yet has no id to be told by.
    return _event("chat" if is_chat else "conversations", event, [fields.get(subject, "")], fields)


def normalize_product(name: str, fields: Mapping[str, str]) -> NormalizedEvent:
    """A webhook of the product ``name``."""
    product = PRODUCTS[name]
    event = next((fields[field] for field in (*product.words, "EventType") if fields.get(field)), "")
    return _event(name, event, [fields[field] for field in product.ids if fields.get(field)], fields)


def normalize_unknown(fields: Mapping[str, str]) -> NormalizedEvent | None:
    """A webhook that no table knows, under whatever id of Twilio's it holds; None where it holds none, so that nothing
    shows that it is Twilio's."""
    found = [match for value in fields.values() if (match := _SID.fullmatch(value) or _NEWER_ID.fullmatch(value))]
    if not found:
        return None
    own = [match for match in found if match[1] != _ACCOUNT]
    if not own:
        return _unknown("", _word(fields), [], fields)
    # The table's first, and of several the least: fields come in any order.
    sid = min(own, key=lambda match: (match[1] not in SID_PRODUCTS, match[0]))
    product = SID_PRODUCTS.get(sid[1], "" if sid[1].isupper() else sid[1])
    return _unknown(product, _word(fields), [sid[0]], fields)


def digest_of(fields: Mapping[str, object]) -> str:
    """What tells a webhook from others where no id does: the same fields, in any order, have the same."""
    kept = {name: value for name, value in fields.items() if name not in OF_A_RETRY}
    return blake2b(msgspec.json.encode(kept, order="sorted"), digest_size=16).hexdigest()


def _word(fields: Mapping[str, str]) -> str:
    """What a webhook says that happened, as far as a field's name shows it."""
    known = next((fields[name] for name in WORDS if fields.get(name)), "")
    return known or next((fields[name] for name in sorted(fields) if name.endswith("Status") and fields[name]), "")


def _event(name: str, event: str, ids: Sequence[str], fields: Mapping[str, str]) -> NormalizedEvent:
    product = PRODUCTS[name]
    own = [one for one in ids if one]
    if not own:
        return _unknown(name, event, [fields[field] for field in product.subjects if fields.get(field)], fields)
    # The same thing may happen to one subject again, as when a message is changed twice; the same report, repeated,
    # has the same moment.
    moments = [fields[field] for field in product.moments if fields.get(field)]
    key = ":".join([name, *own, event, *moments])
    return _of_a_product(name, key if len(key) <= MAX_ID else f"{name}:{digest_of(fields)}", event, own, fields)


def _unknown(name: str, event: str, ids: Sequence[str], fields: Mapping[str, str]) -> NormalizedEvent:
    """A webhook without the id of what happened: all that it says is its key."""
    key = ":".join((name or "twilio", *(one[:MAX_WORD] for one in ids[:1]), digest_of(fields)))
    return _of_a_product(name, key, event, ids, fields)


def _of_a_product(name: str, key: str, event: str, ids: Sequence[str], fields: Mapping[str, str]) -> NormalizedEvent:
    attributes = [("product", name[:MAX_ADDRESS])] if name else []
    if ids:
        prefixes = PRODUCTS[name].subjects.values() if name in PRODUCTS else ()
        attributes.append(("resource_sid", next((one for one in ids if one[:2] in prefixes), ids[0])[:MAX_ADDRESS]))
    return NormalizedEvent(
        kind=EventKind.UNKNOWN,
        key=key,
        provider_status=(event or name or "unknown").lower()[:MAX_WORD],
        occurred_at_us=next((at for field in _TIMES if (at := time_microseconds(fields.get(field))) is not None), None),
        attributes=attributes,
    )
