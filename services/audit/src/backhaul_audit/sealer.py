"""From a closed pile to a sealed file: it is recorded, shaped, uploaded, and sealed in the order of its pile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from backhaul_common.logs import get_logger
from backhaul_common.pauses import pauses
from backhaul_common.tracing import Tracing

from backhaul_audit.asking import Asking
from backhaul_audit.books import Books, Sealing
from backhaul_audit.counts import Counts
from backhaul_audit.model import Content, Plan
from backhaul_audit.piles import Piles
from backhaul_audit.plans import Ask, Closed, new_plan
from backhaul_audit.shaping import Made, shape
from backhaul_audit.uploading import LONGEST_PAUSE_S, OWN_LONGEST_PAUSE_S, ElsewhereError, HomelessError, Uploads

RECORDED_AT_ONCE = 1000
"""Plans in one transaction: the files of all channels may come of age at the same moment."""

SEALED_AT_ONCE = 32
"""Files that one transaction seals."""

MAX_SEALED_IDS = 8 << 20
"""Bytes of events' ids that one transaction stores, about: a file's are 1 MB by default."""

_SHAPED_AT_ONCE = 2


class ReadAgainError(Exception):
    """What is known here is not enough: everything is read again from the position that is stored."""


class Sealer:
    """Sees to everything that ``piles`` have closed, for as long as this copy owns the position.

    ``read`` tells the last position that was taken; ``changed`` is called whenever there is more room.
    """

    def __init__(
        self,
        piles: Piles,
        books: Books,
        uploads: Uploads,
        asking: Asking,
        counts: Counts,
        tracing: Tracing,
        new_id: Callable[[], str],
        *,
        read: Callable[[], int],
        changed: Callable[[], None],
    ) -> None:
        self._piles = piles
        self._books = books
        self._uploads = uploads
        self._asking = asking
        self._tracing = tracing
        self._new_id = new_id
        self._read = read
        self._changed = changed
        self._more = asyncio.Event()
        self._in_place = asyncio.Event()
        self._shaping = asyncio.Semaphore(_SHAPED_AT_ONCE)
        self._losing = 0
        self._all_lost = asyncio.Event()
        self._uploaded: dict[int, Sealing] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._events = counts.events
        self._files = counts.files
        self._bytes = counts.bytes
        self._lost = counts.lost
        self._log = get_logger(component="sealer")

    def look(self) -> None:
        """Something may have been closed."""
        self._more.set()

    def drop(self, closed: Sequence[Closed]) -> None:
        """Nothing more is to be made of these."""
        for one in closed:
            self._uploaded.pop(id(one), None)
            task = self._tasks.pop(id(one), None)
            if task is not None:
                task.cancel()

    async def begin(self, group: asyncio.TaskGroup) -> None:
        """Record what is closed, and have each file made by a task of ``group``; until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            fresh = self._piles.closed()
            for start in range(0, len(fresh), RECORDED_AT_ONCE):
                await self._record(group, fresh[start : start + RECORDED_AT_ONCE])

    async def _record(self, group: asyncio.TaskGroup, fresh: Sequence[Closed]) -> None:
        plans = [one.plan for one in fresh if not one.recorded]
        if plans:
            self._forget(await self._books.record(plans, self._piles.floor(self._read())))
        for one in fresh:
            if any(one is kept for kept in self._piles.in_line(one.plan.pile)):
                one.recorded = True
                task = group.create_task(self._make(one), name=f"file_{one.plan.id}")
                self._tasks[id(one)] = task

    async def seal(self) -> None:
        """Seal what is in its place, until cancelled."""
        while True:
            await self._in_place.wait()
            self._in_place.clear()
            while some := self._next():
                closed = [one.closed for one in some]
                floor = self._piles.floor(self._read(), without=closed)
                gone = await self._books.seal(some, floor)
                for one in some:
                    self._uploaded.pop(id(one.closed), None)
                    self._tasks.pop(id(one.closed), None)
                    self._piles.sealed(one.closed)
                    if one.closed.plan not in gone:
                        self._tell(one)
                self._forget(gone)
                self._changed()

    def _next(self) -> Sequence[Sealing]:
        """What can be sealed now: of each pile in order."""
        some: list[Sealing] = []
        size = 0
        for pile in {one.closed.plan.pile for one in self._uploaded.values()}:
            for closed in self._piles.in_line(pile):
                ready = self._uploaded.get(id(closed))
                if ready is None:
                    break
                size += len(closed.content.ids)
                if some and (len(some) >= SEALED_AT_ONCE or size > MAX_SEALED_IDS):
                    return some
                some.append(ready)
        return some

    async def _make(self, closed: Closed) -> None:
        if closed.lost:
            content = await self._rescue(closed)
        else:
            async with self._shaping:
                made = await asyncio.to_thread(shape, closed.content, closed.plan.shape)
            closed.content.pieces.clear()  # What was made of them is here now.
            content = await self._put(closed, made)
        if content is not None:
            self._uploaded[id(closed)] = Sealing(closed, content)
            self._in_place.set()

    async def _put(self, closed: Closed, made: Made) -> Content | None:
        waits = pauses(1.0, OWN_LONGEST_PAUSE_S if closed.plan.destination else LONGEST_PAUSE_S)
        tries = 0
        while True:
            plan = closed.plan
            links = closed.content.traceparents
            try:
                with self._tracing.span(
                    "audit.file",
                    parent=links[0] if links else None,
                    links=links[1:],
                    attributes={"backhaul.audit.file": plan.id, "backhaul.events": made.content.events},
                ):
                    return await self._uploads.put(plan, made)
            except ElsewhereError as exc:
                reason = str(exc)
                if tries:
                    await self._uploads.refused(plan, reason, next(waits))
                ask = Ask(plan.tenant_id, plan.destination, self._uploads.bucket_of(plan), plan.shape)
            except HomelessError as exc:
                now = self._asking.now(plan.pile)
                reason = str(exc)
                if now is None or not now.bucket:
                    await self._lose(closed, reason, done=True)
                    return None
                ask = replace(now, shape=plan.shape)
            other = new_plan(
                plan.pile,
                ask,
                closed.content.named_at_us or made.content.first_at_us,
                plan.first,
                plan.last,
                self._new_id(),
            )
            self._log.warning("file_made_elsewhere", key=plan.key, instead=other.key, error=reason)
            if not await self._books.replan(plan, other):
                self._forget([plan])
                return None
            closed.plan = other
            tries += 1

    async def _rescue(self, closed: Closed) -> Content | None:
        """EVENTS no longer has what the file is of: it is there already, or will never be."""
        try:
            found = await self._uploads.look(closed.plan)
        except (ElsewhereError, HomelessError) as exc:
            self._log.warning("file_not_found", key=closed.plan.key, error=str(exc))
            found = None
        if found is None:
            self._losing += 1
            self._all_lost.clear()
            try:
                await self._lose(closed, "EVENTS no longer has its events", done=False)
            finally:
                self._losing -= 1
                if not self._losing:
                    self._all_lost.set()
            # Others that are stored as lost by now would never be told of.
            await self._all_lost.wait()
            raise ReadAgainError  # What EVENTS has left of them is filed anew.
        content, inside = found
        if inside is not None:
            closed.content = inside
        self._log.info("file_rescued", key=closed.plan.key, events=content.events, known=inside is not None)
        return content

    async def _lose(self, closed: Closed, reason: str, *, done: bool) -> None:
        plan = closed.plan
        await self._books.give_up(plan, reason, self._books.floor, done=done)
        self._lost.add(plan.tenant_id, plan.pile.channel)
        self._log.error(
            "file_lost",
            tenant=plan.tenant_id,
            channel=plan.pile.channel,
            key=plan.key,
            first=plan.first,
            last=plan.last,
            error=reason,
        )
        if done:
            self._piles.sealed(closed)
            self._changed()

    def _forget(self, gone: Iterable[Plan]) -> None:
        for pile in {plan.pile for plan in gone}:
            self.drop(self._piles.forget(pile))

    def _tell(self, one: Sealing) -> None:
        plan, content = one.closed.plan, one.content
        labels = plan.tenant_id, plan.pile.channel
        self._events.add(*labels, amount=content.events)
        self._files.add(*labels)
        self._bytes.add(*labels, amount=content.bytes)
        self._log.info(
            "file_sealed",
            tenant=plan.tenant_id,
            channel=plan.pile.channel,
            chain=plan.pile.chain.value,
            key=plan.key,
            events=content.events,
            bytes=content.bytes,
            first=plan.first,
            last=plan.last,
        )
