"""A gateway's process on its own, and peers that let it wait: every wait ends, and memory and descriptors stay bounded.

It needs neither NATS nor MongoDB: whom it does not know yet it answers all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from backhaul_common.metrics import Metrics
from backhaul_gateway.connections import Connections, Patience
from cryptography.fernet import Fernet

ADMIN_TOKEN = "admin-token-0123456789"

_PROGRAM = """
import resource, sys
limit = int(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
from backhaul_gateway.__main__ import main
main()
"""


@dataclass
class Process:
    """A running gateway."""

    port: int
    pid: int
    log: Path
    peers: list[Peer] = field(default_factory=list)

    @property
    def memory(self) -> int:
        """Bytes that it holds."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def events(self, name: str) -> list[dict[str, object]]:
        """Its log lines of that name."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=10) as client:
            return await client.get(path)

    async def metric(self, name: str, label: str = "") -> float:
        """The value of the series of that name with that label; 0 when there is none."""
        text = (await self.get("/metrics")).text
        found = [line for line in text.splitlines() if line.startswith((name + "{", name + " ")) and label in line]
        return float(found[0].split()[-1]) if found else 0.0

    async def connect(self, data: bytes = b"", *, receive_buffer: int = 0) -> Peer:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        peer = Peer(sock)
        self.peers.append(peer)
        await peer.send(data)
        return peer

    def ended(self, reason: str) -> Awaitable[float]:
        """How many connections it ended for that reason."""
        return self.metric("backhaul_gateway_connections_ended_total", f'reason="{reason}"')


@dataclass
class Peer:
    """The other end of one connection."""

    sock: socket.socket

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def rest(self, seconds: float) -> bytes:
        """What comes until the end of the connection, which must come within that time."""
        got = b""
        async with asyncio.timeout(seconds):
            try:
                while chunk := await asyncio.get_running_loop().sock_recv(self.sock, 65536):
                    got += chunk
            except ConnectionError:
                pass
        self.sock.close()
        return got

    @property
    def lives(self) -> bool:
        """Whether the connection is open; what has come is thrown away."""
        try:
            while self.sock.recv(65536):
                pass
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        return False


ProcessFactory = Callable[..., AbstractAsyncContextManager[Process]]


@pytest.fixture
def process_factory(tmp_path: Path) -> ProcessFactory:
    """``async with process_factory(descriptors, head_timeout_s=1) as process``: keyword arguments are settings."""

    @asynccontextmanager
    async def create(descriptors: int = 0, **settings: object) -> AsyncIterator[Process]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = tmp_path / f"gateway-{port}.log"
        env = {key: value for key, value in os.environ.items() if not key.startswith("BACKHAUL_")}
        env |= {
            "BACKHAUL_GATEWAY_PORT": str(port),
            "BACKHAUL_GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN,
            "BACKHAUL_SECRET_KEYS": Fernet.generate_key().decode(),
            "BACKHAUL_NATS_URL": "nats://127.0.0.1:9",
            "BACKHAUL_MONGO_URI": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=200",
            **{f"BACKHAUL_GATEWAY_{key.upper()}": str(value) for key, value in settings.items()},
        }
        with log.open("wb") as out:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _PROGRAM, str(descriptors), stdout=out, stderr=out, env=env
            )
        process = Process(port, child.pid, log)
        try:
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert (await process.get("/healthz")).status_code == 200
                        break
                    except httpx.TransportError:
                        assert child.returncode is None, log.read_text()
                        await asyncio.sleep(0.05)
            yield process
        finally:
            for peer in process.peers:
                peer.sock.close()
            if child.returncode is None:
                child.send_signal(signal.SIGKILL)
            await child.wait()

    return create


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # of another process, which has no event
            await asyncio.sleep(0.05)


HEAD = b"POST /admin/v1/tenants HTTP/1.1\r\nHost: x\r\n"
AUTHORIZED = b"Authorization: Bearer " + ADMIN_TOKEN.encode() + b"\r\nContent-Type: application/json\r\n"

SILENT = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "half of a head": HEAD,
    "half of a second head": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD,
    "no second request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "empty lines instead of a second request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r\n",
    "half of a body": HEAD + AUTHORIZED + b"Content-Length: 10\r\n\r\n{",
    "half of a body that is refused": HEAD + b"Content-Length: 10\r\n\r\n{",
    "half of a body of a path that is not there": b"POST /nothing HTTP/1.1\r\nContent-Length: 10\r\n\r\n{",
    "half of a body that nobody reads": b"GET /healthz HTTP/1.1\r\nContent-Length: 10\r\n\r\n{",
    "half of a chunk's size": HEAD + AUTHORIZED + b"Transfer-Encoding: chunked\r\n\r\n00",
    "half of the trailers": HEAD + AUTHORIZED + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-A: 1\r\n",
    "half of a body behind an offer": HEAD
    + AUTHORIZED
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 10\r\n\r\n{",
}


async def test_who_stops_in_the_middle_is_not_waited_for(
    process_factory: ProcessFactory, subtests: pytest.Subtests
) -> None:
    async with process_factory(head_timeout_s=1, body_timeout_s=1, keep_alive_s=1, read_timeout_s=1) as process:
        peers = {what: await process.connect(data) for what, data in SILENT.items()}
        answers = await asyncio.gather(*(peer.rest(12) for peer in peers.values()), return_exceptions=True)
        for what, answer in zip(peers, answers, strict=True):
            with subtests.test(what=what):
                assert isinstance(answer, bytes)
                if what.startswith("half of a head"):
                    assert answer.startswith(b"HTTP/1.1 408")
                if what in ("half of a body", "half of a chunk's size", "half of the trailers"):
                    assert answer.startswith(b"HTTP/1.1 408")
                    assert b"request_timeout" in answer
        assert await process.ended("head") >= 3
        # This very request's.
        assert await process.metric("backhaul_gateway_connections") == 1


async def test_who_drips_is_not_waited_for(process_factory: ProcessFactory, subtests: pytest.Subtests) -> None:
    """Neither a byte now and then nor an empty line makes more time."""
    drips = {
        "a head": (HEAD, b"X-A: 1\r\n"),
        "a body": (HEAD + AUTHORIZED + b"Content-Length: 1000\r\n\r\n{", b" "),
        "a body that is refused": (HEAD + b"Content-Length: 1000\r\n\r\n{", b" "),
        "empty lines": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
        "the first empty lines": (b"", b"\r\n"),
        "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    }
    async with process_factory(head_timeout_s=1, body_timeout_s=1, keep_alive_s=1, read_timeout_s=1) as process:
        peers = {what: await process.connect(first) for what, (first, _) in drips.items()}

        async def drip(what: str) -> None:
            async with asyncio.timeout(10):
                try:
                    while peers[what].lives:
                        await peers[what].send(drips[what][1])
                        await asyncio.sleep(0.1)  # the drip
                except ConnectionError:
                    pass

        for what, ended in zip(drips, await asyncio.gather(*map(drip, drips), return_exceptions=True), strict=True):
            with subtests.test(what=what):
                assert ended is None


async def test_answers_that_are_not_read_are_given_up(process_factory: ProcessFactory) -> None:
    async with process_factory(head_timeout_s=1, body_timeout_s=1, keep_alive_s=1, read_timeout_s=1) as process:
        size = len((await process.get("/openapi.json")).content)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        for ending in (request, last, last, request):
            peer = await process.connect(receive_buffer=4096)
            # More than the two systems' buffers take.
            for _ in range(max(8, int(12e6 / size / 16))):
                await peer.send(request * 15)
                await asyncio.sleep(
                    0.05
                )  # so that the answers are not all asked for at once, which ends the connection
            await peer.send(ending)
        # Who reads slowly, but reads, gets everything: 17 times the document at some 200 KB/s.
        slow = await process.connect(request * 16, receive_buffer=4096)
        got = 0
        async with asyncio.timeout(60):
            while got < 16 * size:
                got += len(await asyncio.get_running_loop().sock_recv(slow.sock, 32768))
                await asyncio.sleep(0.05)  # the slowness
        await _until(lambda: len(psutil.Process(process.pid).net_connections("tcp")) <= 3, 20)
        assert await process.ended("read") == 4


async def test_a_busy_connection_is_kept(process_factory: ProcessFactory) -> None:
    """Waits are for the peer: who sends request after request is waited for anew each time."""
    async with process_factory(head_timeout_s=0.4, body_timeout_s=0.4, keep_alive_s=0.4, read_timeout_s=0.4) as process:
        peer = await process.connect()
        for _ in range(30):
            await peer.send(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
            await asyncio.sleep(0.05)  # within the time for a body
            await peer.send(b"}")
            await asyncio.sleep(0.05)  # within the time between requests
            assert peer.lives
        peer.sock.close()


async def test_silent_connections_take_nobodys_place(process_factory: ProcessFactory) -> None:
    """Four hundred of them against two hundred descriptors; and then a hundred that said something once."""
    async with process_factory(200, head_timeout_s=60, keep_alive_s=60) as process:
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


STRANGERS = {what: data for what, data in SILENT.items() if AUTHORIZED not in data}


@pytest.mark.parametrize("what", [*STRANGERS, "unread answers"])
async def test_no_stranger_takes_all_places(process_factory: ProcessFactory, what: str) -> None:
    """Whatever its requests are stuck in, as long as it has shown no credential."""
    async with process_factory(max_connections=32) as process:

        async def stranger() -> None:
            if what in STRANGERS:
                await process.connect(STRANGERS[what])
                return
            peer = await process.connect(receive_buffer=4096)
            for _ in range(30):
                with suppress(ConnectionError):
                    await peer.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 4)
                await asyncio.sleep(0.1)  # so that the answers are not all asked for at once

        for _ in range(2):
            await asyncio.gather(*(stranger() for _ in range(40)))
            # At once, and when the timer has looked at them.
            assert [(await process.get("/healthz")).status_code for _ in range(5)] == [200] * 5
            await asyncio.sleep(1.2)  # the timer's interval
            assert (await process.get("/healthz")).status_code == 200
        assert process.events("connections_at_limit")
        if what in STRANGERS:
            assert await process.ended("refused") == 0


async def test_who_is_late_goes_before_who_is_idle(process_factory: ProcessFactory) -> None:
    async with process_factory(max_connections=32) as process:
        idle = [await process.connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(8)]
        late = [await process.connect(SILENT["half of a body that nobody reads"]) for _ in range(24)]
        await asyncio.sleep(1.2)  # the timer's interval
        for _ in range(6):
            assert (await process.get("/healthz")).status_code == 200
            # Kept open, so that each of them needs a place.
            await process.connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [peer.lives for peer in idle] == [True] * 8
        assert [peer.lives for peer in late][:6] == [False] * 6


async def test_a_full_house_says_so(process_factory: ProcessFactory) -> None:
    """Every connection carries a request: the next one is told to come later, and they are served to their ends."""
    async with process_factory(max_connections=16) as process:
        busy = [await process.connect(HEAD + AUTHORIZED + b"Content-Length: 10\r\n\r\n{") for _ in range(16)]
        await asyncio.sleep(0.2)  # so that each of them is in the middle of a request
        late = await process.connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await late.rest(5)).startswith(b"HTTP/1.1 503")
        for peer in busy[:2]:
            peer.sock.close()
        await _until(lambda: len(psutil.Process(process.pid).net_connections("tcp")) < 18, 5)
        assert (await process.get("/healthz")).status_code == 200
        for peer in busy[2:]:
            await peer.send(b'"id": 1 }')
            assert b"HTTP/1.1 4" in await asyncio.get_running_loop().sock_recv(peer.sock, 65536)
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


PIPELINED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 6000
TRAILERS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + (b"X-Filler: " + b"a" * 1000 + b"\r\n") * 2000


@pytest.mark.parametrize("what", ["pipelined requests", "trailers", "bodies without a token", "large heads"])
async def test_memory_stays_flat(process_factory: ProcessFactory, what: str) -> None:
    async with process_factory() as process:

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


async def test_a_head_of_the_shortest_fields_holds_nothing(process_factory: ProcessFactory) -> None:
    """Parsed, they take up forty times as much as they were sent in."""
    async with process_factory() as process:
        data = HEAD + b"a:\r\n" * 16_000
        before = process.memory
        for _ in range(60):
            with suppress(ConnectionError):
                await process.connect(data)
        assert (await process.get("/healthz")).status_code == 200
        assert process.memory - before < 20e6


async def test_half_bodies_without_a_token_hold_nothing(process_factory: ProcessFactory) -> None:
    async with process_factory() as process:
        data = HEAD + b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 250_000
        first = await process.connect(data)
        before = process.memory
        peers = [first, *[await process.connect(data) for _ in range(200)]]
        assert (await process.get("/healthz")).status_code == 200
        assert all(peer.lives for peer in peers)
        assert process.memory - before < 20e6  # 50 MB were sent.
