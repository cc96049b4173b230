"""A line of a list becomes a fact: what it says, what the call says for it, and what is wrong with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from backhaul_common.lines.line import Line
from backhaul_common.tenants import SuppressionSettings
from backhaul_suppression.files.statements import Defaults, LineError, fact_of, facts_of
from backhaul_suppression.model import (
    EVERYTHING,
    Evidence,
    Family,
    Kind,
    Origin,
    Scope,
    ScopeKind,
    Source,
    Target,
)

NOW_US = 1_800_000_000_000_000
ACME = Defaults(tenant_id="acme", registration="acme.1", now_us=NOW_US, author="key:1")


def test_a_line_says_all_that_a_fact_of_a_list_can_say() -> None:
    values = {
        "address": "A.Person@Example.com",
        "family": "Email",
        "kind": "unsubscribe",
        "scope_kind": "group",
        "scope": "newsletter",
        "effective_at": "2026-01-31T12:00:00.25Z",
        "source": "letter",
        "reference": "file 7",
        "note": " as it is ",
    }
    fact = fact_of(Line(2, values, ""), ACME)
    assert fact is not None
    assert fact.address == ("acme.1", Family.EMAIL, "a.person@example.com")
    assert fact.targets == (Target(Kind.UNSUBSCRIBE, Scope(ScopeKind.GROUP, "newsletter")),)
    assert fact.effective_at_us == 1_769_860_800_250_000
    assert (fact.lifts, fact.origin, fact.source, fact.author) == (False, Origin.IMPORT, Source.LETTER, "key:1")
    assert fact.evidence == Evidence(Source.LETTER, fact.effective_at_us, "file 7")
    assert (fact.note, fact.recorded_at_us, fact.tenant_id) == (" as it is ", NOW_US, "acme")


def test_what_a_line_does_not_say_the_call_says_or_nobody() -> None:
    line = Line(1, {"address": "+14155550123"}, "")
    plain = fact_of(line, ACME)
    assert plain is not None
    assert plain.targets == (Target(Kind.MANUAL, EVERYTHING),)
    assert (plain.effective_at_us, plain.source, plain.evidence) == (NOW_US, Source.FILE, None)
    sender = Scope(ScopeKind.SENDER, "+14155550100")
    told = fact_of(
        line,
        Defaults("acme", "acme.1", NOW_US, Kind.STOP, family=Family.VOICE, scope=sender, effective_at_us=NOW_US - 1),
    )
    assert told is not None
    assert told.address.family is Family.VOICE
    assert told.targets == (Target(Kind.STOP, sender),)
    assert told.effective_at_us == NOW_US - 1
    own = fact_of(Line(1, {**line.values, "scope_kind": "all"}, ""), Defaults("acme", "acme.1", NOW_US, scope=sender))
    assert own is not None
    assert own.targets[0].scope == EVERYTHING


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({}, "address"),
        ({"address": " "}, "address"),
        ({"address": "+1415\x005550123"}, "address"),
        ({"address": "+1415\ufffd5550123"}, "address"),
        ({"kind": "stopp"}, "kind"),
        ({"kind": "legal"}, "kind"),
        ({"family": "fax"}, "family"),
        ({"source": "rumour"}, "source"),
        ({"scope": "MG1"}, "scope_kind"),
        ({"scope_kind": "all", "scope": "MG1"}, "scope"),
        ({"scope_kind": "group"}, "scope"),
        ({"scope_kind": "group", "scope": "x" * 257}, "scope"),
        ({"scope_kind": "number", "scope": "x"}, "scope_kind"),
        ({"effective_at": "yesterday"}, "effective_at"),
        ({"effective_at": "2026-01-31T12:00:00"}, "effective_at"),
        ({"effective_at": "1969-12-31T12:00:00Z"}, "effective_at"),
        ({"effective_at": "2027-01-15T08:01:00.000001Z"}, "effective_at"),
        ({"reference": "x" * 513}, "reference"),
        ({"note": "x" * 513}, "note"),
        ({"standing": "gone"}, "standing"),
    ],
)
def test_a_wrong_line_names_its_field_and_what_to_do(values: dict[str, str], field: str) -> None:
    address = {} if not values else {"address": "+14155550123"}
    with pytest.raises(LineError) as raised:
        fact_of(Line(1, {**address, **values}, ""), ACME)
    assert raised.value.problem.field == field
    assert raised.value.problem.message
    assert raised.value.problem.fix


def test_only_the_operator_suppresses_for_legal_reasons() -> None:
    fact = fact_of(
        Line(1, {"address": "+14155550123", "kind": "legal"}, ""), Defaults("acme", "acme.1", NOW_US, operator=True)
    )
    assert fact is not None
    assert fact.targets[0].kind is Kind.LEGAL


def test_a_line_that_is_ahead_of_time_counts_from_now_on() -> None:
    ahead = Line(1, {"address": "+14155550123", "kind": "stop", "effective_at": "2027-01-15T08:00:30Z"}, "")
    fact = fact_of(ahead, ACME)
    assert fact is not None
    # Whoever says START meanwhile is heard.
    assert fact.effective_at_us == NOW_US
    late = fact_of(ahead, replace(ACME, now_us=NOW_US + 30_000_000))
    assert late is not None
    assert late.id == fact.id
    others = [
        facts_of(ahead, replace(ACME, now_us=at, settings=SuppressionSettings(whatsapp="phone")))[1].id
        for at in (NOW_US, NOW_US + 30_000_000)
    ]
    assert others[0] == others[1]
    by_default = fact_of(Line(1, {"address": "+14155550123"}, ""), replace(ACME, effective_at_us=NOW_US + 1))
    assert by_default is not None
    assert by_default.effective_at_us == NOW_US
