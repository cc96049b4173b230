"""The spool: callbacks on this gateway's own disk, in the order in which they came, each tenant's within its share.

Those that come at the same time share a transaction, and so its wait for the disk. All methods belong to the event loop
that it was made on; the file belongs to one thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.logs import get_logger
from backhaul_common.metering import Counter, Metrics
from backhaul_common.metrics import (
    HELD,
    HELD_AGE,
    HELD_CALLBACKS,
    HELD_DAMAGED,
    HELD_FILL,
    SPOOL_AGE,
    SPOOL_CALLBACKS,
    SPOOL_DAMAGED,
    SPOOL_FILL,
    SPOOL_REFUSED,
    SPOOLED,
    Metric,
)
from backhaul_common.outages import Repeated

from backhaul_gateway.spool.file import TROUBLE, Kept, SpoolFile, is_damage
from backhaul_gateway.spool.rescue import rescued
from backhaul_gateway.spool.shares import Holding, Shares, path_in

T = TypeVar("T")

_MOST_AT_ONCE: Final = 2_000
"""Callbacks in one transaction."""
_USUAL_BYTES: Final = 4096
"""Of a callback; most have less."""
_RETRY_AFTER_S: Final = 30.0


class Told(NamedTuple):
    """What a spool is told of by."""

    taken: Counter
    damaged: Counter
    callbacks: Metric
    fill: Metric
    age: Metric
    refused: Counter | None = None


def kept(metrics: Metrics) -> Told:
    """Of what JetStream does not store."""
    refused = metrics.counter(SPOOL_REFUSED)
    return Told(
        metrics.counter(SPOOLED), metrics.counter(SPOOL_DAMAGED), SPOOL_CALLBACKS, SPOOL_FILL, SPOOL_AGE, refused
    )


def overdrawn(metrics: Metrics) -> Told:
    """Of what a tenant may not send now."""
    return Told(metrics.counter(HELD), metrics.counter(HELD_DAMAGED), HELD_CALLBACKS, HELD_FILL, HELD_AGE)


class SpoolFullError(BackhaulError):
    """Neither JetStream nor the spool takes it. Never a 4xx: providers drop what is answered with one."""

    def __init__(self) -> None:
        super().__init__(
            Code.UNAVAILABLE,
            "The callback log does not store, and what is kept until it does is full.",
            fix="Repeat the request after the time in Retry-After.",
            retry_after_s=_RETRY_AFTER_S,
        )


class _Waiting(NamedTuple):
    row: Kept
    future: asyncio.Future[None]


class Spool:
    """See the module."""

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        metrics: Metrics,
        told_by: Callable[[Metrics], Told] = kept,
        *,
        by_subject: bool = False,
    ) -> None:
        """``max_bytes`` is what all that is in it may take; ``by_subject`` is a ``SpoolFile``'s."""
        self._directory = directory
        self._by_subject = by_subject
        self.shares = Shares(max_bytes)
        self.some = asyncio.Event()
        """Set while there is anything in it."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._loop = asyncio.get_running_loop()
        self._file: SpoolFile | None = None
        self._waiting: list[_Waiting] = []
        self._being_written: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._log = get_logger(component="spool")
        self._full, self._failed = Repeated("spool_full"), Repeated("spool_not_written")
        told = told_by(metrics)
        self._taken, self._damaged, self._refused = told.taken, told.damaged, told.refused
        metrics.gauge(told.callbacks, lambda: float(self.shares.all.callbacks))
        metrics.gauge(told.fill, lambda: self.shares.fill)
        metrics.gauge(told.age, lambda: time.time() - since / 1e6 if (since := self.shares.since_us) else 0.0)

    def of(self, path: str) -> Holding:
        """What it has under a queue path's key."""
        return self.shares.of(path)

    async def check(self, path: str = "") -> None:
        """Return when it takes a usual callback under a queue path's key, or of whoever has nothing in it; UNAVAILABLE
        otherwise."""
        if self._failed.times:
            raise BackhaulError(Code.UNAVAILABLE, "The disk of the spool does not take what is written.")
        if not self.shares.admits(path, _USUAL_BYTES):
            raise SpoolFullError

    def open(self) -> None:
        """Take the directory, and what lies there from before: before anything else is asked of it, and it may take as
        long as the disk does. Raises SpoolTakenError, and what TROUBLE has."""
        self._opened()

    async def close(self) -> None:
        """Give the directory back, when all that waits is written. What is in it stays."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self._file is not None:
            await self._in_thread(self._file.close)
            self._file = None
        self._thread.shutdown()

    async def put(self, subject: str, callback_id: str, encoded: bytes, traceparent: str) -> None:
        """Return when the callback lies on the disk. SpoolFullError, and UNAVAILABLE where the disk does not take it.

        What nobody waits for any more is kept all the same.
        """
        row = Kept(subject, callback_id, traceparent, time.time_ns() // 1000, encoded)
        if not self.shares.admits(path_in(subject), row.size):
            if self._refused is not None:
                self._refused.add()
            whose = "all" if not self.shares.admits("", row.size) else path_in(subject)
            self._full.warning("full", queue_path=whose)
            raise SpoolFullError
        # Counted before it is written: what is being written takes room as well.
        self.shares.add(row)
        waiting = _Waiting(row, self._loop.create_future())
        self._waiting.append(waiting)
        if self._writing is None:
            self._writing = self._loop.create_task(self._write(), name="spool_write")
        await waiting.future

    async def after(self, position: int, rows: int, most_bytes: int, subject: str = "") -> Mapping[int, Kept]:
        """See ``SpoolFile.after``. What is damaged is told of, removed and left out. UNAVAILABLE."""
        found = await self._do(lambda file: file.after(position, rows, most_bytes, subject))
        if found.damaged:
            await self._do(lambda file: file.remove(found.damaged))
            self._tell_of_damage(len(found.damaged), "rows")
            self._count(await self._do(SpoolFile.held))
        return found.rows

    async def remove(self, rows: Mapping[int, Kept]) -> None:
        """Forget ``rows``, by their positions. UNAVAILABLE."""
        if rows:
            await self._do(lambda file: file.remove(rows))
            for row in rows.values():
                self.shares.take(row)
            self._full.over()
        if not self.shares.all.callbacks:
            self.some.clear()
            await self._do(SpoolFile.shrink)

    async def _write(self) -> None:
        """Write what waits, all that has come meanwhile in one transaction, until nothing does."""
        while self._waiting:
            batch = self._being_written = self._waiting[:_MOST_AT_ONCE]
            del self._waiting[:_MOST_AT_ONCE]
            rows = [one.row for one in batch]
            error: BackhaulError | None = None
            try:
                await self._do(partial(SpoolFile.append, rows=rows))
            except BackhaulError as exc:
                error = exc
                for row in rows:
                    self.shares.take(row)
            else:
                self._taken.add(amount=len(rows))
                self.some.set()
            self._being_written = []
            for one in batch:
                if not one.future.done():
                    one.future.set_exception(error) if error is not None else one.future.set_result(None)
        self._writing = None

    async def _do(self, work: Callable[[SpoolFile], T]) -> T:
        """What ``work`` gives for the file; UNAVAILABLE, and a line in the log, where the disk has trouble."""
        try:
            done = await self._in_thread(lambda: work(self._file or self._opened()))
        except TROUBLE as exc:
            self._failed.error(repr(exc))
            if is_damage(exc) and self._file is not None:
                # The next one finds a new file, with what can be read of this one.
                file, self._file = self._file, None
                await self._in_thread(file.close)
            raise unavailable("The callback log") from exc
        self._failed.over()
        return done

    def _opened(self) -> SpoolFile:
        """The file; where what lies there is no database any more, a new one with what can be read of it."""
        try:
            file = SpoolFile(self._directory, by_subject=self._by_subject)
            try:
                held = file.held()
            except BaseException:
                file.close()
                raise
        except TROUBLE as exc:
            if not is_damage(exc):
                raise
            file, saved = rescued(self._directory, by_subject=self._by_subject)
            held = file.held()
            self._loop.call_soon_threadsafe(self._tell_of_damage, 1, "file", saved)
        self._file = file
        self._loop.call_soon_threadsafe(self._count, held)
        return file

    def _count(self, held: Iterable[tuple[str, int, int, int]]) -> None:
        self.shares.count(held)
        if self.shares.all.callbacks:
            self.some.set()
        else:
            self.some.clear()
        for one in (*self._being_written, *self._waiting):
            self.shares.add(one.row)

    def _tell_of_damage(self, amount: int, what: str, saved: int = 0) -> None:
        self._damaged.add(what, amount=amount)
        self._log.error("spool_damaged", what=what, damaged=amount, saved=saved)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._thread, work)
