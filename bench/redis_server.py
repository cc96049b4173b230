"""What a user would build instead: a set of addresses in Redis, asked with SMISMEMBER."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

from backhaul_local.ports import Hold
from generators import LoadError

_KEY = "suppressed"
_PIPELINED = 5000
_STARTS_WITHIN_S = 10.0


class Redis:
    """A connection of a running server, with as many more as are asked for at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def fill(self, members: Iterable[str]) -> None:
        """Add ``members`` to the set."""
        left = iter(members)
        while some := list(islice(left, _PIPELINED)):
            await self._ask("SADD", [_KEY, *some])

    async def members(self, texts: Sequence[str]) -> list[bool]:
        """Whether each is in the set."""
        return [line == b":1\r\n" for line in await self._ask("SMISMEMBER", [_KEY, *texts])]

    def close(self) -> None:
        """Close every connection."""
        for _, writer in self._idle:
            writer.close()

    async def _ask(self, command: str, arguments: Sequence[str]) -> list[bytes]:
        """The lines of the answer, but for that which says how many there are."""
        words = [command, *arguments]
        request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        connection = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = connection
        writer.write(request.encode("ascii"))
        first = await reader.readline()
        if first[:1] not in (b":", b"*"):
            raise LoadError(f"Redis answered {first!r}.")
        count = int(first[1:]) if first[:1] == b"*" else 0
        # Each line is a digit: `:0` or `:1`.
        answer = await reader.readexactly(4 * count) if count else b""
        self._idle.append(connection)
        return [answer[at : at + 4] for at in range(0, 4 * count, 4)]


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[Redis | None]:
    """A server of its own, in memory alone; None where the machine has none."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        yield None
        return
    hold = Hold()
    [port] = hold.choose(1)
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder))
    server = await asyncio.create_subprocess_exec(program, *options, stdout=asyncio.subprocess.DEVNULL)
    client = Redis(port)
    try:
        async with asyncio.timeout(_STARTS_WITHIN_S):
            await _started(port)
        yield client
    finally:
        client.close()
        server.terminate()
        await server.wait()


async def _started(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)  # A foreign program says nothing when it is ready.
            continue
        writer.close()
        return
