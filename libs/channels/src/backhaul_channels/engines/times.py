"""Times as several providers write them, as numbers."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

MAX_TIME = 64
"""Characters of a time; what is longer is none."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# RFC 2822 as programs write it. The library takes all that it allows, and ten times as long.
_RFC_2822 = re.compile(
    rf"[A-Z][a-z]{{2}}, (\d\d) ({'|'.join(_MONTHS)}) ([12]\d{{3}}) (\d\d):(\d\d):(\d\d) \+0000", re.ASCII
)


def iso_microseconds(text: str) -> int | None:
    """Unix microseconds of an ISO 8601 time (RFC 3339's too); None for nothing, nonsense, times without a zone, and
    what lies before 1970.

    Finer parts of a second than microseconds are cut off: Google's have nine digits.
    """
    if not text or len(text) > MAX_TIME:
        return None
    try:
        return _microseconds(datetime.fromisoformat(text))
    except ValueError:
        return None


def time_microseconds(text: str | None) -> int | None:
    """The same of a time that is written as either of ISO 8601 and RFC 2822 has it."""
    if not text or len(text) > MAX_TIME:
        return None
    try:
        if usual := _RFC_2822.fullmatch(text):
            day, month, year, hour, minute, second = usual.groups()
            whole = (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))
            return _microseconds(datetime(*whole, tzinfo=UTC))
        return _microseconds(datetime.fromisoformat(text))
    except ValueError:
        pass
    try:
        return _microseconds(parsedate_to_datetime(text))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def microseconds_of(moment: datetime) -> int:
    """Unix microseconds of a moment with a zone; less than 0 before 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def _microseconds(moment: datetime) -> int | None:
    if moment.tzinfo is None:
        return None
    microseconds = microseconds_of(moment)
    return microseconds if microseconds >= 0 else None
