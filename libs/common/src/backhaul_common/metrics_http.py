"""Prometheus' port of a service that speaks no HTTP: ``GET /metrics`` on the event loop, within bounds.

prometheus_client's own server listens on every interface unless told otherwise, and makes a thread for each connection
for as long as its peer likes.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

from prometheus_client import CONTENT_TYPE_LATEST

from backhaul_common.logs import get_logger
from backhaul_common.metrics import Metrics
from backhaul_common.outages import Repeated

MAX_CONNECTIONS = 16
PEER_S = 5.0
"""How long a peer may take to ask, and how long to take its answer."""

_HEAD_BYTES = 8 << 10


async def serve_metrics(stack: AsyncExitStack, metrics: Metrics, *, host: str, port: int) -> int:
    """Serve until ``stack`` closes; returns the port, which the system picks for 0. OSError where it cannot listen."""
    server = _MetricsServer(metrics)
    listening = await asyncio.start_server(server.connected, host, port, limit=_HEAD_BYTES)
    stack.push_async_callback(server.close)
    stack.callback(listening.close)
    bound: int = listening.sockets[0].getsockname()[1]
    get_logger().info("serving_metrics", host=host, port=bound)
    return bound


class _MetricsServer:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused = Repeated("metrics_connections_refused")

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, or hang up at once where too many are being answered."""
        if len(self._tasks) >= MAX_CONNECTIONS:
            self._refused.warning(f"{MAX_CONNECTIONS} are open")
            writer.transport.abort()
            return
        task = asyncio.create_task(self._answer(reader, writer), name="metrics")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Hang up on everybody."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # TimeoutError is an OSError; a head beyond the limit, and one that ends early, are what remains.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(PEER_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._response(head.partition(b"\r\n")[0].split(b" ")))
                async with asyncio.timeout(PEER_S):
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
                self._refused.over()
        finally:
            writer.transport.abort()

    async def _response(self, words: list[bytes]) -> bytes:
        if len(words) != 3 or words[1].partition(b"?")[0] != b"/metrics":
            return _http("404 Not Found", "text/plain; charset=utf-8", b"The metrics are at /metrics.\n", b"")
        if words[0] not in (b"GET", b"HEAD"):
            allow = b"Allow: GET, HEAD\r\n"
            return _http("405 Method Not Allowed", "text/plain; charset=utf-8", b"GET /metrics\n", allow)
        body = await self._metrics.rendered()
        whole = _http("200 OK", CONTENT_TYPE_LATEST, body, b"")
        return whole if words[0] == b"GET" else whole[: len(whole) - len(body)]


def _http(status: str, content_type: str, body: bytes, headers: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return head.encode() + headers + b"\r\n" + body
