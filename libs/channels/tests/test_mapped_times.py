"""Times of mapped webhooks: each format, zones, and what is no time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from backhaul_channels.engines.mapped.times import check_format, reader_of, zone_of
from hypothesis import given
from hypothesis import strategies as st

NOON = int(datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("auto", NOON // 1_000_000, NOON),
        ("auto", str(NOON // 1_000_000), NOON),
        ("auto", NOON // 1_000, NOON),
        ("auto", NOON, NOON),
        ("auto", NOON / 1_000_000 + 0.25, NOON + 250_000),
        ("auto", f"{NOON // 1_000_000}.5", NOON + 500_000),
        ("auto", "2026-11-26T12:00:00Z", NOON),
        ("auto", " 2026-11-26 13:00:00.5+01:00 ", NOON + 500_000),
        ("auto", "2026-11-26T12:00:00.123456789Z", NOON + 123_456),
        ("auto", "Thu, 26 Nov 2026 12:00:00 +0000", NOON),
        ("iso8601", "20261126T120000Z", NOON),
        ("rfc2822", "Thu, 26 Nov 2026 12:00:00 GMT", NOON),
        ("unix_s", "1795694400", NOON),
        ("unix_s", 1.5, 1_500_000),
        ("unix_ms", NOON // 1_000, NOON),
        ("unix_us", NOON, NOON),
        ("%d.%m.%Y %H:%M", "26.11.2026 12:00", NOON),
        ("%m/%d/%Y %I:%M %p %z", "11/26/2026 01:00 PM +0100", NOON),
        ("%y%m%d%H%M", "2611261200", NOON),
    ],
)
def test_a_time_is_read(text: str, value: object, expected: int) -> None:
    assert reader_of(check_format(text), zone_of("UTC"))(value) == expected


def test_a_time_without_an_offset_is_of_the_zone_and_the_first_of_two() -> None:
    read = reader_of("auto", zone_of("Europe/Berlin"))
    assert read("2026-11-26 13:00:00") == NOON
    assert read("2026-11-26T12:00:00Z") == NOON
    assert read("2026-10-25 02:30:00") == read("2026-10-25T02:30:00+02:00")
    assert reader_of("%Y-%m-%d %H", zone_of("America/New_York"))("2026-11-26 07") == NOON


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("auto", "soon"),
        ("auto", "20261126120000"),
        ("auto", 20261126),
        ("auto", 1),
        ("auto", True),
        ("auto", [NOON]),
        ("auto", 10**400),
        ("auto", "1e400"),
        ("auto", "2026-13-01"),
        ("auto", "1969-12-31T23:59:59Z"),
        ("auto", "0001-01-01T00:00:00+23:59"),
        ("auto", "9" * 5_000),
        ("auto", " "),
        ("iso8601", 5),
        ("rfc2822", ""),
        ("rfc2822", ";" * 60),
        ("unix_s", 10**18),
        ("unix_s", -1),
        ("unix_s", float("inf")),
        ("unix_s", "0x10"),
        ("%Y-%m-%d", "2026-11-26T12"),
    ],
)
def test_what_is_no_time_raises_only_what_is_said(text: str, value: object) -> None:
    with pytest.raises((ValueError, OverflowError)):
        reader_of(text, zone_of("UTC"))(value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("iso", "Use one of auto"),
        ("", "Use one of auto"),
        ("%H:%M", "no year, month or day"),
        ("%Y-%m", "no year, month or day"),
        ("%d.%m. %H:%M", "no year, month or day"),
        ("%Y-%m-%d %Z", "%Z cannot be used"),
        ("%c", "%c cannot be used"),
        ("%Y %", "% cannot be used"),
        ("%Y %Y %m %d", "Use each directive once"),
    ],
)
def test_a_format_that_cannot_work_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        check_format(text)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("name", ["Mars", "", "../../etc/passwd", "/etc/passwd", "America", "\x00", "Europe/Berlin/"])
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no such time zone"):
        zone_of(name)


formats = st.text(st.sampled_from("YmdHMSfzpIjy%% -:."), max_size=20).map(
    lambda text: "".join(f"%{one}" if one.isalpha() else one for one in text)
)


@given(text=formats | st.text(max_size=12), value=st.text(max_size=70) | st.integers() | st.floats() | st.booleans())
def test_no_format_and_no_value_raises_anything_else(text: str, value: object) -> None:
    try:
        read = reader_of(check_format(text), zone_of("Europe/Berlin"))
        assert 0 < read(value) < 253_402_300_800_000_000
    except (ValueError, OverflowError):
        pass
