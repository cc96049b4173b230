"""What MongoDB holds, in the form of the books."""

from __future__ import annotations

from collections import Counter
from typing import Any

from backhaul_common.names import (
    COUNTS_COLLECTION,
    EVENTS_COLLECTION,
    JOINS_COLLECTION,
    MESSAGES_COLLECTION,
)
from backhaul_normalizer.counts import MAX_SHARDS, Day, count_id
from books import Books
from normalizer_rig import Rig


async def stored_books(rig: Rig) -> Books:
    """What MongoDB holds, in the form of the books."""
    books = Books()
    for rows, collection in (
        (books.event_rows, EVENTS_COLLECTION),
        (books.message_rows, MESSAGES_COLLECTION),
        (books.join_rows, JOINS_COLLECTION),
    ):
        rows.update({row["_id"]: row for row in await rig.rows(collection)})
    for row in await rig.rows(COUNTS_COLLECTION):
        day = Day(row["registration"], row["communication_id"], row["channel"], row["day"])
        assert row["_id"] in {count_id(day, shard) for shard in range(MAX_SHARDS)}
        books.counts.setdefault(day, Counter()).update(_dotted("hours", row.get("hours", {})))
        books.reply_counts.setdefault(day, Counter()).update(_dotted("replies", row.get("replies", {})))
    return books


def _dotted(name: str, value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        return {name: value}
    return {field: n for key, within in value.items() for field, n in _dotted(f"{name}.{key}", within).items()}
