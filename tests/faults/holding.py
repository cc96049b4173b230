"""A proxy in front of mongod that holds one command, or its answer, for as long as a test wants."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

from bson import decode

_HEADER_BYTES = 16
_SECTION = 21
"""Where the body of an OP_MSG begins: after the header, the flags, and the kind of its first section."""


class HoldingProxy:
    """``async with HoldingProxy(port) as proxy``: connect to ``proxy.uri``; say ``proxy.hold(…)`` when it is time.

    What is held is one message, and whatever comes behind it on its connection. Others go through.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted: Callable[[bytes], bool] | None = None
        self._what: Literal["command", "answer"] = "command"
        self._request = 0
        self._release = asyncio.Event()
        self.held = asyncio.Event()
        """Set when something is held."""
        self.commands: list[bytes] = []
        """Every message to the server since ``hold``."""
        self.answer: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
        """What the server said to the command that was held, or whose answer was."""

    @property
    def uri(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        # Direct, as the server's own address would lead around this proxy.
        return f"mongodb://127.0.0.1:{port}/?directConnection=true"

    def hold(self, what: Literal["command", "answer"], wanted: Callable[[bytes], bool]) -> None:
        """Hold the next command that is ``wanted``, by its bytes; or the answer to it."""
        self.commands.clear()
        self._what, self._wanted = what, wanted

    def release(self) -> None:
        """Pass on what is held."""
        self._release.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._begin(self._join(reader, writer))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer = None
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            ways = [
                self._begin(self._to_server(reader, far_writer)),
                self._begin(self._from_server(far_reader, writer)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            # The client may have given up waiting for what is held; the server gets it, and answers, all the same.
            if self.held.is_set() and not self.answer.done():
                await asyncio.wait(ways)
        except OSError:
            pass
        finally:
            writer.transport.abort()
            if far_writer is not None:
                far_writer.transport.abort()

    async def _to_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                message, request, _ = await _read(reader)
                self.commands.append(message)
                if self._wanted is not None and self._wanted(message):
                    self._wanted, self._request = None, request
                    if self._what == "command":
                        self.held.set()
                        await self._release.wait()
                writer.write(message)
                await writer.drain()

    async def _from_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                message, _, request = await _read(reader)
                if self._request and request == self._request:
                    self._request = 0
                    self.answer.set_result(decode(message[_SECTION:]))
                    if self._what == "answer":
                        self.held.set()
                        await self._release.wait()
                writer.write(message)
                await writer.drain()

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, int, int]:
    """A message of MongoDB's wire protocol, its number, and the number of what it answers."""
    header = await reader.readexactly(_HEADER_BYTES)
    length, request, answers, _ = struct.unpack("<iiii", header)
    return header + await reader.readexactly(length - _HEADER_BYTES), request, answers
