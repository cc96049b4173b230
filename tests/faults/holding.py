"""A proxy in front of mongod that holds one command, or its answer, for as long as a test wants."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from backhaul_testing.proxy import End, Proxy
from bson import decode

_HEADER_BYTES = 16
_SECTION = 21
"""Where the body of an OP_MSG begins: after the header, the flags, and the kind of its first section."""


class HoldingProxy(Proxy):
    """``async with HoldingProxy(port) as proxy``: connect to ``proxy.uri``; say ``proxy.hold(…)`` when it is time.

    What is held is one message, and whatever comes behind it on its connection. Others go through.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
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
        # Direct, as the server's own address would lead around this proxy.
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def hold(self, what: Literal["command", "answer"], wanted: Callable[[bytes], bool]) -> None:
        """Hold the next command that is ``wanted``, by its bytes; or the answer to it."""
        self.commands.clear()
        self._what, self._wanted = what, wanted

    def release(self) -> None:
        """Pass on what is held."""
        self._release.set()

    async def join(self, client: End) -> None:
        """See Proxy."""
        server = await self.server()
        ways = await self.first_of(self._to_server(client, server), self._from_server(server, client))
        # The client may have given up waiting for what is held; the server gets it, and answers, all the same.
        if self.held.is_set() and not self.answer.done():
            await asyncio.wait(ways)
        server.writer.close()

    async def _to_server(self, source: End, target: End) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                message, request, _ = await _read(source.reader)
                self.commands.append(message)
                if self._wanted is not None and self._wanted(message):
                    self._wanted, self._request = None, request
                    if self._what == "command":
                        self.held.set()
                        await self._release.wait()
                target.writer.write(message)
                await target.writer.drain()

    async def _from_server(self, source: End, target: End) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                message, _, request = await _read(source.reader)
                if self._request and request == self._request:
                    self._request = 0
                    self.answer.set_result(decode(message[_SECTION:]))
                    if self._what == "answer":
                        self.held.set()
                        await self._release.wait()
                target.writer.write(message)
                await target.writer.drain()


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, int, int]:
    """A message of MongoDB's wire protocol, its number, and the number of what it answers."""
    header = await reader.readexactly(_HEADER_BYTES)
    length, request, answers, _ = struct.unpack("<iiii", header)
    return header + await reader.readexactly(length - _HEADER_BYTES), request, answers
