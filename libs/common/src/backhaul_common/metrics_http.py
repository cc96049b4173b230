"""Prometheus' port of a service that speaks no HTTP: ``GET /metrics`` on the event loop, within bounds. Whatever
runs the process asks here as well: ``GET /healthz``, and ``GET /readyz`` with what the health service says over gRPC,
for which it would need a certificate.

prometheus_client's own server listens on every interface unless told otherwise, and makes a thread for each connection
for as long as its peer likes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress

from prometheus_client import CONTENT_TYPE_LATEST

from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.outages import Repeated

MAX_CONNECTIONS = 16
PEER_S = 5.0
"""How long a peer may take to ask, and how long to take its answer."""

_HEAD_BYTES = 8 << 10
_TEXT = "text/plain; charset=utf-8"

Failing = Callable[[], Awaitable[Mapping[str, str]]]
"""What is missing, by name, with the reason; empty when ready."""


async def serve_metrics(stack: AsyncExitStack, metrics: Metrics, failing: Failing, *, host: str, port: int) -> int:
    """Serve until ``stack`` closes; returns the port, which the system picks for 0. OSError where it cannot listen."""
    server = _MetricsServer(metrics, failing)
    listening = await asyncio.start_server(server.connected, host, port, limit=_HEAD_BYTES)
    stack.push_async_callback(server.close)
    stack.callback(listening.close)
    bound: int = listening.sockets[0].getsockname()[1]
    get_logger().info("serving_metrics", host=host, port=bound)
    return bound


class _MetricsServer:
    def __init__(self, metrics: Metrics, failing: Failing) -> None:
        self._metrics = metrics
        self._failing = failing
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
        path = words[1].partition(b"?")[0] if len(words) == 3 else b""
        if path not in (b"/metrics", b"/healthz", b"/readyz"):
            return _http("404 Not Found", _TEXT, b"Here are /metrics, /healthz and /readyz.\n")
        if words[0] not in (b"GET", b"HEAD"):
            return _http("405 Method Not Allowed", _TEXT, b"GET " + path + b"\n", b"Allow: GET, HEAD\r\n")
        if path == b"/metrics":
            body = await self._metrics.rendered()
            whole = _http("200 OK", CONTENT_TYPE_LATEST, body)
        elif path == b"/readyz":
            failing = dict(await self._failing())
            body = json.dumps({"status": "not ready" if failing else "ready", "failing": failing}).encode()
            whole = _http("503 Service Unavailable" if failing else "200 OK", "application/json", body)
        else:
            body = b'{"status": "ok"}'
            whole = _http("200 OK", "application/json", body)
        return whole if words[0] == b"GET" else whole[: len(whole) - len(body)]


def _http(status: str, content_type: str, body: bytes, headers: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return head.encode() + headers + b"\r\n" + body
