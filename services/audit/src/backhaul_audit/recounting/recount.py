"""A recount: counts before and after, all events in between, and what becomes of those that seem to be missing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from backhaul_common.lifecycle import cancel
from backhaul_common.tenants import Tenant

from backhaul_audit.ports import States
from backhaul_audit.recounting.comparing import FilingState, Tally
from backhaul_audit.recounting.ports import Communications, Contents, Listed, Recounted

TOLD_S = 0.4
"""How often it is told how far a recount is."""

LOOKED_UP = 5000
"""Events that are looked for in files together: what was filed together is read once for many of them."""

MAX_TRIES = 3
"""How often counts may move, and lists differ, while they are compared: beyond it that is the answer."""

PUBLISHED_US = 2_000_000
"""How long it may take until what the normalizer lists is on EVENTS: it stores first, and publishes then."""

MAX_CATCH_UP_S = 20.0
"""For how long it is waited until what was listed has been read. Every 5 s it is told how far that is."""

_LOOK_S = 0.5


@dataclass(slots=True)
class _Progress:
    """What the present try has come to."""

    tally: Tally = field(default_factory=Tally)


class Recounting:
    """``Recounts``."""

    def __init__(
        self,
        communications: Communications,
        contents: Contents,
        states: States,
        asking: Callable[[Tenant], Mapping[str, str]],
        now_us: Callable[[], int],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``asking`` are a tenant's channels that ask for files; ``sleep`` passes time on the clock of ``now_us``."""
        self._communications = communications
        self._contents = contents
        self._states = states
        self._asking = asking
        self._now_us = now_us
        self._sleep = sleep

    async def run(self, tenant: Tenant, communication_id: str) -> AsyncGenerator[Recounted, None]:
        """See ``Recounts``."""
        progress = _Progress()
        work = asyncio.create_task(self._recounted(tenant, communication_id, progress), name="recount")
        try:
            while not (await asyncio.wait({work}, timeout=TOLD_S))[0]:
                yield Recounted(progress.tally.events)
        finally:
            if not work.done():
                await cancel(work)
        yield work.result()

    async def _recounted(self, tenant: Tenant, communication_id: str, progress: _Progress) -> Recounted:
        before = await self._communications.counts(tenant, communication_id)
        moved = differing = 0
        seen: Mapping[int, int] | None = None
        while True:
            tally = progress.tally = Tally()
            await self._count(tenant, communication_id, tally)
            listed_us = self._now_us()
            after = await self._communications.counts(tenant, communication_id)
            if after.kinds != before.kinds:
                moved, before, seen = moved + 1, after, None
            elif tally.listed in (after.kinds, seen):
                # What is found once may be an event that was being marked as another's duplicate. What is found twice
                # is so.
                break
            else:
                differing, seen = differing + 1, Counter(tally.listed)
            if max(moved, differing) == MAX_TRIES:
                await self._settle(tenant, tally, listed_us)
                return tally.result(after, moving=True)
        await self._settle(tenant, tally, listed_us)
        return tally.result(after, moving=False)

    async def _count(self, tenant: Tenant, communication_id: str, tally: Tally) -> None:
        """Count all events, in batches."""
        token, some = "", list[Listed]()
        while True:
            page = await self._communications.page(tenant, communication_id, token)
            token = page.token
            some += page.listed
            tally.retained_since_us = max(tally.retained_since_us, page.retained_since_us)
            if len(some) >= LOOKED_UP or (some and not token):
                state = await self._state(tenant, await self._states.read_to_us())
                tally.add(some, await self._contents.filed(tenant.registration, some), state)
                some = []
            if not token:
                return

    async def _settle(self, tenant: Tenant, tally: Tally, listed_us: int) -> None:
        """Decide about the doubts, when all that was listed at ``listed_us`` has been read.

        An event, and even more so a later revision of one, may have arrived long before it was published. Where reading
        does not come so far in time, whatever lies in no file waits for one.
        """
        if not tally.doubts:
            return
        ends_us = self._now_us() + int(MAX_CATCH_UP_S * 1e6)
        # In this order: what is read goes into memory, which is told of, before it goes into a file.
        while (read_to_us := await self._states.read_to_us()) < listed_us + PUBLISHED_US and self._now_us() < ends_us:
            await self._sleep(_LOOK_S)
        caught_up = read_to_us >= listed_us + PUBLISHED_US
        state = await self._state(tenant, read_to_us if caught_up else 0)
        tally.settle(await self._contents.filed(tenant.registration, tally.doubts), state)

    async def _state(self, tenant: Tenant, read_to_us: int) -> FilingState:
        waiting = await self._states.waiting(tenant.registration)
        return FilingState(
            asking=self._asking(tenant).keys(),
            since_us={one.channel: one.since_us for one in waiting},
            troubled={one.channel for one in waiting if one.problem},
            read_to_us=read_to_us,
        )
