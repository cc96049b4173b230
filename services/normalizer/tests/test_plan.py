"""What is stored is the same for every order, every split into batches, and every duplication of what is told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, permutations

import pytest
from backhaul_normalizer.model import Fact
from books import Books
from hypothesis import given, settings
from hypothesis import strategies as st
from tellings import facts, told


def batches(events: Sequence[Fact], cuts: Sequence[int]) -> list[Sequence[Fact]]:
    edges = [0, *sorted({cut % (len(events) + 1) for cut in cuts}), len(events)]
    return [events[start:end] for start, end in pairwise(edges)]


@pytest.mark.timeout(400)
@settings.get_profile("thorough")
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
        assert other.reply_totals() == other.recount_replies()
        other.check_hours()
    assert other.state() == plain.state()


@given(st.lists(facts(), max_size=10))
def test_what_was_told_before_changes_nothing(events: list[Fact]) -> None:
    books = Books()
    books.commit(events)
    for again in [*([event] for event in events), events]:
        made = books.commit(again)
        assert (made.new, made.events, made.revisions, made.communications_of) == ([], [], {}, {})
        assert (made.messages, made.new_messages, made.gone_messages) == ([], [], [])
        assert (made.joins, made.new_joins, made.counts.updates(0)) == ([], [], [])


@given(st.lists(facts(), max_size=10), st.data())
def test_what_is_published_last_is_what_is_stored(events: list[Fact], data: st.DataObject) -> None:
    books = Books()
    for batch in batches(events, data.draw(st.lists(st.integers(0, 20), max_size=5))):
        books.commit(batch)
    books.check_published()


@pytest.mark.timeout(400)
@settings.get_profile("thorough")
@given(st.lists(facts(), max_size=10))
def test_what_nobody_verified_changes_nothing_that_somebody_did(events: list[Fact]) -> None:
    books, proven = Books(), Books()
    books.commit(events)
    proven.commit([event for event in events if event.trust])
    found, expected = books.state()["events"], proven.state()["events"]
    for event_id, row in expected.items():
        # Only where the message belongs to is told by each of its events, and so is what was sent and may be answered.
        by_all = dict.fromkeys(("communication_id", "answered", "counted", "answers"))
        assert found[event_id] | by_all == row | by_all


def test_a_communication_hears_of_a_time_that_only_a_duplicate_tells() -> None:
    books = Books()
    books.commit([told(arrived=100, query="communicationId=spring")])
    made = books.commit([told(at=103, query="communicationId=spring")])
    assert not made.counts.changed()
    (update,) = made.counts.updates(0)
    assert update["u"]["$max"] == {"last_event_at_us": 103}
    assert books.totals() == books.recount()


def test_a_name_that_is_a_first_one_to_whoever_knew_it_alone_is_so_in_every_order() -> None:
    """Between the two the settings of the channel changed; nothing else of what they tell differs."""
    further, first = told(name="A1"), told(name="A1", provisional=False)
    joining = told(key="2", name="M1", aliases=["A1"])
    states = []
    for order in permutations((further, first, joining)):
        books = Books()
        for fact in order:
            books.commit([fact])
        states.append(books.state())
    assert all(state == states[0] for state in states)
