"""Reading a body that may be too large, too slow, or never whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from backhaul_common.errors import BackhaulError, Code

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class SlowError(Exception):
    """The body did not arrive in time."""


class GoneError(Exception):
    """The provider went away before its request was complete; nobody is there to be answered."""


class BodyReader:
    """Reads bodies, each within the same time.

    One timer looks after all of them a few times within that time: a timer for each body, or ``asyncio.timeout``, costs
    as much as checking a signature.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, named: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
        """The body, at most ``limit`` bytes. TOO_LARGE, SlowError when it takes too long, GoneError when it ends."""
        declared = named.get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise _too_large(limit)
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101  # the server runs each request in a task
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s / 4, self._look)
        try:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise GoneError
            body: bytes = message.get("body", b"")
            if message.get("more_body", False):
                body = await _rest(body, receive, limit)
        except asyncio.CancelledError:
            if task not in self._expired:
                raise
            self._expired.discard(task)
            task.uncancel()
            raise SlowError from None
        finally:
            del self._since[task]
        if len(body) > limit:
            raise _too_large(limit)
        return body

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        latest = loop.time() - self._timeout_s
        for task in [task for task, since in self._since.items() if since <= latest]:
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
        self._timer = loop.call_later(self._timeout_s / 4, self._look) if self._since else None


async def _rest(first: bytes, receive: Receive, limit: int) -> bytes:
    parts = [first]
    size = len(first)
    while size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GoneError
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if not message.get("more_body", False):
            return b"".join(parts)
    raise _too_large(limit)


def _too_large(limit: int) -> BackhaulError:
    return BackhaulError(
        Code.TOO_LARGE,
        f"The body is larger than the tenant's limit of {limit} bytes.",
        field="body",
        fix="Send less at once, or ask the platform team for a higher max_body_bytes.",
    )
