"""What was counted, as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from backhaul_client import AsyncTenantClient
from backhaul_client.models import Stats, StatsRow
from backhaul_console.counting import MAX_GROUPS, Span, count, measure_of

DAY = datetime(2026, 3, 1, tzinfo=UTC)


def row(start: datetime, **told: Any) -> StatsRow:
    nothing: dict[str, Any] = {
        "channel": None,
        "kind": None,
        "fulfilment_state": None,
        "communication_id": None,
        "events": 0,
        "events_by_machine": 0,
        "messages": 0,
        "unique_opened": 0,
        "unique_clicked": 0,
    }
    return StatsRow(start=start, **{**nothing, **told})


def api(*rows: StatsRow) -> AsyncTenantClient:
    async def stats(**_asked: object) -> Stats:
        return Stats(rows=rows, truncated=False)

    return cast("AsyncTenantClient", SimpleNamespace(stats=stats))


SPAN = Span.of("day", 3, DAY + timedelta(days=3))


async def test_the_largest_groups_have_columns_and_the_rest_one_together() -> None:
    names = [f"c{number}" for number in range(MAX_GROUPS + 3)]
    rows = [row(DAY, channel=name, events=100 - number) for number, name in enumerate(names)]
    rows.append(row(DAY + timedelta(days=2), channel="c0", events=7))
    counted = await count(api(*rows), SPAN, group="channel")
    assert counted.names == [*names[:MAX_GROUPS], "All others"]
    rest = sum(100 - number for number in range(MAX_GROUPS, MAX_GROUPS + 3))
    assert counted.totals[0] == 107
    assert counted.totals[-1] == rest
    assert sum(counted.totals) == sum(one.events for one in rows)
    assert counted.peak == (DAY, sum(one.events for one in rows) - 7)
    assert [start for start, _counts in counted.filled()] == [DAY + timedelta(days=number) for number in range(3)]
    assert counted.filled()[1][1] == [0] * (MAX_GROUPS + 1)


async def test_what_strangers_named_like_a_word_of_ours_keeps_its_name() -> None:
    counted = await count(
        api(row(DAY, communication_id="no_answer", events=2), row(DAY, events=1)), SPAN, group="communication"
    )
    assert counted.names == ["no_answer", "Of no communication"]
    counted = await count(api(row(DAY, kind="no_answer", events=2)), SPAN, group="kind")
    assert counted.names == ["no answer"]


async def test_nothing_at_all_is_no_row() -> None:
    for group in ("", "kind"):
        counted = await count(api(row(DAY, kind="sent" if group else None)), SPAN, group=group)
        assert not counted.rows
        assert counted.peak is None


def test_spans_are_of_full_hours_or_days() -> None:
    for per, length in (("hour", 24), ("day", 30)):
        span = Span.of(per, length)
        assert len(span.starts) == length
        assert span.until > datetime.now(UTC) - timedelta(seconds=60)
        assert span.until.timestamp() % span.step_s == 0


@pytest.mark.parametrize(
    ("asked", "group", "counted"),
    [("messages", "kind", "events"), ("events", "fulfilment_state", "messages"), ("x", "", "events")],
)
def test_what_a_group_does_not_count_is_not_asked_of_it(asked: str, group: str, counted: str) -> None:
    assert measure_of(asked, group) == counted
