"""By when an opt-out must be honoured.

47 CFR 64.1200(a)(10) gives ten business days. The days are those of UTC; holidays are those of the United States as a
whole, with the days on which they are observed.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import Final

import holidays

BUSINESS_DAYS: Final = 10
DAY_US: Final = 86_400_000_000

_EPOCH = date(1970, 1, 1).toordinal()
# A calendar has years of four digits.
_LAST = date(9998, 12, 31).toordinal()
_SATURDAY = 5


def due_by(effective_at_us: int) -> int:
    """The same time of day ten business days after ``effective_at_us``, both unix time in microseconds. Never raises: a
    time that no calendar has is its own deadline."""
    day, time_of_day_us = divmod(effective_at_us, DAY_US)
    if not 0 < day + _EPOCH <= _LAST:
        return effective_at_us
    return (_due_day(day) * DAY_US) + time_of_day_us


@lru_cache(maxsize=4096)
def _due_day(day: int) -> int:
    """The tenth business day after a day, both counted from 1970."""
    due = date.fromordinal(_EPOCH + day)
    left = BUSINESS_DAYS
    while left:
        due += timedelta(days=1)
        left -= due.weekday() < _SATURDAY and due not in _holidays(due.year)
    return due.toordinal() - _EPOCH


@lru_cache(maxsize=64)
def _holidays(year: int) -> frozenset[date]:
    """Those of one year."""
    return frozenset(holidays.country_holidays("US", years=year))


# The library loads the calendars of all countries when it is asked for the first time, which takes a third of a second
# and keeps other threads from running. Left to the first opt-out, it would happen within a transaction that all copies
# wait for.
_holidays(1970)
