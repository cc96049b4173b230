"""Reading a body that may be too large, too slow, or never whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from backhaul_common.errors import BackhaulError, Code, unavailable

from backhaul_gateway.admission.limits import MemoryBudget

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class SlowError(Exception):
    """The body did not arrive in time."""


class GoneError(Exception):
    """The provider went away before its request was complete; nobody is there to be answered."""


class BodyReader:
    """Reads bodies, each within the same time, and all within a budget of memory and of connections.

    One timer looks after all of them a few times within that time: a timer for each body, or ``asyncio.timeout``, costs
    as much as checking a signature.
    """

    def __init__(self, timeout_s: float, budget: MemoryBudget, most: int) -> None:
        """``most``: how many there may be at once, as each takes up a connection. A tenant may have as many as are then
        still free: half of them when it is alone."""
        self._timeout_s = timeout_s
        self._budget = budget
        self._most = most
        self._since: dict[asyncio.Task[Any], tuple[float, str]] = {}
        """When each began, and whose it is."""
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, named: Mapping[bytes, bytes], receive: Receive, tenant_id: str, limit: int) -> bytes:
        """The body, at most ``limit`` bytes, which the caller must give back to the budget.

        TOO_LARGE, UNAVAILABLE when the tenant or all together have too much or too many, SlowError when it takes too
        long, GoneError when it ends; nothing is to be given back then. INTERNAL when the server says that the body is
        whole and it is not as long as the request says: what is not there must not be answered for.
        """
        length = named.get(b"content-length", b"")
        declared = int(length[:20]) if length.isdigit() else -1
        if declared > limit:
            raise _too_large(limit)
        if 2 * len(self._since) >= self._most:
            self._refuse_crowding(tenant_id)
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101  # the server runs each request in a task
        self._since[task] = loop.time(), tenant_id
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s / 4, self._look)
        try:
            # Not by _next_part: nearly every body is whole at once, and a call saved here is saved for all.
            message = await receive()
            if message["type"] == "http.disconnect":
                raise GoneError
            body: bytes = message.get("body", b"")
            if message.get("more_body", False):
                return await self._rest(body, receive, tenant_id, limit, declared)
        except asyncio.CancelledError:
            if task not in self._expired:
                raise
            self._expired.discard(task)
            task.uncancel()
            raise SlowError from None
        finally:
            del self._since[task]
        if len(body) != declared:
            _require_whole(len(body), declared)
        self._take(tenant_id, len(body), len(body), limit)
        return body

    async def _rest(self, first: bytes, receive: Receive, tenant_id: str, limit: int, declared: int) -> bytes:
        """A body that comes in parts, each counted when it is there: many that stay unfinished fill the memory too."""
        parts: list[bytes] = []
        size = 0
        part, more = first, True
        try:
            while True:
                self._take(tenant_id, len(part), size + len(part), limit)
                parts.append(part)
                size += len(part)
                if not more:
                    _require_whole(size, declared)
                    return b"".join(parts)
                part, more = await _next_part(receive)
        except BaseException:
            if size:
                self._budget.give_back(tenant_id, size)
            raise

    def _take(self, tenant_id: str, part: int, size: int, limit: int) -> None:
        if size > limit:
            raise _too_large(limit)
        if part and not self._budget.take(tenant_id, part):
            raise unavailable("The callback log", retry_after_s=2)

    def _refuse_crowding(self, tenant_id: str) -> None:
        # Counted here alone: of the usual body, which is whole at once, nobody has to keep count.
        own = sum(whose == tenant_id for _, whose in self._since.values())
        if own >= self._most - len(self._since):
            raise BackhaulError(
                Code.UNAVAILABLE,
                f"{own} bodies of the tenant's are under way already.",
                fix="Send each body at once, over fewer connections.",
                retry_after_s=2,
            )

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        latest = loop.time() - self._timeout_s
        for task in [task for task, (since, _) in self._since.items() if since <= latest]:
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
        self._timer = loop.call_later(self._timeout_s / 4, self._look) if self._since else None


async def _next_part(receive: Receive) -> tuple[bytes, bool]:
    """What has arrived, and whether more is to come."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise GoneError
    return message.get("body", b""), message.get("more_body", False)


def _require_whole(size: int, declared: int) -> None:
    """``declared`` is negative where the request says no length."""
    if size != declared >= 0:
        raise BackhaulError(Code.INTERNAL, "The body is not as long as Content-Length says. Repeat the request.")


def _too_large(limit: int) -> BackhaulError:
    return BackhaulError(
        Code.TOO_LARGE,
        f"The body is larger than the tenant's limit of {limit} bytes.",
        field="body",
        fix="Send less at once, or ask the platform team for a higher max_body_bytes.",
    )
