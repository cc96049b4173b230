"""Identifiers: random ones for requests, derived ones for facts."""

from __future__ import annotations

import time
from hashlib import blake2b
from random import getrandbits
from secrets import token_hex


def new_callback_id() -> str:
    """32 hex digits: 48 bits of unix time in ms, then 80 random bits. Sorts by time, unique without coordination."""
    # The generator is seeded by the system when the process starts. An id is no secret, and asking the system each time
    # costs ten times as much.
    return (time.time_ns() // 1_000_000 << 80 | getrandbits(80)).to_bytes(16, "big").hex()


def new_registration(tenant_id: str) -> str:
    """``acme.5c0e9d1f2a3b4c5d``: one life of a tenant, which nobody else ever has."""
    return f"{tenant_id}.{token_hex(8)}"


def derived_id(*parts: str) -> str:
    """32 hex digits that depend on ``parts`` and nothing else.

    All parts but the last must be free of line breaks (registrations, channel keys and provider names are), so that no
    two lists of parts run together into the same bytes.
    """
    # A lone surrogate cannot be encoded strictly; an identifier must exist for every text that a provider can send.
    return blake2b("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_derived_id(text: str) -> bool:
    """Whether ``text`` may be one: whoever asks for something by its id may say anything."""
    return len(text) == 32 and not set(text).difference("0123456789abcdef")
