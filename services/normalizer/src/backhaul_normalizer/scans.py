"""Reads that look at many rows to find few. They take turns, so that the quick ones never wait for them.

MongoDB's driver has a few threads for all that a process asks, and MongoDB a few cores. A filter without an index keeps
one of each for seconds, and a tenant may ask several such questions at once. So one place is left for another tenant:
all taken by one, they would be taken for longer than the other's question may wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_ONCE = 3


class Scans:
    """At most ``at_once`` run, one fewer of one owner where that is any; those that wait begin by turns of their
    owners, one of each. Belongs to one loop.

    ``outlives_asker`` says that the work goes on elsewhere when its task is cancelled.
    """

    def __init__(self, at_once: int = AT_ONCE, *, outlives_asker: bool = True) -> None:
        self._free = at_once
        self._most_of_one = max(1, at_once - 1)
        self._running: Counter[str] = Counter()
        self._outlives_asker = outlives_asker
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, owner: str, within_s: float) -> AsyncIterator[float]:
        """Wait for a turn; gives the seconds that are left of ``within_s``. TimeoutError when none are.

        The work inside must end within these seconds also when its task is cancelled: where the server and the driver's
        thread go on with it, the turn is over only when they must have stopped.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + within_s
        await self._begin(owner, within_s)
        try:
            yield ends - loop.time()
        except asyncio.CancelledError:
            if self._outlives_asker:
                loop.call_at(ends, self._end, owner)
            else:
                self._end(owner)
            raise
        except BaseException:
            self._end(owner)
            raise
        else:
            self._end(owner)

    async def _begin(self, owner: str, within_s: float) -> None:
        # Where any place is free, whoever waits has as many as one may have.
        if self._may_begin(owner):
            self._take(owner)
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(place)
        try:
            async with asyncio.timeout(within_s):
                await place
        except (TimeoutError, asyncio.CancelledError):
            if place.done() and not place.cancelled():
                self._end(owner)  # The turn came at the same moment, and nobody is there to take it.
            else:
                self._forget(owner, place)
            raise

    def _forget(self, owner: str, place: asyncio.Future[None]) -> None:
        places = self._waiting.get(owner)
        if places is not None and place in places:
            places.remove(place)
            if not places:
                del self._waiting[owner]

    def _may_begin(self, owner: str) -> bool:
        return self._free > 0 and self._running[owner] < self._most_of_one

    def _take(self, owner: str) -> None:
        self._free -= 1
        self._running[owner] += 1

    def _end(self, owner: str) -> None:
        self._free += 1
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]
        while (following := next(filter(self._may_begin, self._waiting), None)) is not None:
            places = self._waiting.pop(following)
            place = places.popleft()
            if places:
                self._waiting[following] = places
            if not place.done():
                self._take(following)
                place.set_result(None)
