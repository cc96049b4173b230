"""The end of what tenants keep for a limited time, in the background of every copy.

Copies need not agree: what one has deleted the other does not find, and where both take the same, one begins anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from backhaul_common import mongo
from backhaul_common.directory import TenantDirectory
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import EXPIRED
from backhaul_common.pauses import pauses

from backhaul_normalizer.communications.ending import end_member_addresses, end_members
from backhaul_normalizer.expiry import START, Owner, Position, Slice, end_addresses, end_events, end_messages
from backhaul_normalizer.retained import Retained

FIRST_S, EVERY_S = 20.0, 900.0
"""How long after the start it is looked for what is due, and how often then; more or less, so that copies that were
started together do not meet."""

MAX_SLICES = 50
"""Slices of one tenant before it is another's turn."""

MIN_PAUSE_S, PAUSES = 0.02, 4.0
"""After each slice, at least; and how many times as long as the slice took. So what is deleted takes a fifth of one
thread at most, however much of it there is."""

End = Callable[[Owner, int, Position, mongo.ThreadDatabase, mongo.Session], Slice]

ENDS: Mapping[str, End] = {
    "events": end_events,
    "members": end_members,
    "messages": end_messages,
    "addresses": end_addresses,
    "member_addresses": end_member_addresses,
}
"""In the order in which it is done: nothing must be left that what is deleted led to."""


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class Retention:
    """What any copy does, again and again; several may at once."""

    def __init__(
        self,
        database: mongo.Database,
        tenants: TenantDirectory,
        retained: Retained,
        metrics: Metrics,
        clock_us: Callable[[], int],
    ) -> None:
        self._database = database
        self._tenants = tenants
        self._retained = retained
        self._clock_us = clock_us
        self._expired = metrics.counter(EXPIRED)
        self._log = get_logger(component="retention")

    async def run(self) -> None:
        """Until cancelled. UNAVAILABLE when MongoDB is away."""
        await self._retained.load()
        for pause_s in pauses(FIRST_S, EVERY_S, spread=0.5):
            await asyncio.sleep(pause_s)
            await self.look()

    async def look(self) -> None:
        """End all that is due now, of each tenant some in turn. UNAVAILABLE."""
        at_us = self._clock_us()
        waiting = deque(
            Owner(tenant.id, tenant.registration)
            for tenant in self._tenants.tenants.values()
            if tenant.retention.ends and tenant.status != "deleting"
        )
        work = {owner: _Work() for owner in waiting}
        try:
            while waiting:
                owner = waiting.popleft()
                try:
                    if await self._some(owner, at_us, work[owner]):
                        waiting.append(owner)
                except Exception as exc:
                    if mongo.is_transient(exc):
                        raise
                    # What is wrong with one tenant's is tried again at the next look, and keeps nobody else waiting.
                    self._log.error("retention_failed", tenant=owner.tenant, exc_info=exc)
        finally:
            for owner, done in work.items():
                if done.ended:
                    self._log.info("expired", tenant=owner.tenant, **done.ended)
        await self._retained.load()

    async def _some(self, owner: Owner, at_us: int, work: _Work) -> bool:
        """End some of what is due; whether there is more."""
        for _ in range(MAX_SLICES):
            what = next((name for name in ENDS if work.behind[name] is not None), "")
            if not what:
                return False
            began = time.monotonic()
            end = partial(ENDS[what], owner, at_us, work.behind[what] or START)
            async with mongo.translated():
                done = await mongo.in_transaction(self._database, end)
            work.behind[what] = done.following
            if done.ended:
                work.ended[what] += done.ended
                self._expired.add(owner.tenant, what, amount=done.ended)
            await asyncio.sleep(max(MIN_PAUSE_S, PAUSES * (time.monotonic() - began)))
        return True


@dataclass(slots=True)
class _Work:
    """How much was ended of a tenant's, and behind what there is more of it; None where there is none."""

    ended: Counter[str] = field(default_factory=Counter)
    behind: dict[str, Position | None] = field(default_factory=lambda: dict.fromkeys(ENDS, START))
