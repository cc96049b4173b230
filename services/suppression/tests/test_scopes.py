"""Whatever may be said of a scope, somebody may lift."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from backhaul_common.errors import Code
from backhaul_common.lines.formats import FileFormat
from backhaul_common.tenants import SuppressionSettings
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_suppression.facts import fact_of
from backhaul_suppression.files.importing import Import
from backhaul_suppression.files.statements import Defaults
from backhaul_suppression.messages import KINDS, SCOPE_KINDS
from backhaul_suppression.model import EVERYTHING, Kind, Scope, ScopeKind, Target
from backhaul_suppression.rules import LIFTING, Lifting, Who, wrong_with_scope
from calls_rig import ACME, adding, refused
from held_facts import HeldFacts
from service_rig import Rig
from told_events import AT_US, SENDER, consent, event

SCOPES_OF = {
    ScopeKind.ALL: EVERYTHING,
    ScopeKind.SENDER: Scope(ScopeKind.SENDER, SENDER),
    ScopeKind.MESSAGING_SERVICE: Scope(ScopeKind.MESSAGING_SERVICE, "MG1"),
    ScopeKind.GROUP: Scope(ScopeKind.GROUP, "7"),
}
BY_CALLS = (Who.TENANT, Who.REACTIVATE, Who.OPERATOR)


def lifted_by_events() -> set[Target]:
    """By a START to the sender and its messaging service, by a subscription to the group, and by a delivery."""
    service: Any = {"scope_kind": "messaging_service", "scope": "MG1"}
    group: Any = {"scope_kind": "group", "scope": "7"}
    events = (
        event("inbound", consent=consent("opt_in", word="START", **service)),
        event("subscribed", consent=consent("opt_in", "provider", "", **group)),
        event("delivered"),
    )
    facts = [fact_of(one, SuppressionSettings(), AT_US + 1) for one in events]
    return {target for fact in facts if fact is not None and fact.lifts for target in fact.targets}


@pytest.mark.parametrize(("kind", "scope_kind"), list(product(Kind, ScopeKind)))
def test_what_nobody_could_lift_cannot_be_said(kind: Kind, scope_kind: ScopeKind) -> None:
    scope = SCOPES_OF[scope_kind]
    by_a_call = any(LIFTING[kind, who] is not Lifting.NO for who in BY_CALLS)
    wrong = wrong_with_scope(kind, scope)
    assert (wrong is None) is (by_a_call or Target(kind, scope) in lifted_by_events())
    assert wrong is None or (wrong.message and wrong.fix)


async def test_a_block_of_a_group_is_refused_by_a_call(service: Rig) -> None:
    for kind, scope_kind in (
        (Kind.PROVIDER_BLOCK, ScopeKind.GROUP),
        (Kind.COMPLAINT, ScopeKind.GROUP),
        (Kind.COMPLAINT, ScopeKind.SENDER),
    ):
        scope = pb.Scope(kind=SCOPE_KINDS.number(scope_kind), id="7")
        error = await refused(service.first.stub.Add(adding(kind=KINDS.number(kind), scope=scope)))
        assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "scope.kind")
        assert "all" in error.fix
    assert await service.first.verdict(ACME) == "allowed"


async def test_a_block_of_a_group_is_refused_in_a_list() -> None:
    facts = HeldFacts()

    async def pieces() -> Any:
        yield (
            b"address,kind,scope_kind,scope\n+14155550001,provider_block,group,7\n+14155550002,provider_block,sender,7\n"
            b"+14155550003,unsubscribe,group,7\n+14155550004,complaint,,\n"
        )

    defaults = Defaults("acme", "acme.1", AT_US)
    told = [one async for one in Import(facts, facts).run(pieces(), FileFormat.CSV, defaults)]
    assert (told[-1].changed, told[-1].refused) == (3, 1)
    errors = b"".join(one.errors for one in told)
    assert b"scope_kind" in errors
    assert b"+14155550001" in errors
