"""What callers change: ``Add``, ``Lift`` and ``Reactivate``, each of which becomes a fact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.ids import derived_id
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import current_traceparent

from backhaul_suppression import rules
from backhaul_suppression.enforcement import Enforcement
from backhaul_suppression.facts import spread
from backhaul_suppression.model import (
    EVERYTHING,
    Address,
    Evidence,
    Fact,
    Kind,
    Origin,
    Row,
    RowKey,
    Scope,
    Source,
    Target,
)
from backhaul_suppression.ports import Facts, Narrow, Reads, Recorded
from backhaul_suppression.room import no_room
from backhaul_suppression.rules import LIFTING, Lifting, Rule, Who
from backhaul_suppression.validity import require_valid, wrong_with_evidence, wrong_with_texts, wrong_with_time

REACTIVATED = (Kind.HARD_BOUNCE, Kind.INVALID_ADDRESS)
"""What ``Reactivate`` lifts."""

_PERSONS_WORD = frozenset({Kind.STOP, Kind.UNSUBSCRIBE, Kind.COMPLAINT})
"""Whoever tells of these tells what the person said."""

_WAY_OUT = {
    Kind.STOP: "Pass evidence of the consent: source, at_us and reference. Or ask the person to answer START.",
    Kind.UNSUBSCRIBE: "Pass evidence of the consent: source, at_us and reference. Or let the person subscribe again.",
    Kind.COMPLAINT: "Let the person opt in again where the provider can tell it.",
    Kind.HARD_BOUNCE: "Call Reactivate if the address works again.",
    Kind.INVALID_ADDRESS: "Call Reactivate if the address works again.",
    Kind.PROVIDER_BLOCK: "Ask the person to answer START.",
    Kind.MANUAL: "Lift it for the tenant.",
    Kind.LEGAL: "Ask the operator.",
}


@dataclass(frozen=True, slots=True)
class By:
    """Who acts: ``author`` as facts name them ("key:…", "service:…", "operator", "backhaul"), and whether for the
    operator."""

    author: str
    operator: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """What every command has. ``idempotency_key`` is empty where the call stands for itself."""

    address: Address
    note: str = ""
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Add:
    """That an address must not be contacted. ``effective_at_us`` 0 is now; ``source`` None is the API."""

    said: Said
    kind: Kind
    scope: Scope = EVERYTHING
    source: Source | None = None
    effective_at_us: int = 0
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Lift:
    """That one row of an address holds no longer."""

    said: Said
    kind: Kind
    scope: Scope = EVERYTHING
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row as it is, and whether the command changed it."""

    row: Row
    changed: bool


class Commands:
    """The use cases. Each returns when no copy that answers overlooks what was said. UNAVAILABLE: it may have been
    recorded, so repeat it, under its idempotency key if it has one.

    ``now_us`` is unix time in microseconds.
    """

    def __init__(
        self, facts: Facts, reads: Reads, rows: Narrow, enforcement: Enforcement, now_us: Callable[[], int]
    ) -> None:
        self._facts = facts
        self._reads = reads
        self._rows = rows
        self._enforcement = enforcement
        self._now_us = now_us

    async def add(self, tenant: Tenant, by: By, add: Add) -> Outcome:
        """INVALID_ARGUMENT; FORBIDDEN; FAILED_PRECONDITION where the address has too many narrow scopes already;
        CONFLICT where the key was used for something else."""
        now_us = self._now_us()
        if add.kind is Kind.LEGAL and not by.operator:
            raise BackhaulError(
                Code.FORBIDDEN,
                "Only the operator suppresses for legal reasons.",
                field="kind",
                fix="Choose manual, or ask the operator.",
            )
        require_valid(
            [
                *wrong_with_texts(add.said.note, add.said.idempotency_key),
                *wrong_with_time("effective_at_us", add.effective_at_us, now_us),
                *(wrong_with_evidence(add.evidence, now_us, whole=False) if add.evidence is not None else ()),
                *(
                    [Violation("source", "Events are recorded by themselves.", "Name how the tenant heard of it.")]
                    if add.source is Source.EVENT
                    else ()
                ),
                *([wrong] if (wrong := rules.wrong_with_scope(add.kind, add.scope)) is not None else ()),
            ]
        )
        fact = _fact(
            tenant,
            by,
            add.said,
            lifts=False,
            targets=(Target(add.kind, add.scope),),
            effective_at_us=min(add.effective_at_us or now_us, now_us),
            now_us=now_us,
            origin=Origin.RECIPIENT if add.kind in _PERSONS_WORD else _origin(by),
            source=add.source or Source.API,
            evidence=add.evidence,
        )
        before = await self._before(tenant, add.said, fact, add.effective_at_us)
        if before is None:
            self._require_room(spread(fact, tenant.suppression))
        recorded = await self._record(tenant, before or fact)
        if (existing := recorded.existing.get(fact.id)) is not None and not _same(existing, fact, add.effective_at_us):
            raise _conflict()
        return self._outcome(recorded, RowKey(add.said.address, add.kind, add.scope))

    async def lift(self, tenant: Tenant, by: By, lift: Lift) -> Outcome:
        """INVALID_ARGUMENT; NOT_FOUND where there is no such row; FAILED_PRECONDITION, naming the rule, where the
        caller may not lift it; CONFLICT where the key was used for something else."""
        now_us = self._now_us()
        key = RowKey(lift.said.address, lift.kind, lift.scope)
        require_valid(
            [
                *wrong_with_texts(lift.said.note, lift.said.idempotency_key),
                *(wrong_with_evidence(lift.evidence, now_us, whole=True) if lift.evidence is not None else ()),
            ]
        )
        who = Who.OPERATOR if by.operator else Who.TENANT
        fact = _fact(
            tenant,
            by,
            lift.said,
            lifts=True,
            targets=(Target(lift.kind, lift.scope),),
            effective_at_us=now_us,
            now_us=now_us,
            origin=_origin(by),
            source=lift.evidence.source if lift.evidence is not None else Source.API,
            evidence=lift.evidence,
        )
        before = await self._before(tenant, lift.said, fact)
        if before is not None:
            # It must neither be refused now, nor lift what was said since.
            return self._outcome(await self._record(tenant, before), key)
        row = await self._reads.row(key)
        if rule := rules.refusal(lift.kind, who, lift.evidence, row):
            raise _refused(rule, lift)
        if row is None:
            raise _nothing_there()
        recorded = await self._record(tenant, replace(fact, effective_at_us=_effective(lift, who, row, now_us)))
        if (existing := recorded.existing.get(fact.id)) is not None and not _same(existing, fact):
            raise _conflict()
        return self._outcome(recorded, key)

    async def reactivate(self, tenant: Tenant, by: By, said: Said) -> Sequence[Row]:
        """The rows that were lifted. NOT_FOUND where the address never had any that this lifts; CONFLICT as above."""
        now_us = self._now_us()
        require_valid(wrong_with_texts(said.note, said.idempotency_key))
        rows = [row for row in await self._reads.rows_of(said.address) if row.key.kind in REACTIVATED]
        if not rows:
            raise _nothing_there()
        targets = tuple(
            dict.fromkeys(
                [
                    *(Target(kind, EVERYTHING) for kind in REACTIVATED),
                    *(Target(row.key.kind, row.key.scope) for row in rows),
                ]
            )
        )
        # Later than what it lifts, if a provider's clock or another copy's is ahead of this one.
        effective_at_us = max(now_us, *(row.since_us + 1 for row in rows if row.active), 0)
        fact = _fact(
            tenant,
            by,
            said,
            lifts=True,
            targets=targets,
            effective_at_us=effective_at_us,
            now_us=now_us,
            origin=_origin(by),
            source=Source.API,
            evidence=None,
        )
        before = await self._before(tenant, said, fact)
        recorded = await self._record(tenant, before or fact)
        if (existing := recorded.existing.get(fact.id)) is not None and not _same(existing, fact):
            raise _conflict()
        return [
            change.row
            for change in recorded.changes
            if not change.row.active and change.row.key.address == said.address
        ]

    async def _before(self, tenant: Tenant, said: Said, fact: Fact, asked_at_us: int | None = None) -> Fact | None:
        """What was recorded of the same call, under its idempotency key, if anything was; CONFLICT.

        It is recorded once more then: whoever repeats a call may not have heard whether every copy knows.
        """
        before = await self._reads.fact(tenant.registration, fact.id) if said.idempotency_key else None
        if before is not None and not _same(before, fact, asked_at_us):
            raise _conflict()
        return before

    def _require_room(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            for target in fact.targets:
                if wrong := no_room(self._rows.narrow(fact.address), target):
                    raise BackhaulError(Code.FAILED_PRECONDITION, wrong.message, field=wrong.field, fix=wrong.fix)

    async def _record(self, tenant: Tenant, fact: Fact) -> Recorded:
        recorded = await self._facts.record(spread(fact, tenant.suppression))
        self._enforcement.enforced(recorded.changes)
        return recorded

    def _outcome(self, recorded: Recorded, key: RowKey) -> Outcome:
        row = recorded.rows.get(key.id)
        if row is None:
            # Nothing is recorded for a registration that is gone or going.
            raise BackhaulError(Code.NOT_FOUND, "There is no such tenant.", field="tenant_id", fix="Check the id.")
        return Outcome(row, changed=any(change.row.key == key for change in recorded.changes))


def _fact(
    tenant: Tenant,
    by: By,
    said: Said,
    *,
    lifts: bool,
    targets: tuple[Target, ...],
    effective_at_us: int,
    now_us: int,
    origin: Origin,
    source: Source,
    evidence: Evidence | None,
) -> Fact:
    key = said.idempotency_key
    # The key comes last, as it may hold anything. One key is one call, whichever it is.
    fact_id = derived_id("suppression-call", tenant.registration, by.author, key) if key else uuid4().hex
    return Fact(
        id=fact_id,
        tenant_id=tenant.id,
        address=said.address,
        lifts=lifts,
        targets=targets,
        effective_at_us=effective_at_us,
        recorded_at_us=now_us,
        origin=origin,
        source=source,
        author=by.author,
        evidence=evidence,
        note=said.note,
        traceparent=current_traceparent(),
    )


def _origin(by: By) -> Origin:
    return Origin.OPERATOR if by.operator else Origin.TENANT


def _effective(lift: Lift, who: Who, row: Row, now_us: int) -> int:
    """When the lift counts: when the person consented, where that is what lifts; otherwise now, and in any case later
    than what it lifts, as the clock of a provider or of another copy may be ahead of this one."""
    by_consent = LIFTING[lift.kind, who] is Lifting.WITH_EVIDENCE and lift.evidence is not None
    at_us = lift.evidence.at_us if by_consent and lift.evidence is not None else now_us
    # Not later than now, however far the caller's clock is ahead: until then the person could say no in vain.
    at_us = min(at_us, now_us)
    return max(at_us, row.since_us + 1) if row.active else at_us


def _same(existing: Fact, fact: Fact, asked_at_us: int | None = None) -> bool:
    """Whether a call says again what is recorded as ``existing``. ``asked_at_us`` is the time that an ``Add`` gives;
    if it gives none, or one ahead of ours, it counts from when it was first recorded. The rows that ``Reactivate``
    finds may be others each time."""
    if asked_at_us is not None and asked_at_us != existing.effective_at_us:
        as_recorded = existing.effective_at_us == existing.recorded_at_us
        if not as_recorded or 0 < asked_at_us <= existing.recorded_at_us:
            return False
    reactivates = [
        {target.kind for target in one.targets} <= set(REACTIVATED) and one.lifts for one in (existing, fact)
    ]
    return fact == replace(
        existing,
        targets=fact.targets if all(reactivates) else existing.targets,
        effective_at_us=fact.effective_at_us,
        recorded_at_us=fact.recorded_at_us,
        traceparent=fact.traceparent,
    )


def _refused(rule: Rule, lift: Lift) -> BackhaulError:
    late = rule is rules.EVIDENCE_BEFORE
    way_out = _WAY_OUT[lift.kind]
    proves = LIFTING[lift.kind, Who.TENANT] is Lifting.WITH_EVIDENCE
    if lift.kind is Kind.PROVIDER_BLOCK and lift.scope != EVERYTHING:
        way_out += " The next delivery from that sender or messaging service lifts it as well."
    return BackhaulError(
        Code.FAILED_PRECONDITION,
        f"{rule.name}: {rule.text}",
        field="evidence.at_us" if late else "evidence" if proves and lift.evidence is None else "kind",
        fix="Pass evidence of a consent that is later than the suppression." if late else way_out,
    )


def _nothing_there() -> BackhaulError:
    return BackhaulError(
        Code.NOT_FOUND,
        "The address has no such suppression.",
        field="address",
        fix="Look at what it has: by Get, or GET /v1/suppressions/address.",
    )


def _conflict() -> BackhaulError:
    return BackhaulError(
        Code.CONFLICT,
        "The idempotency key was used for another call.",
        field="idempotency_key",
        fix="Use a key for one call and its repetitions only.",
    )
