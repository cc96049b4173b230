"""Settling: whether something was delivered to an address after it bounced, and that was heard of before the bounce.

Events do not arrive in the order in which they happened. A delivery that arrives looks into memory whether there is a
row to lift, and leaves nothing where there is none, since nearly every event is a delivery. So when a row of a bad
address becomes active, somebody must ask for what came before it. That is asked when every copy has applied the row:
whatever a copy consumes from then on finds the row, and whatever was consumed before the normalizer has.

It is asked by the recipient alone, the newest arrival first. That is an index of the normalizer's, where a filter by
kind would take one of the tenant's own turns; and of what arrived last one is likely to be later than the bounce.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.outages import is_outage
from backhaul_common.tenants import Tenant
from pydantic import ValidationError

from backhaul_suppression.facts import fact_of, spread
from backhaul_suppression.model import Fact, Target
from backhaul_suppression.ports import Arrivals, Barrier, Facts, Tenants, Unsettled, UnsettledRow

LOOK_S = 1.0
"""How often every copy looks for rows to settle."""

MAX_READ = 512
MAX_AT_ONCE = 64
"""Rows that a copy reads, and those that it takes of them by chance, so that copies seldom do the same ones. Where they
do, the second changes nothing."""

AT_THE_SAME_TIME = 8
"""Rows about which the normalizer is asked at the same time."""

MAX_EVENTS = 1000
"""Events of one address that are looked at. A row stays as it is where none of the last so many lifts it."""

_PAGE = 200

_NOT_LET_IN = frozenset({Code.UNAUTHENTICATED, Code.FORBIDDEN})
"""What the normalizer says where its internal token is another. Somebody will mend that, and it is asked then."""

_CLOCKS_US = 86_400_000_000
"""How far the provider's clock may be from ours: by the one it happened, by the other it arrived."""


class Settling:
    """Settles rows, until cancelled. Any copy may, and several may at once."""

    def __init__(
        self,
        unsettled: Unsettled,
        arrivals: Arrivals,
        tenants: Tenants,
        facts: Facts,
        barrier: Barrier,
        now_us: Callable[[], int],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self._unsettled = unsettled
        self._arrivals = arrivals
        self._tenants = tenants
        self._facts = facts
        self._barrier = barrier
        self._now_us = now_us
        self._look_s = look_s
        self._log = get_logger(component="settling")

    async def run(self) -> None:
        """Settle until cancelled. UNAVAILABLE when MongoDB or the normalizer is away, and UNAUTHENTICATED or FORBIDDEN
        where the normalizer lets this service not in: run it again."""
        while True:
            if not await self.settle_some():
                await asyncio.sleep(self._look_s)

    async def settle_some(self) -> int:
        """Settle some of what there is; how many rows that were. UNAVAILABLE as ``run``."""
        oldest = await self._unsettled.oldest(MAX_READ)
        rows = random.sample(oldest, min(len(oldest), MAX_AT_ONCE))
        if not rows:
            return 0
        await self._barrier.passed(max(row.seq for row in rows))
        at_once = asyncio.Semaphore(AT_THE_SAME_TIME)
        try:
            async with asyncio.TaskGroup() as group:
                found = [group.create_task(self._found(row, at_once)) for row in rows]
        except ExceptionGroup as exc:
            # All have ended, and the first says why well enough.
            raise exc.exceptions[0] from exc
        facts = {fact.id: fact for task in found for fact in task.result()}
        if facts:
            await self._facts.record(list(facts.values()))
        await self._unsettled.settled(rows)
        return len(rows)

    async def _found(self, row: UnsettledRow, at_once: asyncio.Semaphore) -> Sequence[Fact]:
        async with at_once:
            try:
                tenant = await self._tenant(row)
                return await self._lifting(row, tenant) if tenant is not None else ()
            except BackhaulError as exc:
                if exc.code in _NOT_LET_IN or (is_outage(exc) and exc.code is not Code.DEADLINE_EXCEEDED):
                    raise
                error = str(exc)
            except ValidationError as exc:
                # A newer version may have written the tenant. One of these must not keep all others waiting.
                error = f"the tenant is unreadable in {exc.error_count()} places"
            # It suppresses until something is delivered, or somebody reactivates the address.
            self._log.warning("row_not_settled", tenant=row.tenant_id, suppression_id=row.id, error=error)
            return ()

    async def _tenant(self, row: UnsettledRow) -> Tenant | None:
        """Whose row it is; None where that registration is gone."""
        registration = row.row.key.address.registration
        tenant = self._tenants.get(row.tenant_id)
        if tenant is None or tenant.registration != registration:
            tenant = await self._tenants.reload(row.tenant_id)
        return tenant if tenant is not None and tenant.registration == registration else None

    async def _lifting(self, row: UnsettledRow, tenant: Tenant) -> Sequence[Fact]:
        """What lifts the row after all, if anything does."""
        since_us, text = row.row.since_us - _CLOCKS_US, row.row.key.address.text
        seen, token = 0, ""
        while seen < MAX_EVENTS:
            events, token = await self._arrivals.of(tenant.id, text, since_us, _PAGE, token)
            for event in events:
                if event.registration != tenant.registration:
                    continue
                said = fact_of(event, tenant.suppression, self._now_us())
                facts = spread(said, tenant.suppression) if said is not None and said.lifts else ()
                if any(_lifts(fact, row) for fact in facts):
                    return facts
            seen += len(events)
            if not token:
                return ()
        self._log.info("row_not_settled", tenant=tenant.id, suppression_id=row.id, events=seen)
        return ()


def _lifts(fact: Fact, row: UnsettledRow) -> bool:
    key = row.row.key
    return (
        fact.address == key.address
        and Target(key.kind, key.scope) in fact.targets
        and fact.order > (row.row.since_us, row.row.fact_id)
    )
