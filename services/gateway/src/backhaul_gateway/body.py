"""Reading a body that may be too large, too slow, or never whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from backhaul_common.errors import BackhaulError, Code

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class SlowError(Exception):
    """The body did not arrive in time."""


class _BodyDeadline:
    """Ends the task that made it, when told to; tells its own cancellation from the server's."""

    __slots__ = ("_expired", "_task")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._expired = False

    def expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def explain(self) -> None:
        """Raises SlowError if the cancellation came from here."""
        if self._expired and self._task is not None:
            self._task.uncancel()
            raise SlowError


class GoneError(Exception):
    """The provider went away before its request was complete; nobody is there to be answered."""


async def read_body(named: Mapping[bytes, bytes], receive: Receive, limit: int, timeout_s: float) -> bytes:
    """The body, at most ``limit`` bytes. TOO_LARGE, SlowError after ``timeout_s``, GoneError when it ends early."""
    declared = named.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    # asyncio.timeout would cost as much as the verification; a bare timer costs an eighth of it.
    deadline = _BodyDeadline()
    timer = asyncio.get_running_loop().call_later(timeout_s, deadline.expire)
    try:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GoneError
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            body = await _rest(body, receive, limit)
    except asyncio.CancelledError:
        deadline.explain()
        raise
    finally:
        timer.cancel()
    if len(body) > limit:
        raise _too_large(limit)
    return body


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
