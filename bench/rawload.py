"""A load generator of its own process: prepared bytes over kept-open connections, answers counted by status.

``python rawload.py FILE PORT --connections 64 --seconds 3`` repeats the file's requests, each connection sending its
next one as soon as it has its answer; ``--once`` sends each request exactly once instead; ``--rate 5000`` sends that
many a second whatever the answers take, and then measures from the moment at which a request was due.
Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter, deque
from itertools import cycle
from pathlib import Path
from typing import cast

import uvloop

_TICK_S = 0.001


def read_requests(path: Path) -> list[bytes]:
    """The file's requests: each is its length as eight decimal digits, then that many bytes."""
    data = path.read_bytes()
    requests: list[bytes] = []
    at = 0
    while at < len(data):
        size = int(data[at : at + 8])
        requests.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return requests


class Load:
    """What is to be sent, and what came back."""

    def __init__(self, requests: list[bytes], *, once: bool, open_loop: bool) -> None:
        self._next = iter(requests) if once else cycle(requests)
        self.open_loop = open_loop
        self.idle: deque[_Connection] = deque()
        self.due: deque[float] = deque()
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.in_flight = 0
        self.stopping = False
        self.done = asyncio.Event()

    def send_next(self, connection: _Connection, due: float) -> None:
        """Send the next request; ``due`` is when its clock started."""
        request = None if self.stopping else next(self._next, None)
        if request is None:
            self.stopping = True
            if not self.in_flight:
                self.done.set()
            return
        self.in_flight += 1
        connection.send(request, due)

    def answered(self, connection: _Connection, status: int, due: float) -> None:
        """One answer came."""
        now = time.perf_counter()
        self.in_flight -= 1
        self.statuses[status] += 1
        self.latencies.append(now - due)
        if not self.open_loop:
            self.send_next(connection, now)
        elif self.due:
            self.send_next(connection, self.due.popleft())
        else:
            self.idle.append(connection)
            if self.stopping and not self.in_flight:
                self.done.set()

    def lost(self) -> None:
        """A connection ended by itself: status 0, and the load ends."""
        if not self.done.is_set():
            self.statuses[0] += 1
            self.done.set()


class _Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, but not the base class.

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = received[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0
        if len(received) < end + 4 + length:
            return
        self._received = b""
        self._load.answered(self, int(received[9:12]), self._due)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio dictates the signature
        self._load.lost()


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Load the port; return what is printed."""
    load = Load(read_requests(arguments.file), once=arguments.once, open_loop=arguments.rate > 0)
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda: _Connection(load), "127.0.0.1", arguments.port))[1]
        for _ in range(arguments.connections)
    ]
    cpu, began = time.process_time(), time.perf_counter()
    if load.open_loop:
        load.idle.extend(connections)
        await _pace(load, arguments.rate, began, arguments.seconds)
    else:
        for connection in connections:
            load.send_next(connection, time.perf_counter())
        if not arguments.once:
            await asyncio.sleep(arguments.seconds)
            load.stopping = True
    async with asyncio.timeout(arguments.patience):
        await load.done.wait()
    seconds = time.perf_counter() - began
    latencies = sorted(load.latencies) or [0.0]
    return {
        "statuses": {str(status): count for status, count in load.statuses.items()},
        "began": began,
        "seconds": seconds,
        "cpu_s": time.process_time() - cpu,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
    }


async def _pace(load: Load, rate: float, began: float, seconds: float) -> None:
    sent = 0
    while (elapsed := time.perf_counter() - began) < seconds and not load.stopping:
        while sent < elapsed * rate:
            due = began + sent / rate
            sent += 1
            if load.idle:
                load.send_next(load.idle.popleft(), due)
            else:
                load.due.append(due)
        await asyncio.sleep(_TICK_S)
    load.due.clear()
    load.stopping = True
    if not load.in_flight:
        load.done.set()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--patience", type=float, default=60.0, help="Seconds to wait for the last answers.")
    sys.stdout.write(json.dumps(uvloop.run(run(parser.parse_args()))) + "\n")


if __name__ == "__main__":
    main()
