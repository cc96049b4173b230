"""A timeline is in the order of the provider's numbers where it gives any, and in that of times elsewhere."""

from __future__ import annotations

from typing import Any

from backhaul_channels import EventKind
from backhaul_normalizer.states import place_of
from backhaul_normalizer.timeline import in_order
from hypothesis import given
from hypothesis import strategies as st

Row = dict[str, Any]
PLACES = {kind.value: place_of(kind) for kind in EventKind}


def row(ident: str, at: int, kind: str, sequence: int | None = None) -> Row:
    made: Row = {"_id": ident, "occurred_at_us": at, "kind": kind}
    return made if sequence is None else {**made, "sequence": sequence}


rows = st.lists(
    st.builds(
        row,
        st.text("abcdef", min_size=1, max_size=6),
        st.integers(0, 4),
        st.sampled_from(sorted(PLACES)),
        st.none() | st.integers(0, 5),
    ),
    unique_by=lambda one: one["_id"],
    max_size=12,
)


def by_time(one: Row) -> tuple[int, int, str]:
    return one["occurred_at_us"], PLACES[one["kind"]], one["_id"]


@given(rows, st.randoms(use_true_random=False))
def test_numbered_events_are_in_order_at_the_positions_that_times_give_them_together(
    events: list[Row], any_: Any
) -> None:
    shuffled = list(events)
    any_.shuffle(shuffled)
    timeline = in_order(shuffled)
    # Every event is there once, whatever order they came in.
    assert sorted(timeline, key=by_time) == sorted(events, key=by_time)
    assert timeline == in_order(events)
    plain = sorted(events, key=by_time)
    # What has no number stands where its time puts it.
    assert [one if "sequence" not in one else None for one in timeline] == [
        one if "sequence" not in one else None for one in plain
    ]
    numbered = [one for one in timeline if "sequence" in one]
    assert numbered == sorted(numbered, key=lambda one: (one["sequence"], *by_time(one)))


@given(rows)
def test_without_numbers_times_decide(events: list[Row]) -> None:
    for one in events:
        one.pop("sequence", None)
    assert in_order(events) == sorted(events, key=by_time)


def test_a_call_whose_times_are_whole_seconds_and_whose_clocks_differ() -> None:
    events = [
        row("d", 11, "completed", 3),
        row("b", 10, "ringing", 1),
        row("c", 9, "answered", 2),
        row("a", 10, "initiated", 0),
        row("r", 30, "unknown"),
    ]
    assert [one["_id"] for one in in_order(events)] == ["a", "b", "c", "d", "r"]
