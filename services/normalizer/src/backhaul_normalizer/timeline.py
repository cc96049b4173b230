"""The order in which a message's events are shown."""

from __future__ import annotations

from collections.abc import Iterable

from backhaul_channels import EventKind
from backhaul_common.documents import Document

from backhaul_normalizer.states import place_of

_PLACES = {kind.value: place_of(kind) for kind in EventKind}


def in_order(events: Iterable[Document]) -> list[Document]:
    """``events`` as they happened: by their times, and of one time by their kinds.

    Times may be too coarse, or taken by different clocks. Where the provider numbers events, those keep the positions
    that their times give to them together, and are in the order of their numbers among themselves.
    """
    timeline = sorted(events, key=lambda row: (row["occurred_at_us"], _PLACES.get(row["kind"], -1), row["_id"]))
    positions = [position for position, row in enumerate(timeline) if "sequence" in row]
    # Of one number the earlier one stays the first.
    numbered = sorted((timeline[position] for position in positions), key=lambda row: int(row["sequence"]))
    for position, row in zip(positions, numbered, strict=True):
        timeline[position] = row
    return timeline
