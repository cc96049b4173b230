"""One lane of commits for all that this process writes: facts that come while a commit is under way share the next.

No timer delays anything. A commit costs a round of the database's disk, however many facts are in it, and of two
commits at once one would have to begin anew. The next one is under way while the copies take over the one before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from backhaul_common.errors import unavailable
from backhaul_common.mongo import is_transient

from backhaul_suppression.documents import rows_of
from backhaul_suppression.model import Fact
from backhaul_suppression.ports import Barrier, Recorded
from backhaul_suppression.store import Committed

MAX_FACTS = 500
MAX_BYTES = 4 << 20
"""What one commit takes. Whoever has more gives it in parts, each of which is a commit: an opt-out waits for one of
them, here or in another copy. Four times as many at once would cost as much for each."""

MANY = 200
"""Whoever has more facts than this is let in alone, and only every other time: no opt-out waits for a second list."""

MAX_WAITING_BYTES = 64 << 20
"""What may wait. Beyond, whoever comes is told to come again."""

_FACT_BYTES = 500
"""What a fact takes beside its texts, about."""


class Store(Protocol):
    """Where facts are kept: see ``MongoSuppressions``."""

    async def commit(self, facts: Sequence[Fact]) -> Committed:
        """Store what is new of ``facts``, and what follows from it."""
        ...


class _Request(NamedTuple):
    facts: Sequence[Fact]
    size: int
    done: asyncio.Future[Committed]


class Lane:
    """``Facts``, over a store. All methods belong to one event loop."""

    def __init__(self, store: Store, barrier: Barrier) -> None:
        self._store = store
        self._barrier = barrier
        self._few: deque[_Request] = deque()
        self._many: deque[_Request] = deque()
        self._waiting_bytes = 0
        self._turn_of_many = False
        self._pumping: asyncio.Task[None] | None = None
        self._passing: dict[int, asyncio.Task[None]] = {}

    async def commit(self, facts: Sequence[Fact]) -> Recorded:
        """See ``Facts``. Of what is more than one commit takes, the first part may be stored and the next refused."""
        done = [await self._commit(part, size) for part, size in _parts(facts)]
        committed = Committed()
        for one in done:
            committed = committed.and_then(one)
        return _of(facts, committed)

    async def record(self, facts: Sequence[Fact]) -> Recorded:
        """See ``Facts``."""
        recorded = await self.commit(facts)
        await self._passed(recorded.seq)
        return recorded

    async def close(self) -> None:
        """End what is under way, and refuse what waits."""
        tasks = [task for task in (self._pumping, *self._passing.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for request in (*self._few, *self._many):
            _refuse(request, unavailable("Suppression"))
        self._few.clear()
        self._many.clear()

    async def _commit(self, facts: Sequence[Fact], size: int) -> Committed:
        if self._waiting_bytes + size > MAX_WAITING_BYTES and self._waiting_bytes:
            raise unavailable("Suppression", retry_after_s=1)
        request = _Request(facts, size, asyncio.get_running_loop().create_future())
        (self._many if len(facts) > MANY else self._few).append(request)
        self._waiting_bytes += size
        if self._pumping is None or self._pumping.done():
            self._pumping = asyncio.create_task(self._pump(), name="lane")
        return await request.done

    async def _pump(self) -> None:
        while self._few or self._many:
            requests = self._next()
            try:
                await self._commit_all([one for one in requests if not one.done.done()])
            finally:
                for one in requests:
                    _refuse(one, unavailable("Suppression"))

    def _next(self) -> list[_Request]:
        """Who shares the next commit."""
        few = self._few and not (self._many and self._turn_of_many)
        self._turn_of_many = bool(few)
        if not few:
            return [self._leave(self._many)]
        requests: list[_Request] = []
        facts = size = 0
        while self._few and (
            not requests or (facts + len(self._few[0].facts) <= MAX_FACTS and size + self._few[0].size <= MAX_BYTES)
        ):
            request = self._leave(self._few)
            requests.append(request)
            facts += len(request.facts)
            size += request.size
        return requests

    def _leave(self, queue: deque[_Request]) -> _Request:
        request = queue.popleft()
        self._waiting_bytes -= request.size
        return request

    async def _commit_all(self, requests: Sequence[_Request]) -> None:
        """Commit what they ask for together; where that is refused, find by halves whose it is."""
        if not requests:
            return
        try:
            committed = await self._store.commit([fact for request in requests for fact in request.facts])
        except Exception as exc:  # noqa: BLE001  # whoever waits for it is told
            if len(requests) == 1 or is_transient(exc):
                for request in requests:
                    _refuse(request, exc)
            else:
                middle = len(requests) // 2
                await self._commit_all(requests[:middle])
                await self._commit_all(requests[middle:])
        else:
            for request in requests:
                if not request.done.done():
                    request.done.set_result(committed)

    async def _passed(self, seq: int) -> None:
        """``Barrier.passed``, once for all that wait for the same."""
        task = self._passing.get(seq)
        if task is None:
            task = self._passing[seq] = asyncio.create_task(self._barrier.passed(seq), name="barrier")
            task.add_done_callback(lambda done: self._over(seq, done))
        await asyncio.shield(task)

    def _over(self, seq: int, task: asyncio.Task[None]) -> None:
        del self._passing[seq]
        if not task.cancelled():
            task.exception()  # Everybody who waited may be gone, and asyncio would complain.


def _refuse(request: _Request, exc: Exception) -> None:
    if not request.done.done():
        request.done.set_exception(exc)


def _parts(facts: Sequence[Fact]) -> list[tuple[list[Fact], int]]:
    """``facts`` in parts that one commit takes, each with its size."""
    parts: list[tuple[list[Fact], int]] = []
    part: list[Fact] = []
    total = 0
    for fact in facts:
        size = _size(fact)
        if part and (len(part) == MAX_FACTS or total + size > MAX_BYTES):
            parts.append((part, total))
            part, total = [], 0
        part.append(fact)
        total += size
    if part:
        parts.append((part, total))
    return parts


def _size(fact: Fact) -> int:
    texts = len(fact.address.text) + len(fact.message_id) + len(fact.word) + len(fact.note) + len(fact.traceparent)
    if fact.evidence is not None:
        texts += len(fact.evidence.reference) + len(fact.evidence.text)
    return _FACT_BYTES + texts + 100 * len(fact.targets)


def _of(facts: Sequence[Fact], committed: Committed) -> Recorded:
    """What ``committed`` says about ``facts``, and nothing about what others brought."""
    ids = {fact.id for fact in facts}
    kept = {fact.id: committed.kept[fact.id] for fact in facts if fact.id in committed.kept}
    wanted = {row_id for fact in (*facts, *kept.values()) for row_id in rows_of(fact)}
    return Recorded(
        changes=[change for change in committed.changes if change.fact.id in ids],
        rows={row_id: committed.rows[row_id] for row_id in wanted if row_id in committed.rows},
        existing={fact.id: kept[fact.id] for fact in facts if fact.id in kept and kept[fact.id] is not fact},
        seq=committed.seq,
    )
