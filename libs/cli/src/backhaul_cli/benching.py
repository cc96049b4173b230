"""A measurement from outside: samples posted at their due times, and how long it takes until each is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx
from backhaul_client import BackhaulError

from backhaul_cli.measured import HELD, Measured

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
_WATCHED_S = 0.5
_STATUS_S = 5.0
_LIMITED = 429
_SHUT = (401, 403, 404)
"""What is answered so is answered so each time: the credential, its scope, or the channel has gone."""


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
                # What one of them fails with was raised above, if it matters.
                await asyncio.gather(*tasks, measuring, return_exceptions=True)
                self._progress("")

    async def _measure(self) -> None:
        # What is sent before the stream is there may not be told in it.
        await self._follows.wait()
        before = await self._held()
        if before is not None:
            self.measured.held = 0
        began = time.perf_counter()
        try:
            async with self._watching(before), _Connections() as connections:
                await self._send_all(connections, began)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._plan.wait_s):
                    while self.measured.due:
                        self._changed.clear()
                        await self._changed.wait()
        finally:
            self.measured.ended_at = time.perf_counter()
            self.measured.elapsed_s = self.measured.ended_at - began

    @asynccontextmanager
    async def _watching(self, before: int | None) -> AsyncIterator[None]:
        """Looks at what is held, until the end and once more."""
        if before is None:
            yield
            return
        watch = asyncio.create_task(self._watch(before))
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        await self._look(before)

    async def _watch(self, before: int) -> None:
        while True:
            await self._look(before)
            if self.measured.held and not self._plan.over_the_limit:
                self.measured.ended_by = self.measured.ended_by or HELD
            await asyncio.sleep(_WATCHED_S)

    async def _look(self, before: int) -> None:
        now = await self._held()
        if now is not None and now > before:
            self.measured.held = max(self.measured.held or 0, now - before)

    async def _held(self) -> int | None:
        """None where nobody says, or not now: what is measured does not hang on it."""
        with suppress(BackhaulError, TimeoutError):
            async with asyncio.timeout(_STATUS_S):
                held = (await self._client.channel_status(self._plan.channel)).parts.held
                return None if held is None else held.callbacks
        return None

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
