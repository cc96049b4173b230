"""Connections, descriptors and memory of a gateway's process: however many peers there are, they stay bounded."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from alone import AUTHORIZED, HEAD, started, until
from backhaul_common.metering import Metrics
from backhaul_gateway.admission.attempts import FREE, MAX_WAITING
from backhaul_gateway.web.connections import Connections, Patience
from backhaul_gateway.web.http import Wait

pytestmark = pytest.mark.slow


async def test_silent_connections_take_nobodys_place(tmp_path: Path) -> None:
    """Four hundred of them against two hundred descriptors; and then a hundred that said something once."""
    async with started(tmp_path, 200, head_timeout_s=60, keep_alive_s=60) as process:
        [limited] = process.events("connections_limited_by_descriptors")
        most = limited["limit"]
        assert isinstance(most, int)
        for _ in range(400):
            await process.connect()
        assert (await process.get("/healthz")).status_code == 200
        assert 1 < await process.metric("backhaul_gateway_connections") <= most
        assert await process.ended("room") >= 400 - most
        for _ in range(most + 20):
            await process.connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await process.get("/healthz")).status_code == 200
        assert len(process.events("connections_at_limit")) == 1
        assert process.events("no_descriptors") == []


async def test_a_full_house_says_so(tmp_path: Path) -> None:
    """Every connection carries a request: the next one is told to come later, and they are served to their ends."""
    async with started(tmp_path, max_connections=16) as process:
        expecting = HEAD + AUTHORIZED + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"
        busy = [await process.connect(expecting) for _ in range(16)]
        for peer in busy:  # It is asked for its body, so it is in the middle of a request.
            assert await asyncio.get_running_loop().sock_recv(peer.sock, 65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await peer.send(b"{")
        late = await process.connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await late.rest(5)).startswith(b"HTTP/1.1 503")
        for peer in busy[:2]:
            peer.sock.close()
        await until(lambda: len(psutil.Process(process.pid).net_connections("tcp")) < 18, 5)
        assert (await process.get("/healthz")).status_code == 200
        for peer in busy[2:]:
            await peer.send(b'"id": 1 }')
        for peer in busy[2:]:
            # The route itself answers: its change cannot be logged, since this gateway has no MongoDB.
            answer = b""
            while b"nothing was done" not in answer:  # Its head and its body may come apart.
                some = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer.sock, 65536), 60)
                assert some, answer
                answer += some
            peer.sock.close()
        assert len(process.events("connections_at_limit")) == 1


async def test_a_lack_of_descriptors_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """libuv closes what it cannot accept, and tells nobody."""
    said: list[str] = []
    patience = Patience(head_s=0.04, body_s=1, idle_s=1, read_s=1)
    connections = Connections(patience, 16, Metrics("test"), descriptors=lambda wanted: wanted)
    monkeypatch.setattr(connections, "_log", type("Log", (), {"error": lambda _, event, **__: said.append(event)})())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for _ in range(2):
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            await asyncio.sleep(0.1)  # several looks
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await asyncio.sleep(0.1)  # several more
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        connections.close()
    assert said == ["no_descriptors"] * 2


class _Peer:
    """A connection, as far as ``Connections`` looks at it."""

    is_answered = False
    wait = None
    wait_of: object = None
    deadline = 0.0

    def __init__(self) -> None:
        self.transport = self

    def owes(self) -> tuple[Wait | None, object]:
        return (Wait.IDLE, self) if self.is_answered else (None, None)

    def abort(self) -> None:
        """It is ended."""


async def test_who_is_answered_a_moment_later_makes_room_then() -> None:
    """None can go while all are being answered. That is no reason to refuse everybody until the timer looks."""
    patience = Patience(head_s=60, body_s=60, idle_s=60, read_s=60)
    connections = Connections(patience, 4, Metrics("test"), descriptors=lambda wanted: wanted)
    opened: Callable[[Any], bool] = connections.opened
    closed: Callable[[Any], None] = connections.closed
    try:
        busy = [_Peer() for _ in range(4)]
        assert all(map(opened, busy))
        late = _Peer()
        assert not opened(late)
        closed(late)
        for peer in busy:
            peer.is_answered = True

        def comes() -> bool:
            if opened(late):
                return True
            closed(late)
            return False

        await until(comes, patience.interval_s / 2)
    finally:
        connections.close()


PIPELINED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 6000
TRAILERS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + (b"X-Filler: " + b"a" * 1000 + b"\r\n") * 2000


@pytest.mark.parametrize("what", ["pipelined requests", "trailers", "bodies without a token", "large heads"])
async def test_memory_stays_flat(tmp_path: Path, what: str) -> None:
    async with started(tmp_path) as process:

        async def peer(data: bytes) -> None:
            connected = await process.connect()
            try:
                await connected.send(data)
                await asyncio.sleep(0.05)  # without reading
            except ConnectionError:
                pass
            connected.sock.close()

        data = {
            "pipelined requests": PIPELINED,
            "trailers": TRAILERS,
            "bodies without a token": HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 400_000,
            "large heads": HEAD + b"X-Filler: a\r\n" * 20_000,
        }[what]
        for _ in range(2):
            await peer(data)
        before = process.memory
        for _ in range(15):
            await asyncio.gather(*(peer(data) for _ in range(10)))
        assert (await process.get("/healthz")).status_code == 200
        # Each of these was 10 to 30 MB for ever, or for as long as the peer liked.
        assert process.memory - before < 40e6


async def test_a_head_of_the_shortest_fields_holds_nothing(tmp_path: Path) -> None:
    """Parsed, they take up forty times as much as they were sent in."""
    async with started(tmp_path) as process:
        data = HEAD + b"a:\r\n" * 16_000
        before = process.memory
        for _ in range(60):
            with suppress(ConnectionError):
                await process.connect(data)
        assert (await process.get("/healthz")).status_code == 200
        assert process.memory - before < 20e6


async def test_half_bodies_without_a_token_hold_nothing(tmp_path: Path) -> None:
    async with started(tmp_path) as process:
        data = HEAD + b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 250_000
        first = await process.connect(data)
        before = process.memory
        peers = [first, *[await process.connect(data) for _ in range(200)]]
        assert (await process.get("/healthz")).status_code == 200
        # Who is refused too often waits for it, up to a number; the others are told at once, and let go.
        assert sum(peer.lives for peer in peers) >= FREE + MAX_WAITING
        assert process.memory - before < 20e6  # 50 MB were sent.
