"""What is stored is the same for every order, every split into batches, and every duplication of what is told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from backhaul_channels import EventKind
from backhaul_normalizer.facts import Fact, stored_fact
from backhaul_proto.callback.v1.callback_pb2 import (
    VERIFICATION_OBSERVED_INVALID,
    VERIFICATION_VERIFIED,
)
from books import Books, told
from hypothesis import given, settings
from hypothesis import strategies as st

KINDS = [
    EventKind.QUEUED,
    EventKind.DELIVERED,
    EventKind.BOUNCED,
    EventKind.OPENED,
    EventKind.CLICKED,
    EventKind.UNSUBSCRIBED,
    EventKind.INBOUND,
    EventKind.UNKNOWN,
]
one_of = st.sampled_from


def facts() -> st.SearchStrategy[Fact]:
    """Events of a few messages, whose callbacks disagree about everything that they can disagree about."""

    def build(number: int, name: str, aliases: list[str], communication: str, opt_out: str, **more: Any) -> Fact:
        attributes = [("opt_out_by", opt_out), ("opt_out", "STOP")] if opt_out else []
        return told(
            key=str(number),
            # The same fact is of one kind, whoever tells it.
            kind=KINDS[number % len(KINDS)],
            name=name,
            aliases=aliases,
            query=f"communicationId={communication}",
            attributes=attributes,
            **more,
        )

    return st.builds(
        build,
        number=st.integers(0, 9),
        name=one_of(["", "M1", "M1", "M2", "A1", "A1", "S1", "S1"]),
        aliases=one_of([[], ["S1"], ["A1"], ["A1", "S1"]]),
        communication=one_of(["", "a", "b"]),
        opt_out=one_of(["", "keyword", "provider"]),
        at=one_of([None, 1, 2, 3]),
        arrived=st.integers(100, 103),
        verification=one_of([VERIFICATION_VERIFIED, VERIFICATION_VERIFIED, VERIFICATION_OBSERVED_INVALID]),
        seq=st.integers(1, 3),
        recipient=one_of(["", "a@example.com", "A@Example.com", "b@example.com"]),
        error_code=one_of(["", "421", "511"]),
        invalid_recipient=st.booleans(),
        by_machine=st.booleans(),
        references=one_of([[], ["x"], ["y", "x"]]),
        text=one_of(["", "STOP", "Stop it"]),
    )


def batches(events: Sequence[Fact], cuts: Sequence[int]) -> list[Sequence[Fact]]:
    edges = [0, *sorted({cut % (len(events) + 1) for cut in cuts}), len(events)]
    return [events[start:end] for start, end in pairwise(edges)]


@settings(max_examples=500)
@given(st.lists(facts(), max_size=10), st.data())
def test_order_duplicates_and_batching_do_not_matter(events: list[Fact], data: st.DataObject) -> None:
    plain = Books()
    plain.commit(events)
    repeated = events + data.draw(st.lists(st.sampled_from(events), max_size=6)) if events else []
    shuffled = data.draw(st.permutations(repeated))
    other = Books()
    for batch in batches(shuffled, data.draw(st.lists(st.integers(0, 20), max_size=5))):
        other.commit(batch)
        assert other.totals() == other.recount()
    assert other.state() == plain.state()


@given(st.lists(facts(), max_size=10))
def test_what_was_told_before_changes_nothing(events: list[Fact]) -> None:
    books = Books()
    books.commit(events)
    for again in [*([event] for event in events), events]:
        made = books.commit(again)
        assert (made.new, made.events, made.revisions, made.communications_of) == ([], [], {}, {})
        assert (made.messages, made.new_messages, made.gone_messages) == ([], [], [])
        assert (made.joins, made.new_joins, made.communications) == ([], [], [])


@given(st.lists(facts(), max_size=10), st.data())
def test_what_is_published_last_is_what_is_stored(events: list[Fact], data: st.DataObject) -> None:
    books = Books()
    for batch in batches(events, data.draw(st.lists(st.integers(0, 20), max_size=5))):
        books.commit(batch)
    assert books.published.keys() == books.event_rows.keys()
    for event_id, (_, payload) in books.published.items():
        # A communication is published as far as it is known; all else as it is stored.
        assert payload.startswith(books.event_rows[event_id]["payload"])


@settings(max_examples=500)
@given(st.lists(facts(), max_size=10), st.data())
def test_what_was_committed_and_not_published_is_published_when_it_comes_again(
    events: list[Fact], data: st.DataObject
) -> None:
    brought = [
        msgspec.structs.replace(event, origin=msgspec.structs.replace(event.origin, stream_seq=seq))
        for seq, event in enumerate(events, start=1)
    ]
    books = Books()
    delivered_again: list[Fact] = []
    for batch in batches(brought, data.draw(st.lists(st.integers(0, 20), max_size=5))):
        survives = data.draw(st.booleans())
        books.commit(batch, published=survives)
        if not survives:
            delivered_again += batch
    # In another order, and in batches that fall otherwise, as several copies get them.
    shuffled = data.draw(st.permutations(delivered_again))
    for batch in batches(shuffled, data.draw(st.lists(st.integers(0, 20), max_size=5))):
        books.commit(batch)
    assert {key: revision for key, (revision, _) in books.published.items()} == {
        key: stored_fact(row).revision for key, row in books.event_rows.items()
    }
    for event_id, (_, payload) in books.published.items():
        assert payload.startswith(books.event_rows[event_id]["payload"])


def test_a_move_that_was_committed_and_not_published_is_published_when_its_cause_comes_again() -> None:
    books = Books()
    bounce = told(key="b", kind=EventKind.BOUNCED, name="A1", seq=1)
    # What names both is a duplicate beside one that names only the first: either may come again alone.
    plain, naming = told(key="d", name="M1", seq=2), told(key="d", name="M1", aliases=["A1"], seq=3)
    books.commit([bounce])
    books.commit([plain, naming], published=False)
    books.commit([plain])
    books.commit([naming])
    revision, payload = books.published[bounce.id]
    assert revision == 1
    assert payload.startswith(books.event_rows[bounce.id]["payload"])
