"""How values look on a page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from backhaul_console.rendering import NOTHING, address, environment, number, seconds, segment, time_of, times


def test_times_are_in_utc_with_the_exact_one_beside() -> None:
    at = datetime(2026, 3, 1, 1, 2, 3, 45_678, tzinfo=timezone(timedelta(hours=2)))
    assert time_of(at) == '<time datetime="2026-02-28T23:02:03.045Z">2026-02-28 23:02:03\N{NO-BREAK SPACE}UTC</time>'
    assert f">{NOTHING}<" in time_of(None)
    assert time_of(datetime(2026, 1, 1, tzinfo=UTC)).count("2026-01-01") == 2


def test_moments_in_a_text_of_the_api_are_times_and_all_else_is_text() -> None:
    told = times("<b> since 2026-02-28T23:02:03Z, not 2026-02-31T00:00:00Z")
    assert told == f"&lt;b&gt; since {time_of(datetime(2026, 2, 28, 23, 2, 3, tzinfo=UTC))}, not 2026-02-31T00:00:00Z"
    assert times(None) == ""


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0004, "0.4 ms"), (0.25, "250 ms"), (12, "12 s"), (90, "1.5 min"), (7200, "2 h"), (86400, "1 d")],
)
def test_spans_are_in_the_unit_that_fits(value: float, told: str) -> None:
    assert seconds(value) == told


def test_what_is_not_known_is_no_zero() -> None:
    assert (number(0), number(1234567), number(None)) == ("0", "1,234,567", NOTHING)


def test_addresses_hold_what_strangers_wrote() -> None:
    assert address("/t/acme/x", a="1 & 2", b="", c=None, d=False, e=0) == "/console/t/acme/x?a=1+%26+2&e=0"
    assert segment("a/b?c#d..") == "a%2Fb%3Fc%23d.."


def test_values_are_text_and_never_markup() -> None:
    page = environment().get_template("bare.html").render(title="<script>1</script>", text='"><img src=x onerror=1>')
    assert "<script>1" not in page
    assert "<img" not in page


def test_a_template_that_asks_for_what_it_was_not_given_fails() -> None:
    with pytest.raises(Exception, match="'text' is undefined"):
        environment().get_template("bare.html").render(title="x")
