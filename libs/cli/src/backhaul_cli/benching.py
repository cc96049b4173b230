"""A measurement from outside: samples posted at their due times, and how long it takes until each is told."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    from backhaul_client import AsyncTenantClient
    from backhaul_samples import Post

    from backhaul_cli.sampling import Address

_TIMEOUT_S = 30.0
MAX_CONNECTIONS = 128
"""Open at once. Whoever waits for one has been due all the while, and that counts."""
BACKLOG_S = 10.0
"""Whoever waits longer than that for a connection is never sent: what did not answer for long is not flooded at once
when it is there again, nor followed for hours where it is not."""
_SHOWN_S = 0.5
_LIMITED = 429
_SHUT = (401, 403, 404)
"""What is answered so is answered so each time: the credential, its scope, or the channel has gone."""
_PARTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done: so many callbacks a second for so many seconds; then ``wait_s`` for what was not told yet. ``post``
    makes another sample each time. Over the tenant's limit it ends, unless ``over_the_limit``; and where nothing is let
    in."""

    rate: int
    seconds: int
    channel: str
    at: Address
    post: Callable[[], Post]
    wait_s: float
    over_the_limit: bool

    @property
    def count(self) -> int:
        """How many callbacks."""
        return self.rate * self.seconds


@dataclass
class Measured:
    """What was measured so far, in ms from the time at which each callback was due."""

    came_due: int = 0
    sent: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    """By status, or by what went wrong where nothing was answered."""
    answered_ms: list[float] = field(default_factory=list)
    """Of those that were answered with success."""
    unanswered: dict[int, float] = field(default_factory=dict)
    """When each of those was due that has no answer, be it that it was never sent, by its number."""
    late_ms: float = 0.0
    """The longest that this machine itself was behind when it began a call: that much is not Backhaul's."""
    ended_by: str = ""
    """The status that ended it before all was sent."""
    ended_at: float = 0.0
    elapsed_s: float = 0.0
    told_ms: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    """Each time that the stream may have left events out, in its words: they are never told."""
    due: dict[str, float] = field(default_factory=dict)
    """When each callback that was taken and is not told yet was due, by its id."""
    _told: dict[str, float] = field(default_factory=dict)
    """When an event of any other callback was told: its answer may come later."""

    @property
    def never_sent(self) -> int:
        """How many were due, and waited for a connection for too long, or until it ended."""
        return self.came_due - self.sent

    @property
    def unanswered_ms(self) -> list[float]:
        """How long, at least, it took each that was not answered."""
        return [(self.ended_at - due) * 1000 for due in self.unanswered.values()]

    @property
    def untold_ms(self) -> list[float]:
        """How long, at least, it took until each was told that was not, or of which nobody knows."""
        return [*((self.ended_at - due) * 1000 for due in self.due.values()), *self.unanswered_ms]

    def taken(self, callback_id: str, due: float) -> None:
        """Such a callback was answered with success."""
        if (told := self._told.pop(callback_id, None)) is not None:
            self.told_ms.append((told - due) * 1000)
        else:
            self.due[callback_id] = due

    def told(self, callback_id: str, at: float) -> None:
        """An event of such a callback was told."""
        if (due := self.due.pop(callback_id, None)) is not None:
            self.told_ms.append((at - due) * 1000)
        else:
            self._told.setdefault(callback_id, at)


def percentiles(found: Sequence[float], never_came: Sequence[float] = ()) -> dict[str, float | None]:
    """``p50``, ``p90``, ``p99`` and ``max`` by nearest rank, behind which ``never_came`` stands; None where that has
    the rank, or nothing was measured."""
    ranked = sorted(found)
    number = len(found) + len(never_came)
    ranks = {name: math.ceil(part * number) - 1 for name, part in _PARTS.items()}
    return {name: round(ranked[rank], 1) if 0 <= rank < len(ranked) else None for name, rank in ranks.items()}


class _Connections:
    """As many as are used at once, up to the most. Each is a client of its own: a pool of httpx looks at all of its
    connections, by a system call, whenever one is taken."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: list[httpx.AsyncClient] = []
        self._all = AsyncExitStack()
        self._tls = httpx.create_ssl_context()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._all.aclose()

    @asynccontextmanager
    async def one(self, within_s: float) -> AsyncIterator[httpx.AsyncClient | None]:
        """The one that was used last, when there is one; None where none is free in time."""
        try:
            async with asyncio.timeout(within_s):
                await self._room.acquire()
        except TimeoutError:
            yield None
            return
        try:
            if not self._idle:
                self._idle.append(await self._all.enter_async_context(self._new()))
            client = self._idle.pop()
            try:
                yield client
            finally:
                self._idle.append(client)
        finally:
            self._room.release()

    def _new(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=_TIMEOUT_S, verify=self._tls)


class Bench:
    """One measurement. ``measured`` is there however it ends."""

    def __init__(self, plan: Plan, client: AsyncTenantClient, progress: Callable[[str], None]) -> None:
        self.measured = Measured()
        self._plan = plan
        self._client = client
        self._progress = progress
        self._follows = asyncio.Event()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """All of it. Raises what the stream of events is refused with."""
        async with self._client:
            tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._show())]
            measuring = asyncio.create_task(self._measure())
            try:
                # The stream ends by itself only where it is refused.
                await asyncio.wait([measuring, tasks[0]], return_when=asyncio.FIRST_COMPLETED)
                if not measuring.done():
                    await tasks[0]
                await measuring
            finally:
                for task in (*tasks, measuring):
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await task
                self._progress("")

    async def _measure(self) -> None:
        # What is sent before the stream is there may not be told in it.
        await self._follows.wait()
        began = time.perf_counter()
        try:
            async with _Connections() as connections:
                await self._send_all(connections, began)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._plan.wait_s):
                    while self.measured.due:
                        self._changed.clear()
                        await self._changed.wait()
        finally:
            self.measured.ended_at = time.perf_counter()
            self.measured.elapsed_s = self.measured.ended_at - began

    async def _send_all(self, connections: _Connections, began: float) -> None:
        async with asyncio.TaskGroup() as sending:
            for number in range(self._plan.count):
                due = began + number / self._plan.rate
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                if self.measured.ended_by:
                    return
                self.measured.late_ms = max(self.measured.late_ms, (time.perf_counter() - due) * 1000)
                self.measured.came_due += 1
                self.measured.unanswered[number] = due
                sending.create_task(self._send(connections, number, due))

    async def _send(self, connections: _Connections, number: int, due: float) -> None:
        async with connections.one(due + BACKLOG_S - time.perf_counter()) as http:
            # It may have ended while this one waited.
            if http is None or self.measured.ended_by:
                return
            self.measured.sent += 1
            # Signed now: what is signed with a time would be too old where it had to wait.
            post = self._plan.post()
            headers = {**post.headers, **self._plan.at.headers}
            try:
                answer = await http.post(self._plan.at.posted, content=post.body, headers=headers)
            except httpx.TransportError as exc:
                self.measured.answers[type(exc).__name__] += 1
                return
            # Before whoever waits for the connection has it.
            limited = answer.status_code == _LIMITED and not self._plan.over_the_limit
            if limited or answer.status_code in _SHUT:
                self.measured.ended_by = str(answer.status_code)
        answered = time.perf_counter()
        del self.measured.unanswered[number]
        self.measured.answers[str(answer.status_code)] += 1
        if not answer.is_success:
            return
        self.measured.answered_ms.append((answered - due) * 1000)
        if callback_id := answer.headers.get("backhaul-callback-id", ""):
            self.measured.taken(callback_id, due)
            self._changed.set()

    async def _follow(self) -> None:
        async with aclosing(self._events()) as events:
            async for one in events:
                self._follows.set()
                if one.missed:
                    self.measured.missed.append(one.missed)
                if one.event is not None:
                    self.measured.told(one.event.callback_id, time.perf_counter())
                    self._changed.set()

    def _events(self) -> Any:
        return self._client.follow_events(channel=self._plan.channel, positions=True)

    async def _show(self) -> None:
        while True:
            found = self.measured
            done = f"{found.answers.total()} answered, {len(found.told_ms)} told"
            self._progress(f"{found.sent} of {self._plan.count} sent, {done}")
            await asyncio.sleep(_SHOWN_S)
