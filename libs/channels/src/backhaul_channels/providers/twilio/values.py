"""Values as Twilio writes them, and how many of a kind are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backhaul_channels.jsonparts import scalar_text

MAX_MEDIA = 10
MAX_TAGS = 64

MAX_SEQUENCE = 2**53
"""Twilio counts a call's events from 0, and comes to a handful."""


def texts_in(content: Mapping[str, Any]) -> dict[str, str]:
    """The scalars of a JSON object as the form's fields would be; arrays, objects and null are left out."""
    texts = ((name, scalar_text(value)) for name, value in content.items())
    return {name: text for name, text in texts if text is not None}


def parse_sequence(value: str | None) -> int | None:
    """The number of an event within its call; None for nothing, and for what is no such number."""
    if not value or len(value) > len(str(MAX_SEQUENCE)) or not (value.isascii() and value.isdecimal()):
        return None
    number = int(value)
    return number if number <= MAX_SEQUENCE else None
