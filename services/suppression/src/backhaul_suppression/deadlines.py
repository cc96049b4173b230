"""By when an opt-out must be honoured.

47 CFR 64.1200(a)(10) gives ten business days. The days are those of UTC; holidays are those of the United States as a
whole (5 U.S.C. 6103), with the days on which they are observed. They are counted here, and by a library in the tests:
it takes a quarter of a second of each start, and 20 MB, to have the calendars of all countries.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import Final

BUSINESS_DAYS: Final = 10
DAY_US: Final = 86_400_000_000

_EPOCH = date(1970, 1, 1).toordinal()
# A calendar has years of four digits.
_LAST = date(9998, 12, 31).toordinal()
_MONDAY, _THURSDAY, _FRIDAY, _SATURDAY, _SUNDAY = 0, 3, 4, 5, 6


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
    """Those of one year, as they were then: exact from 1971 on."""
    fixed = [date(year, 1, 1), date(year, 7, 4), date(year, 12, 25)]
    # The third Monday of February, the last of May, the first of September, the second of October; Thanksgiving.
    moving = [
        _nth(3, _MONDAY, year, 2),
        _nth(1, _MONDAY, year, 6) - timedelta(days=7),
        _nth(1, _MONDAY, year, 9),
        _nth(2, _MONDAY, year, 10),
        _nth(4, _THURSDAY, year, 11),
    ]
    if year >= 1986:  # Martin Luther King's birthday.
        moving.append(_nth(3, _MONDAY, year, 1))
    if year >= 2021:  # Juneteenth.
        fixed.append(date(year, 6, 19))
    if year < 1978:  # Veterans Day was a Monday for some years.
        moving.append(_nth(4, _MONDAY, year, 10))
    else:
        fixed.append(date(year, 11, 11))
    kept = [*moving, *map(_observed, fixed)]
    if (last := date(year, 12, 31)).weekday() == _FRIDAY:  # The next New Year's Day is a Saturday.
        kept.append(last)
    return frozenset(kept)


def _nth(count: int, weekday: int, year: int, month: int) -> date:
    """The first, second, … such day of a month."""
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (count - 1))


def _observed(day: date) -> date:
    """The working day on which a holiday is kept: of a Saturday's the day before, of a Sunday's the day after."""
    return day + timedelta(days={_SATURDAY: -1, _SUNDAY: 1}.get(day.weekday(), 0))
