"""Times as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_BACK = re.compile(r"([0-9]{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def is_span(text: str) -> bool:
    """Whether a text says how long, such as ``90m``, and not when."""
    return _BACK.fullmatch(text.strip()) is not None


def moment_of(text: str, now: datetime) -> datetime:
    """A time: ISO 8601, in UTC where it names no zone, or how long before ``now``, such as ``90m`` or ``2d``.

    ValueError for anything else, and for what is before all times."""
    text = text.strip()
    try:
        if back := _BACK.fullmatch(text):
            return now - timedelta(seconds=int(back[1]) * _SECONDS[back[2]])
        found = datetime.fromisoformat(text.removesuffix(" UTC"))
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except OverflowError as exc:
        raise ValueError(text) from exc
