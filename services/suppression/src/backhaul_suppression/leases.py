"""How a copy comes to answer from memory, and ceases to: it registers, renews its lease, and leaves.

``Holder.step`` is the whole of what a copy does; ``run`` only says when. docs/decisions/0023 says why nothing that this
copy answers is stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

from backhaul_common.errors import BackhaulError
from backhaul_common.outages import Repeated, is_outage
from backhaul_common.pauses import pauses

from backhaul_suppression.lease import LEASE_S, Clock, Lease
from backhaul_suppression.ports import Copies

RENEW_S = LEASE_S / 3
"""How often a lease is renewed where nothing changes."""

_LONGEST_PAUSE_S = 0.5
_LEAVE_S = 1.0


class Holder:
    """Holds ``lease`` for a copy that has applied all changes up to ``applied()``.

    That is -1 while it is loading, and otherwise a number that never gets less but after ``forget``.
    """

    def __init__(
        self,
        copies: Copies,
        lease: Lease,
        applied: Callable[[], int],
        clock: Clock,
        *,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._copies = copies
        self._lease = lease
        self._applied = applied
        self._clock = clock
        self._new_id = new_id
        self._copy = ""
        self._need = 0
        self._said = -1
        self._goal: int | None = None
        self._life = object()

    @property
    def behind(self) -> bool:
        """Whether this copy must apply more before it may answer."""
        return not self._copy or self._need > self._applied()

    @property
    def lost(self) -> bool:
        """Whether it must register before anything else, and has not asked yet how far it must have come for that."""
        return not self._copy and self._goal is None

    @property
    def unsaid(self) -> bool:
        """Whether it has applied more than it has said."""
        return self._applied() > self._said

    async def step(self) -> None:
        """Register, or renew the lease. Afterwards it holds, or ``behind`` is true. UNAVAILABLE."""
        if not self._copy and not await self._register():
            return
        # The order of the next two does not matter, but that both are before the request does: the lease begins before
        # whatever a writer may do once the renewal is in the database.
        applied, began = self._applied(), self._clock()
        life, need = self._life, await self._copies.renew(self._copy, applied)
        if life is not self._life:
            return
        if need is None:
            # A writer waited for this copy in vain, for longer than its lease was.
            self.forget()
            return
        self._said = applied
        self._need = max(self._need, need)
        if self._need <= applied:
            self._lease.extend(began)

    async def leave(self) -> None:
        """Answer no more, and say so, that no writer waits for this copy. UNAVAILABLE: one will, once."""
        copy = self._copy
        self.forget()
        if copy:
            await self._copies.leave(copy)

    def forget(self) -> None:
        """Answer no more before this copy has registered anew, and applied all again that was applied before."""
        self._lease.end()
        self._copy = ""
        self._goal = None
        self._life = object()

    async def _register(self) -> bool:
        # A copy that does not come on must not be there: each writer in turn would wait for it. So it first shows that
        # it has come as far as it saw that it must.
        life = self._life
        if self._goal is None:
            goal = await self._copies.last()
            if life is not self._life:
                return False
            self._goal = goal
        if self._goal > self._applied():
            return False
        copy, self._goal = self._new_id(), None
        await self._copies.register(copy, self._applied())
        # Whoever commits from here on finds the document. What was committed before is in this number.
        need = await self._copies.last()
        if life is not self._life:
            return False
        self._copy, self._need, self._said = copy, need, -1
        return True


class Renewing:
    """Has ``holder`` step when it is time to, or when there is something to say."""

    def __init__(self, holder: Holder, lease: Lease, said: Callable[[], None]) -> None:
        """``said`` is called when others may know that this copy has applied more; it must not block or raise."""
        self._holder = holder
        self._lease = lease
        self._tell = said
        self._moved = asyncio.Event()
        self._away = Repeated("lease_not_renewed")

    def moved(self) -> None:
        """This copy has applied more: say so now."""
        self._moved.set()

    async def run(self) -> None:
        """Keep the lease until cancelled, and leave then."""
        waits = pauses(0.05, _LONGEST_PAUSE_S)
        try:
            while True:
                self._moved.clear()
                unsaid = self._holder.unsaid
                try:
                    await self._holder.step()
                except Exception as exc:
                    if not is_outage(exc):
                        raise
                    self._away.warning(repr(exc))
                    self._lease.look()
                    await asyncio.sleep(next(waits))
                    continue
                if self._away.times:
                    self._away.over()
                    waits = pauses(0.05, _LONGEST_PAUSE_S)
                if unsaid:
                    self._tell()
                if self._holder.lost:
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(RENEW_S):
                        await self._moved.wait()
        finally:
            with suppress(BackhaulError, TimeoutError):
                async with asyncio.timeout(_LEAVE_S):
                    await self._holder.leave()

    async def check(self) -> None:
        """A readiness check: this copy may answer. UNAVAILABLE."""
        self._lease.check()
