"""Times as people say them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer
from backhaul_cli.options import ahead, moment


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
        ("2d", timedelta(days=2)),
        (" 1w ", timedelta(weeks=1)),
    ],
)
def test_how_long_ago_or_ahead(text: str, ago: timedelta) -> None:
    before = datetime.now(UTC)
    past, coming = moment(text), ahead(text)
    after = datetime.now(UTC)
    assert before - ago <= past <= after - ago
    assert before + ago <= coming <= after + ago + (after - before)


def test_a_time_without_a_zone_is_in_utc() -> None:
    nine = datetime(2026, 11, 28, 9, tzinfo=UTC)
    for text in ("2026-11-28T09:00", "2026-11-28T09:00Z", "2026-11-28T10:00+01:00", "2026-11-28 09:00:00"):
        assert moment(text) == nine
        assert ahead(text) == nine


@pytest.mark.parametrize("text", ["", "2x", "yesterday", "-1d", "9999999d", "2026-13-01"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="such as 90m"):
        moment(text)
