"""Times as several providers write them, as numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

MAX_TIME = 64
"""Characters of a time; what is longer is none."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def iso_microseconds(text: str) -> int | None:
    """Unix microseconds of an ISO 8601 time (RFC 3339's too); None for nothing, nonsense, and times without a zone.

    Finer parts of a second than microseconds are cut off: Google's have nine digits.
    """
    if not text or len(text) > MAX_TIME:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            return None
        microseconds = (moment - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None
    return microseconds if microseconds >= 0 else None
