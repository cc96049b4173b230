"""A row follows from what was said, whatever the order in which it was heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backhaul_suppression.deadlines import due_by
from backhaul_suppression.fold import fold
from backhaul_suppression.model import (
    EVERYTHING,
    Address,
    Fact,
    Family,
    Kind,
    Origin,
    RowKey,
    Scope,
    ScopeKind,
    Source,
    Target,
)
from hypothesis import given, settings
from hypothesis import strategies as st

ANNA = Address("acme.1", Family.PHONE, "+14155550123")
KEY = RowKey(ANNA, Kind.STOP, EVERYTHING)
TARGETS = [
    Target(Kind.STOP, EVERYTHING),
    Target(Kind.STOP, Scope(ScopeKind.SENDER, "A")),
    Target(Kind.MANUAL, EVERYTHING),
]
ADDRESSES = [ANNA, ANNA._replace(family=Family.VOICE), ANNA._replace(registration="other.1")]


def fact(
    fact_id: str, at_us: int, *, lifts: bool = False, revision: int = 0, targets: Sequence[Target] = TARGETS
) -> Fact:
    return Fact(
        fact_id,
        "acme",
        ANNA,
        lifts,
        tuple(targets),
        at_us,
        at_us + 5,
        Origin.RECIPIENT,
        Source.EVENT,
        revision,
        fact_id,
    )


facts = st.builds(
    fact,
    st.sampled_from("abcd"),
    st.integers(1, 4),
    lifts=st.booleans(),
    revision=st.integers(0, 2),
    targets=st.lists(st.sampled_from(TARGETS), max_size=3, unique=True),
)
moved = st.builds(lambda one, address: replace(one, address=address), facts, st.sampled_from(ADDRESSES))


def replayed(said: Sequence[Fact]) -> tuple[bool, str] | None:
    """(Whether it suppresses, by which fact): everything that was said, one thing after another."""
    highest = {one.id: one for one in sorted(said, key=lambda one: one.revision)}
    state: tuple[bool, str] | None = None
    for one in sorted(highest.values(), key=lambda one: (one.effective_at_us, one.id)):
        if one.address != KEY.address or not any((t.kind, t.scope) == (KEY.kind, KEY.scope) for t in one.targets):
            continue
        if one.lifts:
            # Where nothing suppresses, and nothing did, there is nothing to lift.
            state = state and (False, one.id)
        elif state is None or not state[0]:
            state = True, one.id
    return state


@st.composite
def _said(draw: st.DrawFn) -> list[Fact]:
    """What was said, each revision of a fact once."""
    drawn = draw(st.lists(moved, max_size=10))
    return list({(one.id, one.revision): one for one in drawn}.values())


@settings(max_examples=200)
@given(st.data(), _said())
def test_every_order_gives_the_same_row(data: st.DataObject, said: list[Fact]) -> None:
    rows = {repr(fold(KEY, data.draw(st.permutations(said)))) for _ in range(3)}
    assert rows == {repr(fold(KEY, said))}
    row = fold(KEY, said)
    assert (None if row is None else (row.active, row.fact_id)) == replayed(said)
    # To hear of it once more changes nothing.
    assert fold(KEY, [*said, *said]) == row


def test_a_row_is_what_the_deciding_fact_says() -> None:
    row = fold(KEY, [replace(fact("b", 20), author="key:1"), fact("a", 30), fact("c", 10, lifts=True)])
    assert row is not None
    assert (row.key, row.active, row.fact_id, row.since_us) == (KEY, True, "b", 20)
    assert (row.recorded_at_us, row.origin, row.source) == (25, Origin.RECIPIENT, Source.EVENT)
    assert (row.event_id, row.author, row.due_by_us, row.position) == ("b", "key:1", due_by(20), 0)


def test_an_older_stop_does_not_suppress_whoever_opted_in_since() -> None:
    row = fold(KEY, [fact("start", 20, lifts=True), fact("stop", 10)])
    assert row is not None
    assert (row.active, row.fact_id, row.since_us, row.due_by_us) == (False, "start", 20, 0)


def test_of_one_moment_the_ids_decide() -> None:
    assert [
        one.active
        for one in (
            fold(KEY, [fact("a", 1), fact("b", 1, lifts=True)]),
            fold(KEY, [fact("b", 1), fact("a", 1, lifts=True)]),
        )
        if one
    ] == [False, True]


def test_a_revision_that_says_nothing_any_more_leaves_what_else_was_said() -> None:
    first, second, void = fact("a", 10), fact("b", 20), fact("a", 10, revision=1, targets=())
    row = fold(KEY, [void, second, first])
    assert row is not None
    assert row.fact_id == "b"
    assert fold(KEY, [first, void]) is None


def test_a_revision_about_another_address_leaves_this_one() -> None:
    later = replace(fact("a", 10, revision=1), address=ANNA._replace(text="+14155550124"))
    assert fold(KEY, [fact("a", 10), later]) is None


def test_nothing_said_is_no_row() -> None:
    assert fold(KEY, [fact("start", 1, lifts=True), fact("again", 2, lifts=True)]) is None
    assert fold(KEY, []) is None
    assert fold(KEY, [fact("a", 1, targets=TARGETS[1:])]) is None
