"""HTTP/1.1 over bare sockets, as far as a webhook needs it: a tenth of the price of a general client, so that whoever
measures or floods a gateway is not the limit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from backhaul_testing.posts import Post

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 15.0
"""What Twilio waits at most, for the connection and for the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``closes``: whether the server ends the connection after it."""

    status: int
    body: bytes
    closes: bool = False


def encoded(post: Post) -> bytes:
    """``post`` as bytes on the wire."""
    parts = urlsplit(post.url)
    headers = [("Host", parts.netloc), *post.headers, ("Content-Length", str(len(post.body)))]
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    target = parts._replace(scheme="", netloc="", fragment="").geturl()
    return f"POST {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + post.body


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """The next answer of a connection; asyncio.IncompleteReadError when it ends before."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    body = await reader.readexactly(int(length or 0))
    return Answer(int(head[9:12]), body, closes=b"\r\nconnection: close" in head)


class Connection:
    """One kept-open connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        """A new one; OSError where nobody listens."""
        return cls(*await asyncio.open_connection(host, port))

    @property
    def ended(self) -> bool:
        """Whether the other side is known to have ended it."""
        return self._reader.at_eof()

    async def ask(self, request: bytes) -> Answer:
        """Send a request, and read its answer. Raises OSError or asyncio.IncompleteReadError when it is cut."""
        self._writer.write(request)
        return await read_answer(self._reader)

    def close(self) -> None:
        """Let go of it."""
        self._writer.close()


class Wire:
    """``async with Wire() as wire``; one request at a time. Connects when first used, and again whenever it must."""

    def __init__(self) -> None:
        self._address = ("", 0)
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._close()

    async def once(self, post: Post) -> int | str:
        """One try: the status, or what failed. It is a ``ConnectError`` only if nothing can have been received."""
        parts = urlsplit(post.url)
        address = (parts.hostname or "", parts.port or 80)
        if self._connection is None or self._connection.ended or self._address != address:
            self._close()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    self._connection = await Connection.open(*address)
            except TimeoutError:
                return "ConnectTimeout"
            except OSError:
                return "ConnectError"
            self._address = address
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = await self._connection.ask(encoded(post))
        except TimeoutError:
            failure = "ReadTimeout"
        except (OSError, asyncio.IncompleteReadError):
            failure = "ReadError"
        else:
            if answer.closes:
                self._close()
            return answer.status
        self._close()
        return failure

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
