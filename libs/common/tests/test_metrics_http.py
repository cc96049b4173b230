"""The Prometheus port: what it serves, and what a peer cannot make it keep."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import httpx
import pytest
from backhaul_common import metrics as catalogue
from backhaul_common import metrics_http
from backhaul_common.metering import Metrics
from backhaul_common.metrics_http import MAX_CONNECTIONS, serve_metrics
from structlog.testing import capture_logs


@pytest.fixture
def missing() -> dict[str, str]:
    return {}


@pytest.fixture
async def port(missing: dict[str, str]) -> AsyncIterator[int]:
    async with AsyncExitStack() as stack:
        metrics = Metrics("test")
        stack.callback(metrics.close)
        metrics.counter(catalogue.CALLBACKS_NORMALIZED).add("acme", "twilio", amount=3)

        async def failing() -> dict[str, str]:
            return missing

        yield await serve_metrics(stack, metrics, failing, host="127.0.0.1", port=0)


async def test_it_serves_what_prometheus_reads(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.get("/metrics?name[]=x")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        (line,) = [line for line in answer.text.splitlines() if line.startswith("backhaul_normalizer_callbacks_total")]
        assert 'tenant="acme"' in line
        assert line.endswith(" 3.0")
        head = await client.head("/metrics")
        assert (head.status_code, head.content) == (200, b"")
        assert (await client.get("/")).status_code == 404
        refused = await client.post("/metrics", content=b"x")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_it_says_whether_the_process_runs_and_is_ready(port: int, missing: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ready", "failing": {}})
        missing["mongodb"] = "no answer in time"
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "not ready", "failing": missing})
        alive = await client.get("/healthz")
        assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
        assert (await client.head("/readyz")).status_code == 503


async def test_many_connections_are_no_threads_and_do_not_stay(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "PEER_S", 0.5)
    threads = threading.active_count()
    with capture_logs() as lines:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
        assert threading.active_count() == threads
        # All but a few are hung up on at once, and those when they have said nothing for too long.
        async with asyncio.timeout(60):
            for reader, _ in silent:
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
    assert [line["event"] for line in lines] == ["metrics_connections_refused"]
    for _, writer in silent:
        writer.transport.abort()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/metrics")).status_code == 200
    assert MAX_CONNECTIONS < 100


@pytest.mark.timed
async def test_a_head_without_end_is_not_kept(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000)
    async with asyncio.timeout(3):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.transport.abort()
