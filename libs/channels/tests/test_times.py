"""Times as providers write them."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime

import pytest
from backhaul_channels.engines.times import iso_microseconds, time_microseconds
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("2024-12-20T13:45:12Z", 1_734_702_312_000_000),
        ("2024-12-20T13:45:12.000Z", 1_734_702_312_000_000),
        ("2024-12-20T10:45:12.5-03:00", 1_734_702_312_500_000),
        ("2018-12-31T15:01:23.045123456Z", 1_546_268_483_045_123),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59Z", None),
        ("2024-12-20T13:45:12", None),
        ("2024-13-20T13:45:12Z", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", 253_402_387_139_000_000),
        ("[time stamp]", None),
        ("", None),
        ("2024-12-20T13:45:12." + "0" * 60 + "Z", None),
    ],
)
def test_a_time_with_a_zone_is_a_number_and_everything_else_is_none(text: str, microseconds: int | None) -> None:
    assert iso_microseconds(text) == microseconds
    assert time_microseconds(text) == microseconds


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("Fri, 20 Dec 2024 13:45:12 +0000", 1_734_702_312_000_000),
        ("Fri, 20 Dec 2024 10:45:12 -0300", 1_734_702_312_000_000),
        # No zone is known of it.
        ("Fri, 20 Dec 2024 13:45:12 -0000", None),
        ("Fri, 20 Dec 2024 13:45:12", None),
        ("Wed, 31 Dec 1969 23:59:59 +0000", None),
        ("Fri, 20 Dec 2024 13:45:12 +0000" + " " * 64, None),
    ],
)
def test_a_time_of_a_mail_counts_where_it_may_be_written_so(text: str, microseconds: int | None) -> None:
    assert time_microseconds(text) == microseconds
    assert iso_microseconds(text) is None


@given(st.from_regex(r"\A[A-Z][a-z]{2}, [0-3]\d (Jan|Feb|Sep|Dec|Foo) \d{4} [0-2]\d:[0-6]\d:[0-6]\d [+-]0000\Z"))
def test_the_short_way_of_a_mails_time_comes_to_what_the_library_does(text: str) -> None:
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        at = datetime.min  # noqa: DTZ901  # of no zone, as what cannot be read.
    known = at.tzinfo is not None and at.timestamp() >= 0
    assert time_microseconds(text) == (round(at.timestamp()) * 1_000_000 if known else None)


def test_no_time_is_none() -> None:
    assert time_microseconds(None) is None


@given(st.text() | st.from_regex(r"\d{1,5}-\d\d?-\d\d?T?\d*:?\d*:?\d*(\.\d+)?([+-]\d\d:?\d\d|Z)?", fullmatch=True))
def test_no_text_raises(text: str) -> None:
    for found in (iso_microseconds(text), time_microseconds(text)):
        assert found is None or found >= 0
