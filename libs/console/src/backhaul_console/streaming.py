"""Answers that come piece by piece: files, and pages that tell how far something is."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from backhaul_client import BackhaulError
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from backhaul_console.texts import _
from backhaul_console.visits import Visit


class Streamed(StreamingResponse):
    """``pieces`` as they come. They are closed when the browser goes away, and with them what the API is asked."""

    def __init__(self, pieces: AsyncGenerator[Any, None], **more: Any) -> None:
        super().__init__(pieces, **more)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as Starlette has it."""
        async with aclosing(self._pieces):
            await super().__call__(scope, receive, send)


async def streamed_page(visit: Visit, template: str, rows: AsyncGenerator[str, None], **values: Any) -> Streamed:
    """The page of a template, with ``rows`` of markup in the place of its ``{{ stream }}``, each when it comes. It
    needs no JavaScript. Raises what the first row does, while it can still be a page of its own."""
    first = await anext(rows, "")
    place = secrets.token_hex(16)
    whole = visit.templates.get_template(template).render(visit=visit, stream=place, **values)
    head, _place, tail = whole.partition(place)

    async def pieces() -> AsyncGenerator[str, None]:
        # Joined, and not added: what a template gives is markup, to which all else would be escaped.
        yield "".join((head, first))
        async with aclosing(rows):
            try:
                async for row in rows:
                    yield row
            except BackhaulError:
                yield visit.templates.get_template("broken.html").render(
                    text=_("The API broke off here, so this is not all. Load the page again.")
                )
        yield tail

    return Streamed(pieces(), media_type="text/html")


async def download(name: str, pieces: AsyncIterator[bytes], media_type: str = "application/octet-stream") -> Streamed:
    """A file to be kept, which no browser renders whatever it holds. Raises what its first piece does; what fails later
    cuts the answer off, which is the only way left to say so."""
    first = await anext(aiter(pieces), b"")

    async def all_of_it() -> AsyncGenerator[bytes, None]:
        async with _closing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in name)
    headers = {"content-disposition": f'attachment; filename="{safe}"'}
    return Streamed(all_of_it(), media_type=media_type, headers=headers)


@asynccontextmanager
async def _closing(pieces: AsyncIterator[Any]) -> AsyncGenerator[None, None]:
    """Closes what the client iterates over, which is a generator."""
    try:
        yield
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


async def beginning(pieces: AsyncIterator[bytes], most: int) -> tuple[bytes, bool]:
    """The first ``most`` bytes, and whether there are more."""
    taken = bytearray()
    async with _closing(pieces):
        async for piece in pieces:
            taken += piece
            if len(taken) > most:
                return bytes(taken[:most]), True
    return bytes(taken), False
