"""Identifiers: random ones for requests, derived ones for facts."""

from __future__ import annotations

import os
import time
from hashlib import blake2b


def new_callback_id() -> str:
    """32 hex digits: 48 bits of unix time in ms, then 80 random bits. Sorts by time, unique without coordination."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def derived_id(*parts: str) -> str:
    """32 hex digits that depend on ``parts`` and nothing else.

    All parts but the last must be free of line breaks (tenant ids, channel keys and provider names are), so that no two
    lists of parts run together into the same bytes.
    """
    # A lone surrogate cannot be encoded strictly; an identifier must exist for every text that a provider can send.
    return blake2b("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
