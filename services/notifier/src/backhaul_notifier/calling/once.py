"""Values that are made by one for all who want them at that time, and kept for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(NamedTuple, Generic[V]):
    """A value, when it was made, and until when it is good; by the clock."""

    value: V
    made_at: float
    until: float


class Once(Generic[K, V]):
    """``get`` gives what is kept under a key, or waits for whoever makes it. What fails is kept for nobody, and fails
    for those who waited for it. ``most`` is how many values are kept."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._kept: dict[K, Kept[V]] = {}
        self._making: dict[K, asyncio.Task[Kept[V]]] = {}

    async def get(self, key: K, make: Callable[[], Awaitable[tuple[V, float]]]) -> Kept[V]:
        """``make`` returns the value, and for how many seconds it is good. It goes on where those are cancelled who
        wait for it."""
        kept = self._kept.get(key)
        if kept is not None and kept.until > self._clock():
            return kept
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.create_task(self._make(key, make))
            making.add_done_callback(_heard)
        return await asyncio.shield(making)

    def forget(self, key: K, value: V) -> None:
        """``value`` is good no more; whatever was made since stays."""
        kept = self._kept.get(key)
        if kept is not None and kept.value == value:
            del self._kept[key]

    async def close(self) -> None:
        """Nothing is made any more."""
        making = list(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)

    async def _make(self, key: K, make: Callable[[], Awaitable[tuple[V, float]]]) -> Kept[V]:
        try:
            value, good_s = await make()
            now = self._clock()
            made = Kept(value, now, now + good_s)
            self._kept.pop(key, None)
            self._kept[key] = made
            if len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
            return made
        finally:
            del self._making[key]


def _heard(task: asyncio.Task[Kept[V]]) -> None:
    """Whoever waited may have been cancelled: an error that nobody asks for is none of the loop's."""
    if not task.cancelled():
        task.exception()
