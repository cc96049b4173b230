"""TCP proxies that tests put before a server, and one that goes silent while its connections stay open."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, NamedTuple, Self

_LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
_KERNEL_BYTES = 64 * 1024
"""What the system may take in for a connection that is not read. Its default is several megabytes."""

_TURNS_TO_CONNECT = 3
"""Turns of the event loop from a connection's acceptance until it is known here, and can be closed."""


class End(NamedTuple):
    """One end of what a proxy joins: the client's connection, or that to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Proxy(ABC):
    """``async with …(target_port) as proxy``: connect to ``proxy.port``. ``join`` says what becomes of a connection."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener = socket.socket()
        self.accepted = 0
        """Connections so far."""

    @abstractmethod
    async def join(self, client: End) -> None:
        """Serve one connection, which is closed at the end, as is that of ``server``. An OSError ends it too."""

    @property
    def port(self) -> int:
        """Where to connect to."""
        number: int = self._listener.getsockname()[1]
        return number

    async def server(self, port: int = 0) -> End:
        """A new connection to the server, or to another one on ``port``."""
        end = End(*await asyncio.open_connection(_LOOPBACK, port or self._target_port))
        self._writers.add(end.writer)
        return end

    async def first_of(self, *ways: Coroutine[Any, Any, None]) -> set[asyncio.Task[None]]:
        """Run ``ways`` until one of them ends; all of them, the others running on."""
        tasks = {self._begin(way) for way in ways}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks

    async def __aenter__(self) -> Self:
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BYTES)
        self._listener.bind((_LOOPBACK, 0))
        self._accepting = await asyncio.start_server(self._connected, sock=self._listener, limit=CHUNK_BYTES)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # A connection whose server is closed between its acceptance and the next step fails in asyncio, and stays open.
        asyncio.get_running_loop().remove_reader(self._listener)
        for _ in range(_TURNS_TO_CONNECT):
            await asyncio.sleep(0)
        self._accepting.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        # Until the loop has closed each: whichever test runs when an open one is collected would fail for it.
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        self._begin(self._serve(End(reader, writer)))

    async def _serve(self, client: End) -> None:
        with suppress(OSError):
            await self.join(client)
        client.writer.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class SilentProxy(Proxy):
    """``proxy.go_silent()`` when it is time.

    Silent, it neither reads nor writes nor closes; who connects then is accepted and hears nothing.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._speaking = asyncio.Event()
        """Of the connections to come; those that are there have the one that was in its place."""
        self._speaking.set()

    def go_silent(self) -> None:
        """Stop in the middle of whatever is said."""
        self._speaking.clear()

    def speak(self) -> None:
        """Go on where it stopped."""
        self._speaking.set()

    def speak_to_newcomers(self) -> None:
        """Stay silent on the connections that are there, and serve those that come."""
        self._speaking = asyncio.Event()
        self._speaking.set()

    async def join(self, client: End) -> None:
        """See Proxy."""
        speaking = self._speaking
        await speaking.wait()
        server = await self.server()
        await self.first_of(_pass_on(client, server, speaking), _pass_on(server, client, speaking))
        await speaking.wait()
        server.writer.close()


async def _pass_on(source: End, target: End, speaking: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await source.reader.read(CHUNK_BYTES):
            await speaking.wait()
            target.writer.write(data)
            await target.writer.drain()
