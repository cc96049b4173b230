"""Single values of a document, as an event keeps them: read, bounded, and refused by name."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any

from backhaul_channels.adapter import MalformedError
from backhaul_channels.engines.forms import parse_form
from backhaul_channels.engines.mapped.words import NO_ERROR, squeezed
from backhaul_channels.event import AddressFamily
from backhaul_channels.jsonparts import decode_object, looks_like_json, scalar_text
from backhaul_channels.values import MAX_ADDRESS, MAX_VALUE, MAX_WORD, text_of

MAX_KEPT = 256
"""Variables of an event, and attributes. This only keeps a hostile or broken sender from filling the store."""

_NUMBER = re.compile(r"\+?[0-9](?:[ .()-]{0,2}[0-9]){5,19}", re.ASCII)
_DIGITS = re.compile(r"[1-9][0-9]{6,14}", re.ASCII)


def document_of(part: bytes) -> dict[str, Any]:
    """A part's members. Raises MalformedError."""
    if looks_like_json(part):
        return decode_object(part)
    if b"=" not in part:
        # An array may hold thousands of numbers, each of which would be looked through as a form.
        raise MalformedError("The event is neither a JSON object nor a form.")
    return {**parse_form(part)}


def error_code_of(value: object) -> str:
    """A provider's code; empty for one that says that there is no error."""
    code = text_of(value).strip()[:MAX_WORD]
    return "" if squeezed(code) in NO_ERROR else code


def key_of_a_text(recipient: str, text: str, at_us: int) -> str:
    """The key of an inbound message without any id: who wrote what, and when."""
    hashed = blake2b(digest_size=16)
    for piece in (recipient, text, str(at_us)):
        encoded = piece.encode("utf-8", "replace")
        hashed.update(b"%d:" % len(encoded) + encoded)
    return f"text:{hashed.hexdigest()}"


def add_vars(name: str, value: object, own: list[tuple[str, str]]) -> None:
    """Adds the sender's parameters in ``value``: an object's members, elements with name and value, or it alone."""
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = [
            (text_of(one.get("name") or one.get("key")), one.get("value")) for one in value if isinstance(one, dict)
        ]
    else:
        pairs = [(name, value)]
    for key, one in pairs:
        text = scalar_text(one)
        if key and text is not None and len(own) < MAX_KEPT:
            own.append((key[:MAX_VALUE], text[:MAX_VALUE]))


def address_of(value: object, *, international: bool) -> str:
    """An address as the provider writes it; ``international`` numbers get the plus that they lack."""
    address = text_of(value).strip()[:MAX_ADDRESS]
    return f"+{address}" if international and _DIGITS.fullmatch(address) else address


def family_of(address: str) -> AddressFamily:
    """Which kind of address it looks like; a number may have its channel before it (``whatsapp:``)."""
    if "@" in address:
        return AddressFamily.EMAIL
    return AddressFamily.PHONE if _NUMBER.fullmatch(address.rpartition(":")[2]) else AddressFamily.UNKNOWN
