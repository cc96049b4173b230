"""How much of a value is kept, and times as numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

# Twilio's own limits are lower; these only keep a hostile or broken sender from filling the store.
MAX_ID = 512
MAX_STATUS = 64
MAX_ADDRESS = 320
MAX_VALUE = 4096
MAX_TEXT = 16_384
MAX_MEDIA = 10
MAX_TAGS = 64

MAX_SEQUENCE = 2**53
"""Twilio counts a call's events from 0, and comes to a handful."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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


def parse_sequence(value: str | None) -> int | None:
    """The number of an event within its call; None for nothing, and for what is no such number."""
    if not value or len(value) > len(str(MAX_SEQUENCE)) or not (value.isascii() and value.isdecimal()):
        return None
    number = int(value)
    return number if number <= MAX_SEQUENCE else None
