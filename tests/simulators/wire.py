"""One keep-alive connection of a webhook sender, over a bare socket: HTTP/1.1 as far as a webhook needs it."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Self
from urllib.parse import urlsplit

from simulators.posts import Post

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 15.0
"""What Twilio waits at most, for the connection and for the answer."""


class Wire:
    """``async with Wire() as wire``; one request at a time. Connects when first used, and again whenever it must."""

    def __init__(self) -> None:
        self._address = ("", 0)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self._close()

    async def once(self, post: Post) -> int | str:
        """One try: the status, or what failed. It is a ``ConnectError`` only if nothing can have been received."""
        parts = urlsplit(post.url)
        address = (parts.hostname or "", parts.port or 80)
        if self._reader is None or self._reader.at_eof() or self._address != address:
            self._close()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    self._reader, self._writer = await asyncio.open_connection(*address)
            except TimeoutError:
                return "ConnectTimeout"
            except OSError:
                return "ConnectError"
            self._address = address
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self._exchange(post, parts.netloc, f"{parts.path}?{parts.query}")
        except TimeoutError:
            failure = "ReadTimeout"
        except (OSError, asyncio.IncompleteReadError):
            failure = "ReadError"
        self._close()
        return failure

    async def _exchange(self, post: Post, host: str, target: str) -> int:
        assert self._reader is not None
        assert self._writer is not None
        lines = [f"POST {target} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(post.body)}"]
        lines += [f"{name}: {value}" for name, value in post.headers]
        self._writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + post.body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head[9:12])
        length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
        await self._reader.readexactly(int(length.partition(":")[2]))
        if "\r\nconnection: close" in head:
            self._close()
        return status

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
