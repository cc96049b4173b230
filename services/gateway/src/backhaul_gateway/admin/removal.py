"""The second half of a deletion: what is marked ``deleting`` is waited for, purged, and forgotten.

The decision is docs/decisions/0013-deletion-by-registration.md. In short: from the mark on, no transaction of
any service that begins stores anything of the tenant. Those that began before are over when MongoDB's limit of their
lifetime has passed. What is purged then stays purged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from backhaul_common.errors import BackhaulError
from backhaul_common.logs import get_logger
from backhaul_common.tenants import Tenant

from backhaul_gateway.ports import Announcer, TenantData, TenantStore, TenantStreams

MARGIN_S = 1.0
"""For the time that MongoDB takes to end a transaction that is over."""

_LOOK_S = 1.0
_STEADY_S = 3.0
"""MongoDB answered all the time if no two answers are further apart."""

_MAX_PAUSE_S = 5.0
_AT_ONCE = 4


def longest_transaction_s(lifetime_s: float) -> float:
    """How long a transaction can last where MongoDB's transactionLifetimeLimitSeconds is ``lifetime_s``."""
    return lifetime_s + _reaper_period_s(lifetime_s)


def _reaper_period_s(lifetime_s: float) -> float:
    # https://github.com/mongodb/mongo/blob/v6.0/src/mongo/db/periodic_runner_job_abort_expired_transactions.cpp
    return min(60.0, max(1.0, lifetime_s / 2))


@dataclass(slots=True)
class _Mark:
    """A tenant that is seen to be marked. Times are this process's own: nobody's clock is compared with another's."""

    tenant_id: str
    registration: str
    seen_at: float
    answered_at: float
    steady_since: float
    lifetime_s: float = 0.0

    def answered(self, now: float, lifetime_s: float) -> None:
        """MongoDB answered, and lets transactions live for ``lifetime_s``."""
        if now - self.answered_at > _STEADY_S:
            # It may have stood still, and with it the thread that ends transactions.
            self.steady_since = now
        self.answered_at = now
        # One that began under a longer limit keeps it.
        self.lifetime_s = max(self.lifetime_s, lifetime_s)

    def left_s(self, now: float) -> float:
        """How long a transaction that began before the mark may still last."""
        return max(
            self.seen_at + longest_transaction_s(self.lifetime_s) + MARGIN_S - now,
            self.steady_since + _reaper_period_s(self.lifetime_s) + MARGIN_S - now,
        )


class TenantRemoval:
    """Removes every tenant that is marked, whoever marked it and when.

    Every copy of the gateway does: all steps are conditioned on the registration, and may be done twice. What is away
    delays a removal, and no more. ``run`` must be running for anything to happen.
    """

    def __init__(
        self,
        store: TenantStore,
        streams: TenantStreams,
        data: TenantData,
        announcer: Announcer,
        transaction_lifetime_s: Callable[[], Awaitable[float]],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._streams = streams
        self._data = data
        self._announcer = announcer
        self._transaction_lifetime_s = transaction_lifetime_s
        self._clock = clock
        self._marks: dict[str, _Mark] = {}
        self._marked: asyncio.Queue[_Mark] = asyncio.Queue()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._log = get_logger(component="tenant_removal")

    @property
    def waiting(self) -> int:
        """Tenants that are marked and not gone yet."""
        return len(self._marks)

    def changed(self, tenant_id: str, tenant: Tenant | None) -> None:
        """A listener of the tenant directory, which reads only what the majority of MongoDB's nodes has."""
        if tenant is None or tenant.status != "deleting" or tenant.registration in self._marks:
            return
        now = self._clock()
        mark = self._marks[tenant.registration] = _Mark(tenant_id, tenant.registration, now, now, now)
        self._marked.put_nowait(mark)

    async def run(self) -> None:
        """Remove what is marked, until cancelled."""
        while not self._marked.empty():
            self._marked.get_nowait()
        async with asyncio.TaskGroup() as removals:
            for mark in self._marks.values():
                removals.create_task(self._remove(mark), name=f"remove {mark.tenant_id}")
            while True:
                mark = await self._marked.get()
                removals.create_task(self._remove(mark), name=f"remove {mark.tenant_id}")

    async def _remove(self, mark: _Mark) -> None:
        said = ""
        pause_s = _LOOK_S
        log = self._log.bind(tenant=mark.tenant_id, registration=mark.registration)
        while True:
            try:
                left_s = await self._look(mark)
                if left_s is None:
                    break
                if left_s <= 0:
                    async with self._turns:
                        if await self._finish(mark):
                            log.info("tenant_removed", seconds=round(self._clock() - mark.seen_at, 1))
                    break
                pause_s = min(_LOOK_S, left_s)
            except Exception as exc:  # whatever it is, the tenant is still marked, and nobody else may be there for it
                if str(exc) != said:
                    said = str(exc)
                    expected = isinstance(exc, BackhaulError)
                    log.warning("tenant_removal_delayed", reason=said, exc_info=None if expected else exc)
                pause_s = min(pause_s * 2, _MAX_PAUSE_S)
            await asyncio.sleep(pause_s)
        del self._marks[mark.registration]

    async def _look(self, mark: _Mark) -> float | None:
        """How long to wait before the tenant may be purged; None when it is gone already."""
        if await self._present(mark) is None:
            return None
        mark.answered(self._clock(), await self._transaction_lifetime_s())
        return mark.left_s(self._clock())

    async def _finish(self, mark: _Mark) -> bool:
        """Purge the tenant and forget it; whether that was done here, and not by another copy."""
        # In this order: where the streams end is asked before the tenant is seen to be there. All that lies under its
        # queue path up to these positions is then of this tenant, or of one before it. Should this process sleep now,
        # and somebody else have the path when it wakes, what it purges is still only that.
        ends = await self._streams.ends()
        while (tenant := await self._present(mark)) is not None:
            await self._streams.purge(tenant, ends)
            await self._data.purge(tenant)
            if await self._store.delete(tenant):
                await self._announcer.tenant_changed(tenant.id)
                return True
        return False

    async def _present(self, mark: _Mark) -> Tenant | None:
        """The tenant as stored now; None when this registration of it is gone."""
        tenant = await self._store.find(mark.tenant_id)
        return tenant if tenant is not None and tenant.registration == mark.registration else None
