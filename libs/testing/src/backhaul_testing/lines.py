"""Connections on which things go wrong while they are open: cut, silent, or slow; and a balancer in front of copies."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backhaul_testing.proxy import CHUNK_BYTES, End, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER that makes of a close a reset."""


class Line:
    """What all connections of one process have in common, whichever proxies they go through."""

    def __init__(self) -> None:
        self.is_cut = False
        self._latency_s = 0.0
        self._bytes_per_s = 0.0
        self._speaking = asyncio.Event()
        self._speaking.set()
        self._ends: set[End] = set()

    def cut(self) -> None:
        """Reset each connection that is there, and each that comes."""
        self.is_cut = True
        for end in list(self._ends):
            reset(end)

    def go_silent(self) -> None:
        """Neither carry nor close anything, and let who connects wait."""
        self._speaking.clear()

    def slow_down(self, latency_s: float, bytes_per_s: float) -> None:
        """Let everything take so much longer, each way."""
        self._latency_s, self._bytes_per_s = latency_s, bytes_per_s

    def mend(self) -> None:
        """Carry everything, and what waited first."""
        self.is_cut = False
        self._latency_s = 0.0
        self._speaking.set()

    @contextmanager
    def carrying(self, *ends: End) -> Iterator[None]:
        """``ends`` belong to it as long as this is open."""
        self._ends.update(ends)
        try:
            yield
        finally:
            self._ends.difference_update(ends)

    async def speaks(self) -> None:
        """Return when it is not silent."""
        await self._speaking.wait()

    async def carry(self, size: int) -> None:
        """Return when ``size`` bytes may go on."""
        if self._latency_s:
            await asyncio.sleep(self._latency_s + size / self._bytes_per_s)
        await self._speaking.wait()


@dataclass(frozen=True)
class Route:
    """A server's port, and the lines that lead there."""

    port: int
    lines: Sequence[Line]


class Balancer(Proxy):
    """Gives each connection to the next of ``routes`` that takes one, as what stands before copies does."""

    def __init__(self, *routes: Route) -> None:
        super().__init__(0)
        self._routes = list(routes)

    async def join(self, client: End) -> None:
        """See Proxy."""
        for _ in self._routes:
            route = self._routes.pop(0)
            self._routes.append(route)
            if any(line.is_cut for line in route.lines):
                continue
            for line in route.lines:
                await line.speaks()
            with suppress(OSError):
                server = await self.server(route.port)
                await self._carry(client, server, route.lines)
                return
        reset(client)

    async def _carry(self, client: End, server: End, lines: Sequence[Line]) -> None:
        with ExitStack() as stack:
            for line in lines:
                stack.enter_context(line.carrying(client, server))
            if any(line.is_cut for line in lines):  # Meanwhile.
                reset(client)
            await self.first_of(_pass_on(client, server, lines), _pass_on(server, client, lines))
            for line in lines:
                await line.speaks()
        server.writer.close()


def reset(end: End) -> None:
    """End a connection as one ends whose other side is gone: by RST."""
    connection = end.writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    end.writer.transport.abort()


async def _pass_on(source: End, target: End, lines: Sequence[Line]) -> None:
    with suppress(OSError):
        while data := await source.reader.read(CHUNK_BYTES):
            for line in lines:
                await line.carry(len(data))
            target.writer.write(data)
            await target.writer.drain()
