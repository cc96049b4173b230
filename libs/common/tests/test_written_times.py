"""Times are written to the microsecond, and what no calendar has is written as nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from backhaul_common.times import time_of
from hypothesis import given, settings
from hypothesis import strategies as st


def test_times_are_rfc_3339_with_microseconds() -> None:
    assert time_of(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"
    assert time_of(-1) == "1969-12-31T23:59:59.999999Z"


def test_no_time_and_one_that_no_calendar_has_are_nothing() -> None:
    assert [time_of(at_us) for at_us in (0, 2**62, -(2**62))] == [None, None, None]


@settings(max_examples=50)
@given(st.integers(1, 253_402_300_799_999_999))
def test_a_time_is_read_as_what_it_was(at_us: int) -> None:
    written = time_of(at_us)
    assert written is not None
    assert datetime.fromisoformat(written) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
