"""Declared parameters: what lacks is flagged until a duplicate brings it, and a default gives way to what is said."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from backhaul_channels import EventKind
from backhaul_normalizer.model import Fact
from backhaul_normalizer.rows import stored_fact
from books import Books
from tellings import told

KEY = "communicationId"


def lacking(default: str = "", **more: Any) -> Fact:
    """An event whose callback lacks ``communicationId``, which its channel declares."""
    return told(
        vars=[(KEY, default)] if default else [],
        default_parameters=[KEY] if default else [],
        missing_parameters=[] if default else [KEY],
        **more,
    )


def stored(*facts: Fact) -> Fact:
    """The one event that ``facts`` are of, once all are committed one after another."""
    books = Books()
    for fact in facts:
        books.commit([fact])
    (row,) = books.event_rows.values()
    return stored_fact(row)


def communications(*facts: Fact) -> set[str]:
    """The communication of the one message that ``facts`` are of, for every order and for one batch."""
    found = set()
    for order in permutations(facts):
        apart, together = Books(), Books()
        for fact in order:
            apart.commit([fact])
        together.commit(list(order))
        for books in (apart, together):
            (message,) = books.message_rows.values()
            found.add(message["communication_id"])
    return found


@pytest.mark.parametrize("default", ["", "a-default", "z-default"])
def test_a_duplicate_that_has_the_parameter_completes_the_event(default: str) -> None:
    without, having = lacking(default, seq=1), told(query=f"{KEY}=spring", seq=2)
    for order in ((without, having), (having, without), (without, having, without)):
        found = stored(*order)
        assert (found.event.missing_parameters, found.event.default_parameters) == ([], [])
        assert found.event.vars == [(KEY, "spring")]
        assert found.communication_id == "spring"


def test_what_no_duplicate_brings_stays_flagged_and_keeps_its_default() -> None:
    found = stored(lacking(seq=1), lacking(recipient="a@example.com", seq=2))
    assert (found.event.missing_parameters, found.event.recipient) == ([KEY], "a@example.com")
    found = stored(lacking("none", seq=1), lacking("none", recipient="a@example.com", seq=2))
    assert (found.event.vars, found.event.default_parameters) == ([(KEY, "none")], [KEY])


def test_a_default_joins_a_message_that_nobody_else_joins() -> None:
    assert communications(lacking("none"), told(key="2", kind=EventKind.OPENED)) == {"none"}


@pytest.mark.parametrize("default", ["a-default", "z-default"])
def test_a_default_beats_nothing_that_a_sender_says(default: str) -> None:
    # Of another event of the message, which happened later; of another key of the same callback; of a duplicate.
    later = told(key="2", kind=EventKind.OPENED, query="campaign=spring", at=9)
    assert communications(lacking(default, at=1), later) == {"spring"}
    assert lacking(default, query="campaign=spring").communication_id == "spring"
    assert communications(lacking(default), told(query="campaign=spring", seq=2)) == {"spring"}


def test_a_default_of_a_duplicate_whose_url_nobody_signed_beats_nothing_either() -> None:
    signed, forged = told(query=f"{KEY}=spring", signed=False), lacking("a-default", query="x=1", signed=False, seq=2)
    assert stored(signed, forged).communication_id == "spring"
    assert dict(stored(signed, forged).event.vars) == {KEY: "spring"}
