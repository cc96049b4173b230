"""A gateway's process on its own, and its peers as sockets.

It needs neither NATS nor MongoDB: whom it does not know yet it answers all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import httpx
import psutil
from backhaul_local.ports import Hold
from cryptography.fernet import Fernet

ADMIN_TOKEN = "admin-token-0123456789"

START_S = 90
"""A gateway answers within a second or two; a machine that does much else takes a multiple of that."""

_PROGRAM = """
import resource, runpy, sys
limit = int(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
runpy.run_module("backhaul_gateway", run_name="__main__")
"""

HEAD = b"POST /admin/v1/tenants HTTP/1.1\r\nHost: x\r\n"
AUTHORIZED = b"Authorization: Bearer " + ADMIN_TOKEN.encode() + b"\r\nContent-Type: application/json\r\n"


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

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)

    def events(self, name: str) -> list[dict[str, object]]:
        """Its log lines of that name."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=60) as client:
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


@asynccontextmanager
async def started(
    folder: Path, descriptors: int = 0, environ: Mapping[str, str] = MappingProxyType({}), **settings: object
) -> AsyncIterator[Process]:
    """Run a gateway that may open so many files (0: as many as this process), and that has those settings; others than
    the gateway's own by their variables."""
    hold = Hold()  # For as long as this has not ended.
    [port] = hold.choose(1)
    log = folder / f"gateway-{port}.log"
    env = {key: value for key, value in os.environ.items() if not key.startswith("BACKHAUL_")}
    env |= {
        "BACKHAUL_GATEWAY_PORT": str(port),
        "BACKHAUL_GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN,
        "BACKHAUL_SECRET_KEYS": Fernet.generate_key().decode(),
        "BACKHAUL_NATS_URL": "nats://127.0.0.1:9",
        "BACKHAUL_MONGO_URI": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=200",
        **{f"BACKHAUL_GATEWAY_{key.upper()}": str(value) for key, value in settings.items()},
        **environ,
    }
    with log.open("wb") as out:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM, str(descriptors), stdout=out, stderr=out, env=env
        )
    process = Process(port, child.pid, log)
    try:
        async with asyncio.timeout(START_S):
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


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # of another process, which has no event
            await asyncio.sleep(0.05)
