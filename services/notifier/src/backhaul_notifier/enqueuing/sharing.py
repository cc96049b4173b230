"""How tenants share one position: who has more than a share while others wait is *parked*, and told apart.

All of EVENTS is read in its order, so what one tenant floods with lies before what others wait for. A parked tenant's
messages are passed over, and told by a ``Lane`` from a position of its own, in turns with all the others and in
smaller transactions. Nobody else tells anything of it meanwhile, so its order stays. When its lane has reached the
others, it is told with them again.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from backhaul_common.feed import PositionReader, PullLimits, ReaderConfig, StreamMessage
from backhaul_common.following import Follower
from backhaul_common.lifecycle import cancel, keep_running
from backhaul_common.logs import get_logger
from backhaul_common.names import streams_of

SHARE_BYTES: Final = 4 << 20
"""What a tenant may have of the latest ``WINDOW`` times as much while others wait. A little of it is had at once."""

WINDOW: Final = 4

ROW_BYTES: Final = 1024
"""What a delivery costs besides its payload, in bytes of one."""

SPENT_AT_ONCE: Final = 64 << 10
"""How much of a message is spent before it is asked whether that is a share."""

LANE_BYTES: Final = 1 << 20
"""Payloads that are stored in one transaction for a parked tenant: all others wait for it."""

MAX_PARKED: Final = 16
"""Tenants at once: each may have some megabytes in memory."""

LOOK_S: Final = 1.0
"""How often is looked whether a parked tenant has reached the others."""

_BUFFER_BYTES: Final = 1 << 20
_PULL: Final = PullLimits(messages=16)

Apply = Callable[["Lane", Sequence[StreamMessage]], Awaitable[None]]
GiveUp = Callable[["Lane", StreamMessage], Awaitable[None]]


class Share(Protocol):
    """What whoever makes rows asks of those for whom he does. ``max_bytes`` of payloads are stored at once."""

    @property
    def max_bytes(self) -> int: ...

    def passes_over(self, message: StreamMessage) -> bool:
        """Whether ``message`` is told by somebody else."""
        ...

    def spend(self, message: StreamMessage, cost: int) -> bool:
        """Rows that cost so much were made of ``message``. True: its tenant is to be parked."""
        ...


class Lane:
    """A parked tenant, and the ``Progress`` of its messages, which are told up to ``at``.

    ``over``: whatever lies behind ``at`` is told with what is of others.
    """

    def __init__(self, path: str, at: int, apply: Apply, give_up: GiveUp) -> None:
        self.path = path
        self.at = at
        self.over = False
        self._apply = apply
        self._give_up = give_up

    @property
    def max_bytes(self) -> int:
        """See ``Share``."""
        return LANE_BYTES

    def passes_over(self, message: StreamMessage) -> bool:  # noqa: ARG002  # it is all of one tenant
        """See ``Share``."""
        return False

    def spend(self, message: StreamMessage, cost: int) -> bool:  # noqa: ARG002  # nobody waits behind it
        """See ``Share``."""
        return False

    async def position(self) -> int:
        """See ``Progress``."""
        return self.at

    async def keep(self) -> None:
        """See ``Progress``: whoever keeps the position of all keeps this one."""
        await asyncio.Event().wait()

    async def apply(self, messages: Sequence[StreamMessage]) -> None:
        """See ``Progress``."""
        await self._apply(self, messages)

    async def dead_letter(self, message: StreamMessage, error: Exception) -> None:  # noqa: ARG002  # ``Follower`` logs it
        """See ``Progress``."""
        await self._give_up(self, message)

    async def has_reached(self, reader: PositionReader, reach: Callable[[], int]) -> bool:
        """Whether everything of the tenant up to ``reach`` is told, beyond which the others have not begun to read."""
        reached = reach()
        if self.at >= reached:
            return True
        # What the others pass over from now on is behind a reach that has moved, and may not be told yet.
        return not (reader.waits or await reader.is_behind(self.at)) and reach() == reached


class Sharing:
    """Who is parked, and what each tenant has had lately. It is the ``Share`` of all who are not."""

    def __init__(self, stream: str, max_bytes: Callable[[], int], shared: Callable[[], bool]) -> None:
        """``shared`` says whether there are several tenants at all."""
        self.parked: dict[str, Lane] = {}
        self.waits: Callable[[], bool] = lambda: False
        """Whether anything lies behind ``reach``."""
        self.reach = 0
        """How far has been begun to tell what is of others. It never shrinks while anybody is parked."""
        self._stream = stream
        self._max_bytes = max_bytes
        self._shared = shared
        self._spent: Tally[str] = Tally()
        self._total = 0
        self._running: dict[Lane, asyncio.Task[None]] = {}
        self._readers: dict[Lane, PositionReader] = {}
        self._log = get_logger(component="enqueuer", stream=stream)

    @property
    def max_bytes(self) -> int:
        """See ``Share``."""
        return self._max_bytes()

    @property
    def open(self) -> int:
        """How many are told apart now."""
        return sum(not lane.over for lane in self.parked.values())

    def passes_over(self, message: StreamMessage) -> bool:
        """See ``Share``."""
        lane = self.parked.get(message.path)
        return lane is not None and (not lane.over or message.stream_seq <= lane.at)

    def spend(self, message: StreamMessage, cost: int) -> bool:
        """See ``Share``."""
        path = message.path
        if not (self._shared() and (message.stream_seq < self.reach or self.waits())):
            self._spent.clear()
            self._total = 0
            return False
        self._spent[path] += cost
        self._total += cost
        if self._total > SHARE_BYTES * WINDOW:
            self._spent = Tally({one: spent // 2 for one, spent in self._spent.items() if spent > 1})
            self._total = sum(self._spent.values())
        return self._spent[path] > SHARE_BYTES and self.open < MAX_PARKED

    def dropped_at(self, position: int) -> Sequence[str]:
        """Those for whom nothing remains to be remembered when all others are told up to ``position``."""
        return [path for path, lane in self.parked.items() if lane.over and lane.at <= position]

    def park(self, lane: Lane, read: Callable[[ReaderConfig], PositionReader]) -> None:
        """Tell ``lane`` apart from now on."""
        self._log.info("tenant_parked", queue_path=lane.path, after=lane.at)
        self._spent.pop(lane.path, None)
        self.parked[lane.path] = lane
        filters = (streams_of(lane.path)[self._stream],)
        reader = read(ReaderConfig(self._stream, "notifier-parked", filters, buffer_bytes=_BUFFER_BYTES, pull=_PULL))
        self._running[lane] = asyncio.create_task(self._run(lane, reader), name=f"parked {lane.path}")

    def drop(self, paths: Sequence[str]) -> None:
        """Remember nothing more of ``paths``."""
        for path in paths:
            self.parked.pop(path, None)

    async def stop(self) -> None:
        """Tell nobody apart any more, and forget who was."""
        for task in list(self._running.values()):
            await cancel(task)
        # Who was cancelled before it began has left nothing, and taken nothing away.
        self._running.clear()
        self._readers.clear()
        self.parked.clear()

    async def reconnected(self) -> None:
        """See ``PositionReader``."""
        for reader in list(self._readers.values()):
            await reader.reconnected()

    async def _run(self, lane: Lane, reader: PositionReader) -> None:
        self._readers[lane] = reader
        works: Mapping[str, Callable[[], Awaitable[None]]] = {
            "reader_parked": reader.run,
            "follower_parked": Follower(reader, lane).run,
        }
        tasks = [asyncio.create_task(keep_running(name, work), name=name) for name, work in works.items()]
        try:
            while not lane.over:
                # At once: what is passed over from then on would be told by nobody.
                lane.over = await lane.has_reached(reader, lambda: self.reach)
                await asyncio.sleep(0 if lane.over else LOOK_S)
            self._log.info("tenant_unparked", queue_path=lane.path, after=lane.at)
        finally:
            for task in reversed(tasks):
                await cancel(task)
            self._readers.pop(lane, None)
            self._running.pop(lane, None)
