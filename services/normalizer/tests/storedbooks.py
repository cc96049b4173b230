"""What MongoDB holds, in the form of the books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from backhaul_common.names import (
    COUNTS_COLLECTION,
    EVENTS_COLLECTION,
    JOINS_COLLECTION,
    MESSAGES_COLLECTION,
)
from backhaul_normalizer.counts import MAX_SHARDS, Day, count_id, total_id
from books import Books
from normalizer_rig import Rig

Totals = dict[tuple[str, str, int], Counter[str]]
"""By registration, channel and day, what all communications count together."""


async def stored_books(rig: Rig) -> Books:
    """What MongoDB holds, in the form of the books."""
    books = Books()
    for rows, collection in (
        (books.event_rows, EVENTS_COLLECTION),
        (books.message_rows, MESSAGES_COLLECTION),
        (books.join_rows, JOINS_COLLECTION),
    ):
        rows.update({row["_id"]: row for row in await rig.rows(collection)})
    totals: Totals = {}
    for row in await rig.rows(COUNTS_COLLECTION):
        if "total" in row:
            where = row["registration"], row["channel"], row["day"]
            assert row["_id"] in {total_id(*where, shard) for shard in range(MAX_SHARDS)}
            totals.setdefault(where, Counter()).update(_dotted("hours", row["hours"]))
            continue
        day = Day(row["registration"], row["communication_id"], row["channel"], row["day"])
        assert row["_id"] in {count_id(day, shard) for shard in range(MAX_SHARDS)}
        books.counts.setdefault(day, Counter()).update(_dotted("hours", row.get("hours", {})))
        books.reply_counts.setdefault(day, Counter()).update(_dotted("replies", row.get("replies", {})))
    assert _without_zeros(totals) == _without_zeros(_summed(books.counts))
    return books


def _summed(counts: Mapping[Day, Mapping[str, int]]) -> Totals:
    sums: Totals = {}
    for day, counted in counts.items():
        sums.setdefault((day.registration, day.channel, day.day), Counter()).update(counted)
    return sums


def _without_zeros(totals: Totals) -> dict[tuple[str, str, int], dict[str, int]]:
    own = {where: {name: n for name, n in counted.items() if n} for where, counted in totals.items()}
    return {where: counted for where, counted in own.items() if counted}


def _dotted(name: str, value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        return {name: value}
    return {field: n for key, within in value.items() for field, n in _dotted(f"{name}.{key}", within).items()}
