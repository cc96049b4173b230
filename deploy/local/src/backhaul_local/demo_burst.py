"""A short burst over keep-alive connections, and what it took.

Raw sockets with prepared bytes: an HTTP client library would take more of the machine than the gateway does, and the
figures would be its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from backhaul_local.demo_api import DemoError
from backhaul_local.demo_traffic import Post

_ANSWER_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class BurstResult:
    """``statuses`` and ``latencies_s`` (from the first byte sent to the last one received) of each request."""

    seconds: float
    statuses: Sequence[int]
    latencies_s: Sequence[float]

    @property
    def per_second(self) -> float:
        return len(self.statuses) / self.seconds


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of all do not exceed. ``values`` must not be empty."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent * 100) // 10_000) - 1)]


def shuffled(posts: Sequence[Post]) -> list[Post]:
    """All of ``posts`` in an order that is far from theirs and the same each time."""
    step = 7919  # A prime, so that its multiples reach every place of any list that it does not divide.
    count = len(posts)
    if count % step == 0:
        return list(posts)
    return [posts[place * step % count] for place in range(count)]


async def burst(base_url: str, api_key: str, posts: Sequence[Post], *, connections: int) -> BurstResult:
    """Post everything, each connection one request at a time. Raises DemoError when one is cut."""
    parts = urlsplit(base_url)
    requests = iter([_encoded(parts.netloc, api_key, post) for post in posts])
    statuses: list[int] = []
    latencies: list[float] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            # All connections take from the same iterator, so that a slow one holds no requests back.
            for request in requests:
                began = time.perf_counter()
                writer.write(request)
                status = await _read_answer(reader)
                latencies.append(time.perf_counter() - began)
                statuses.append(status)
        finally:
            writer.close()
            with contextlib.suppress(OSError):  # Cut by the other side; that was told above, if it mattered.
                await writer.wait_closed()

    began = time.perf_counter()
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S), asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(one())
    except TimeoutError:
        raise DemoError(f"The gateway did not answer {len(posts)} callbacks in {_ANSWER_TIMEOUT_S:g} s.") from None
    except ExceptionGroup as failures:
        cut, others = failures.split((OSError, EOFError))
        if cut is None or others is not None:
            raise
        raise DemoError(f"The gateway cut a connection: {cut.exceptions[0]!r}") from failures
    return BurstResult(seconds=time.perf_counter() - began, statuses=statuses, latencies_s=latencies)


def _encoded(host: str, api_key: str, post: Post) -> bytes:
    headers = {"Host": host, "X-Api-Key": api_key, **post.headers, "Content-Length": str(len(post.body))}
    lines = [f"POST {post.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + post.body


async def _read_answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    await reader.readexactly(int(headers.get("content-length", "0")))
    return int(status_line.split(" ", 2)[1])
