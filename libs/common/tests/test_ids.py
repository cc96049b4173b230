"""Identifiers."""

from __future__ import annotations

import re
import time

from backhaul_common.ids import derived_id, new_callback_id
from hypothesis import given
from hypothesis import strategies as st

HEX_32 = re.compile(r"[0-9a-f]{32}")

# Every text that a provider can send, lone surrogates included, which `st.text` leaves out.
anything = st.text(st.characters(exclude_categories=()))
without_breaks = st.text(st.characters(exclude_categories=(), exclude_characters="\n"))


def test_callback_ids_are_unique_and_carry_their_time() -> None:
    before = time.time_ns() // 1_000_000
    made = [new_callback_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert len(set(made)) == 1000
    assert all(HEX_32.fullmatch(one) for one in made)
    assert all(before <= int(one[:12], 16) <= after for one in made)
    assert [one[:12] for one in made] == sorted(one[:12] for one in made)


@given(st.lists(without_breaks, min_size=1, max_size=3), anything)
def test_derived_ids_depend_on_their_parts_alone(parts: list[str], last: str) -> None:
    assert HEX_32.fullmatch(derived_id(*parts, last))
    assert derived_id(*parts, last) == derived_id(*parts, last)


@given(without_breaks, anything, without_breaks, anything)
def test_different_parts_give_different_ids(first: str, second: str, other_first: str, other_second: str) -> None:
    same = (first, second) == (other_first, other_second)
    assert (derived_id(first, second) == derived_id(other_first, other_second)) == same


def test_parts_do_not_run_together() -> None:
    assert derived_id("ab", "c") != derived_id("a", "bc")
    assert derived_id("a", "", "b") != derived_id("a", "b")


def test_the_derivation_is_fixed() -> None:
    """Stored events carry these: a change of the derivation would count every redelivered event twice."""
    assert derived_id("acme", "twilio", "SM1") == "3551b79d3153caa185d24ebd476204b6"
