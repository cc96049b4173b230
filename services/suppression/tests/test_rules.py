"""The tables, written out once more: who lifts what, what blocks which purpose, and what a scope covers."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from backhaul_suppression import rules
from backhaul_suppression.model import (
    EVERYTHING,
    Address,
    Evidence,
    Family,
    Kind,
    Origin,
    Purpose,
    Row,
    RowKey,
    Scope,
    ScopeKind,
    Sending,
    Source,
)
from backhaul_suppression.rules import BLOCKS, LIFTING, RULES, Lifting, Who, blocks, refusal

# Columns in the order of ``Who``: recipient, provider, delivery, tenant, reactivate, operator. E is with evidence.
LIFTS = """
stop            yes no  no  E   no  no
unsubscribe     yes no  no  E   no  no
complaint       yes no  no  no  no  no
hard_bounce     no  no  yes no  yes no
invalid_address no  no  yes no  yes no
provider_block  no  yes yes no  no  no
manual          no  no  no  yes no  yes
legal           no  no  no  no  no  yes
"""

MARKETING_ONLY = {Kind.UNSUBSCRIBE, Kind.COMPLAINT}

KEY = RowKey(Address("acme.1", Family.PHONE, "+14155550123"), Kind.STOP, EVERYTHING)
WORDS = {"yes": Lifting.YES, "no": Lifting.NO, "E": Lifting.WITH_EVIDENCE}


def written_out() -> dict[tuple[Kind, Who], Lifting]:
    rows = (line.split() for line in LIFTS.strip().splitlines())
    return {(Kind(kind), who): WORDS[word] for kind, *words in rows for who, word in zip(Who, words, strict=True)}


def row(since_us: int, *, active: bool = True) -> Row:
    return Row(KEY, active, since_us, "f" * 32, since_us, Origin.RECIPIENT, Source.EVENT)


def proof(at_us: int = 100, reference: str = "ticket 7") -> Evidence:
    return Evidence(Source.WEB, at_us, reference)


def test_who_lifts_what_is_total() -> None:
    assert dict(LIFTING) == written_out()
    assert set(LIFTING) == set(product(Kind, Who))


@pytest.mark.parametrize(("kind", "who"), list(product(Kind, Who)))
def test_a_refusal_names_the_rule_of_the_kind(kind: Kind, who: Who) -> None:
    may = written_out()[kind, who]
    assert refusal(kind, who) == (None if may is Lifting.YES else RULES[kind])
    assert refusal(kind, who, proof(), row(50)) == (RULES[kind] if may is Lifting.NO else None)


def test_each_kind_has_a_rule_of_its_own() -> None:
    assert set(RULES) == set(Kind)
    assert len({rule.name for rule in (*RULES.values(), rules.EVIDENCE_BEFORE)}) == len(Kind) + 1


@pytest.mark.parametrize("kind", [Kind.STOP, Kind.UNSUBSCRIBE])
@pytest.mark.parametrize(
    "evidence", [None, proof(at_us=0), proof(at_us=-1), proof(reference=""), proof(reference=" \t")]
)
def test_evidence_has_a_time_and_a_reference(kind: Kind, evidence: Evidence | None) -> None:
    assert refusal(kind, Who.TENANT, evidence) == RULES[kind]


def test_evidence_is_not_of_a_time_before_the_suppression() -> None:
    assert refusal(Kind.STOP, Who.TENANT, proof(99), row(100)) == rules.EVIDENCE_BEFORE
    assert refusal(Kind.STOP, Who.TENANT, proof(100), row(100)) is None
    # Where nothing suppresses there is nothing that it could be too old for.
    assert refusal(Kind.STOP, Who.TENANT, proof(99), row(100, active=False)) is None
    # It helps nobody who may not lift with it.
    assert refusal(Kind.COMPLAINT, Who.TENANT, proof(200), row(100)) == RULES[Kind.COMPLAINT]


def test_nobody_who_calls_lifts_what_events_alone_lift() -> None:
    callers = (Who.TENANT, Who.REACTIVATE, Who.OPERATOR)
    unliftable = {kind for kind in Kind if all(LIFTING[kind, who] is Lifting.NO for who in callers)}
    assert unliftable == {Kind.COMPLAINT, Kind.PROVIDER_BLOCK}


@pytest.mark.parametrize(("kind", "purpose"), list(product(Kind, [None, *Purpose])))
def test_what_blocks_which_purpose(kind: Kind, purpose: Purpose | None) -> None:
    passed = purpose is Purpose.TRANSACTIONAL and kind in MARKETING_ONLY
    assert blocks(kind, EVERYTHING, Sending(purpose)) is not passed
    assert set(BLOCKS) == set(Kind)
    if purpose is not None:
        assert (purpose in BLOCKS[kind]) is not passed


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("scope_kind", [kind for kind in ScopeKind if kind is not ScopeKind.ALL])
@pytest.mark.parametrize(("asked", "said"), [(None, True), ("A", True), ("B", False), ("", False)])
def test_a_row_of_a_scope_is_passed_over_only_for_another_one(
    kind: Kind, scope_kind: ScopeKind, asked: str | None, said: bool
) -> None:
    scope = Scope(scope_kind, "A")
    named: dict[str, Any] = {scope_kind.value: asked}
    assert blocks(kind, scope, Sending(**named)) is said
    # What is named of other kinds of scopes says nothing about this one.
    others: dict[str, Any] = {one.value: "B" for one in ScopeKind if one not in (ScopeKind.ALL, scope_kind)}
    assert blocks(kind, scope, Sending(**others))
    assert blocks(kind, EVERYTHING, Sending(None, "B", "B", "B"))
