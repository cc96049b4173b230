"""What whoever has changed rows waits for: that no copy can answer any more without the change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from backhaul_common.errors import BackhaulError, unavailable
from backhaul_common.lifecycle import cancel
from backhaul_common.pauses import pauses

from backhaul_suppression.lease import PATIENCE_S, Clock
from backhaul_suppression.ports import Copies

BAR_S = 5.0
"""How long it is tried to say how far everybody must be, before the writer is told that MongoDB is away."""

LOOK_S = 0.05
"""How often it is looked where the others are, when none of them says so."""

Pause = Callable[[float], Awaitable[None]]
"""Returns after so many seconds, or earlier where something may have changed."""


async def everybody(seq: int, copies: Copies, clock: Clock, pause: Pause) -> None:
    """Returns when no copy answers any more without the changes up to ``seq``, which are committed: at once where all
    have applied them, and after PATIENCE_S where one says nothing. UNAVAILABLE."""
    await _barred(seq, copies, clock, pause)
    # From here on no lease is renewed by a copy that has not applied ``seq``, so time alone is enough: whatever fails
    # now may cost patience, and no more.
    began = clock()
    while True:
        with suppress(BackhaulError):
            behind = await copies.behind(seq)
            if not behind:
                return
            if clock() - began >= PATIENCE_S:
                # Their leases are over. They register anew when they come back, and no writer waits for them again.
                await copies.forget(behind, seq)
        if clock() - began >= PATIENCE_S:
            return
        await pause(LOOK_S)


async def _barred(seq: int, copies: Copies, clock: Clock, pause: Pause) -> None:
    began = clock()
    for pause_s in pauses(0.05, 1.0):
        try:
            await copies.bar(seq)
            break
        except BackhaulError:
            if clock() - began >= BAR_S:
                raise
            await pause(pause_s)


class SharedBarrier:
    """A ``Barrier``. Those who come while it is looked for others wait together for the next look."""

    def __init__(self, copies: Copies, clock: Clock, changed: Callable[[], None]) -> None:
        """``changed`` tells all copies to look what is new; it must not block or raise."""
        self._copies = copies
        self._clock = clock
        self._changed = changed
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._moved = asyncio.Event()
        self._passed = 0
        self._life = object()
        self._looking: asyncio.Task[None] | None = None

    def moved(self) -> None:
        """Some copy has applied more."""
        self._moved.set()

    def forget(self) -> None:
        """What had passed is no longer so: MongoDB was set back."""
        self._passed = 0
        self._life = object()

    async def passed(self, seq: int) -> None:
        """See ``Barrier``."""
        if seq <= self._passed:
            # Nobody falls back: whoever registered since then began at least there.
            return
        self._changed()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((seq, future))
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="suppression_barrier")
        await future

    async def close(self) -> None:
        """Whoever still waits is told UNAVAILABLE."""
        if self._looking is not None:
            await cancel(self._looking)

    async def _look(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                await self._together(waiting)
        finally:
            _settle(self._waiting, unavailable("Suppression"))

    async def _together(self, waiting: list[tuple[int, asyncio.Future[None]]]) -> None:
        seq, life = max(seq for seq, _ in waiting), self._life
        failure: BaseException | None = unavailable("Suppression")
        try:
            await everybody(seq, self._copies, self._clock, self._pause)
            if life is self._life:
                self._passed = max(self._passed, seq)
            failure = None
        except BackhaulError as exc:
            failure = exc
        finally:
            _settle(waiting, failure)

    async def _pause(self, seconds: float) -> None:
        self._moved.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved.wait()


def _settle(waiting: list[tuple[int, asyncio.Future[None]]], failure: BaseException | None) -> None:
    for _, future in waiting:
        if future.done():
            continue  # Whoever waited was cancelled.
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)
