"""A TCP proxy that tests put before a server, to make a connection go silent while it stays open."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Self

from backhaul_local.ports import LOOPBACK

_CHUNK_BYTES = 64 * 1024
_KERNEL_BYTES = 64 * 1024
"""What the system may take in for a connection that this proxy does not read. Its default is several megabytes."""


class SilentProxy:
    """``async with SilentProxy(port) as proxy``: connect to ``proxy.port``; ``proxy.go_silent()`` when it is time.

    Silent, it neither reads nor writes nor closes; who connects then is accepted and hears nothing.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._speaking = asyncio.Event()
        """Of the connections to come; those that are there have the one that was in its place."""
        self._speaking.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener = socket.socket()
        self.accepted = 0
        """Connections so far."""

    @property
    def port(self) -> int:
        number: int = self._listener.getsockname()[1]
        return number

    def go_silent(self) -> None:
        self._speaking.clear()

    def speak(self) -> None:
        """Go on where it stopped."""
        self._speaking.set()

    def speak_to_newcomers(self) -> None:
        """Stay silent on the connections that are there, and serve those that come."""
        self._speaking = asyncio.Event()
        self._speaking.set()

    async def __aenter__(self) -> Self:
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BYTES)
        self._listener.bind((LOOPBACK, 0))
        self._server = await asyncio.start_server(self._connected, sock=self._listener, limit=_CHUNK_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # The transports close in the loop's next turn.

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        self._begin(self._join(reader, writer))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        speaking = self._speaking
        await speaking.wait()
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target_port)
            self._writers.add(far_writer)
            both = [self._begin(self._pass_on(speaking, *way)) for way in ((reader, far_writer), (far_reader, writer))]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            await speaking.wait()
            for one in (writer, far_writer):
                one.close()

    async def _pass_on(
        self, speaking: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await speaking.wait()
                writer.write(data)
                await writer.drain()

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
