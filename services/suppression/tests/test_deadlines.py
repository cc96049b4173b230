"""Ten business days: weekends, holidays, days on which a holiday is observed, and times that no calendar has."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import holidays
import pytest
from backhaul_suppression.deadlines import DAY_US, due_by
from hypothesis import given
from hypothesis import strategies as st


def at_us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("effective", "due"),
    [
        # No holiday: two weeks later, at the same time of day.
        ("2026-08-03 09:30:00", "2026-08-17 09:30:00"),
        # Of a weekend's opt-out Monday is the first day.
        ("2026-08-01 09:30:00", "2026-08-14 09:30:00"),
        ("2026-08-02 23:59:59", "2026-08-14 23:59:59"),
        # Thanksgiving itself, and a count across it.
        ("2026-11-26 12:00:00", "2026-12-10 12:00:00"),
        ("2026-11-25 12:00:00", "2026-12-10 12:00:00"),
        # Christmas and New Year's Day.
        ("2026-12-20 01:00:00", "2027-01-05 01:00:00"),
        # The Fourth of July is a Saturday in 2026, and observed on the Friday before.
        ("2026-07-01 00:00:00", "2026-07-16 00:00:00"),
        # Both are Saturdays in 2027 and 2028; the latter is observed in the year before.
        ("2027-12-23 03:00:00", "2028-01-10 03:00:00"),
        # Juneteenth is a holiday since 2021.
        ("2026-06-15 00:00:00", "2026-06-30 00:00:00"),
        ("2020-06-15 00:00:00", "2020-06-29 00:00:00"),
    ],
)
def test_the_tenth_business_day(effective: str, due: str) -> None:
    assert due_by(at_us(effective)) == at_us(due)


@pytest.mark.parametrize("at", [2**63 - 1, -(2**63), at_us("9998-12-30 00:00:00") + 400 * DAY_US])
def test_a_time_that_no_calendar_has_is_its_own_deadline(at: int) -> None:
    assert due_by(at) == at


def test_the_last_day_that_counts_has_one() -> None:
    assert due_by(at_us("9998-12-31 00:00:00")) > at_us("9999-01-10 00:00:00")


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001  # bounds; UTC is what they become.
def test_it_is_a_weekday_between_two_and_three_weeks_later(effective: datetime) -> None:
    at = round(effective.replace(tzinfo=UTC).timestamp() * 1_000_000)
    due = due_by(at)
    assert (due - at) % DAY_US == 0
    assert 12 <= (due - at) // DAY_US <= 20
    assert (date(1970, 1, 1) + timedelta(days=due // DAY_US)).weekday() < 5


def test_holidays_are_those_that_a_library_knows() -> None:
    """Where a law changes them, its next release tells."""
    for year in range(1971, 2061):
        known = {day for day in holidays.country_holidays("US", years=year) if day.weekday() < 5}
        day = date(year, 1, 1)
        while day.year == year:
            # What is done on the day before has this day as the first of the ten, or not at all.
            before = due_by(at_us(f"{day - timedelta(days=1)} 00:00:00"))
            counts = before != due_by(at_us(f"{day} 00:00:00"))
            assert counts == (day.weekday() < 5 and day not in known), day
            day += timedelta(days=1)
