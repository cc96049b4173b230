"""What changes who may be contacted."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_client.suppression import wire
from backhaul_client.suppression.base import CHANGE_S, Base
from backhaul_client.suppression.models import (
    EVERYTHING,
    Actor,
    Evidence,
    Family,
    Kind,
    Outcome,
    Scope,
    Source,
    Suppression,
)


class Changes(Base):
    """The calls that change something. Each has an idempotency key, so that it may be repeated: it counts once."""

    async def add(
        self,
        tenant_id: str,
        address: str,
        kind: Kind,
        *,
        source: Source = Source.API,
        scope: Scope = EVERYTHING,
        family: Family | None = None,
        effective_at: datetime | None = None,
        evidence: Evidence | None = None,
        note: str = "",
        idempotency_key: str = "",
        actor: Actor | None = None,
        author: str = "",
        timeout_s: float = CHANGE_S,
    ) -> Outcome:
        """Record that a person must not be contacted. When it returns, no check overlooks it. ``effective_at`` is when
        the person said it; None is now. It is repeated safely under one key: give your own ``idempotency_key`` where
        you may call again for the same thing, ConflictError if that was used for something else."""
        key = idempotency_key or uuid4().hex
        request = pb.AddRequest(
            tenant_id=tenant_id,
            address=address,
            family=wire.number(Family, family),
            kind=wire.number(Kind, kind),
            scope=wire.to_scope(scope),
            source=wire.number(Source, source),
            effective_at_us=wire.micros(effective_at),
            evidence=wire.to_evidence(evidence),
            note=note,
            idempotency_key=key,
            actor=wire.number(Actor, actor),
            author=author,
        )
        return wire.outcome(await self._call("Add", request, timeout_s), key)

    async def lift(
        self,
        tenant_id: str,
        address: str,
        kind: Kind,
        *,
        scope: Scope = EVERYTHING,
        family: Family | None = None,
        evidence: Evidence | None = None,
        note: str = "",
        idempotency_key: str = "",
        actor: Actor | None = None,
        author: str = "",
        timeout_s: float = CHANGE_S,
    ) -> Outcome:
        """Lift one row. FailedPreconditionError names the rule where the caller may not; NotFoundError where there is
        none. STOP and UNSUBSCRIBE need ``evidence`` of the person's consent. ``idempotency_key`` as of ``add``."""
        key = idempotency_key or uuid4().hex
        request = pb.LiftRequest(
            tenant_id=tenant_id,
            address=address,
            family=wire.number(Family, family),
            kind=wire.number(Kind, kind),
            scope=wire.to_scope(scope),
            evidence=wire.to_evidence(evidence),
            note=note,
            idempotency_key=key,
            actor=wire.number(Actor, actor),
            author=author,
        )
        return wire.outcome(await self._call("Lift", request, timeout_s), key)

    async def reactivate(
        self,
        tenant_id: str,
        address: str,
        *,
        family: Family | None = None,
        note: str = "",
        idempotency_key: str = "",
        actor: Actor | None = None,
        author: str = "",
        timeout_s: float = CHANGE_S,
    ) -> tuple[Suppression, ...]:
        """Say that an address works again: lifts HARD_BOUNCE and INVALID_ADDRESS. Returns the rows that were lifted."""
        request = pb.ReactivateRequest(
            tenant_id=tenant_id,
            address=address,
            family=wire.number(Family, family),
            note=note,
            idempotency_key=idempotency_key or uuid4().hex,
            actor=wire.number(Actor, actor),
            author=author,
        )
        answer = await self._call("Reactivate", request, timeout_s)
        return tuple(wire.suppression(row) for row in answer.suppressions)
