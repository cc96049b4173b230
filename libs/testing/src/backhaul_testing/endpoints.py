"""Tenants' endpoints on real sockets that answer as a test says, or misbehave."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"


@dataclass
class Call:
    """One request as it came, and the connection to answer on."""

    head: str
    body: bytes
    number: int
    """Of the connection, from 1."""
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def headers(self) -> dict[str, str]:
        lines = (line.partition(":") for line in self.head.split("\r\n")[1:])
        return {name.lower(): value.strip() for name, _, value in lines}

    async def write(self, data: bytes) -> None:
        if self.writer.is_closing():
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"ok", status: int = 200, more: str = "") -> None:
        await self.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body)

    def reset(self) -> None:
        """End the connection without a word."""
        self.writer.transport.abort()


Behaviour = Callable[[Call], Awaitable[None]]


class Endpoint:
    """Listens on ``host``. A behaviour that returns keeps the connection for the next request."""

    def __init__(self, behaviour: Behaviour, host: str = LOOPBACK) -> None:
        self.behaviour = behaviour
        self.host = host
        self.calls: list[Call] = []
        self.connections = 0
        self.port = 0
        self.ended = asyncio.Event()
        """The test is over: whatever hangs may stop."""
        self.gone = asyncio.Event()
        """A connection was ended by its peer while a behaviour was at work."""
        self._writers: set[asyncio.StreamWriter] = set()

    def url(self, path: str = "/", host: str = "", scheme: str = "http") -> str:
        return f"{scheme}://{host or self.host}:{self.port}{path}"

    def hang_up(self) -> None:
        """End all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n")
                call = Call(head, b"", number, reader, writer)
                call.body = await reader.readexactly(int(call.headers.get("content-length", 0)))
                self.calls.append(call)
                await self.behaviour(call)
        except (ConnectionError, ssl.SSLError):
            self.gone.set()
        except asyncio.IncompleteReadError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


@asynccontextmanager
async def endpoint(
    behaviour: Behaviour, tls: ssl.SSLContext | None = None, host: str = LOOPBACK
) -> AsyncIterator[Endpoint]:
    made = Endpoint(behaviour, host)
    server = await asyncio.start_server(made.serve, host, 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.ended.set()
        server.close()
        made.hang_up()
