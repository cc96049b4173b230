"""Server-Sent Events, by which a page shows what happens meanwhile: an answer that goes on until its visitor leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

MEDIA_TYPE = "text/event-stream"


class EventStream(Response):
    """Sends pieces as they come. They are closed when they end, or when whoever asked has hung up."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        # Not the base's own: it would make the headers of an empty answer.
        self.status_code = 200
        self.background = None
        # Whatever buffers answers on their way is asked not to.
        self.raw_headers = [(b"content-type", MEDIA_TYPE.encode()), (b"x-accel-buffering", b"no")]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Answer."""
        sending, leaving = asyncio.create_task(self._send(send)), asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait((sending, leaving))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except Exception:
            # It has been told of, and goes to the log: the answer is whole.
            await send({"type": "http.response.body", "body": b""})
            raise
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def told(data: str = "", *, id_: str = "", event: str = "", retry_ms: int = 0) -> bytes:
    """One message. Without a name (``event``) its data is put into the page; one with neither data nor name only says
    how far its reader is."""
    # A lone \r ends a line as well, and could begin a field of its own. Anything else stays as it is.
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n") if data or event else []
    head = [f"id: {id_}"] if id_ else []
    if event:
        head.append(f"event: {event}")
    if retry_ms:
        head.append(f"retry: {retry_ms}")
    return "\n".join([*head, *(f"data: {line}" for line in lines), "", ""]).encode("utf-8", "replace")


STILL_HERE = b": still here\n\n"
"""Proxies often close what is silent for a minute."""
