"""Reads that look at many rows to find few. They take turns, so that the quick ones never wait for them.

MongoDB's driver has a few threads for all that a process asks, and MongoDB a few cores. A filter without an index keeps
one of each for seconds, and a tenant may ask several such questions at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_ONCE = 3


class Scans:
    """At most ``at_once`` run; those that wait begin by turns of their owners, one of each. Belongs to one loop.

    ``outlives_asker`` says that the work goes on elsewhere when its task is cancelled.
    """

    def __init__(self, at_once: int = AT_ONCE, *, outlives_asker: bool = True) -> None:
        self._free = at_once
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
                loop.call_at(ends, self._end)
            else:
                self._end()
            raise
        except BaseException:
            self._end()
            raise
        else:
            self._end()

    async def _begin(self, owner: str, within_s: float) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(place)
        try:
            async with asyncio.timeout(within_s):
                await place
        except (TimeoutError, asyncio.CancelledError):
            if place.done() and not place.cancelled():
                self._end()  # The turn came at the same moment, and nobody is there to take it.
            else:
                self._forget(owner, place)
            raise

    def _forget(self, owner: str, place: asyncio.Future[None]) -> None:
        places = self._waiting.get(owner)
        if places is not None and place in places:
            places.remove(place)
            if not places:
                del self._waiting[owner]

    def _end(self) -> None:
        while self._waiting:
            owner, places = self._waiting.popitem(last=False)
            place = places.popleft()
            if places:
                self._waiting[owner] = places
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
