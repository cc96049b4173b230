"""Files that a visitor sends or is sent: passed on as they come, and never held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from backhaul_console.forms import wrong
from backhaul_console.texts import _

MAX_BESIDE_BYTES = 64 << 10
"""What a form may have before its file."""


class Upload:
    """A form with one file, which stands behind its fields. ``await begin()``, then pass ``pieces()`` on."""

    def __init__(self, request: Request, field: str = "file") -> None:
        self.fields: dict[str, str] = {}
        """What was typed before the file."""
        self.name = ""
        """The file's, as the visitor has it; empty where none was chosen."""
        self._field = field
        self._stream = request.stream()
        self._header = self._value = b""
        self._disposition = b""
        self._now: bytearray | None = None
        self._is_file = False
        self._began = self._ended = False
        self._ready: list[bytes] = []
        options = parse_options_header(request.headers.get("content-type", ""))[1]
        self._boundary = options.get(b"boundary", b"")

    async def begin(self) -> None:
        """Read until the file begins. Raises as the API would for what is no such form."""
        if not self._boundary:
            raise self._not_whole()
        try:
            self._parser = MultipartParser(
                self._boundary,
                {
                    "on_part_begin": self._part,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                },
            )
        except FormParserError:
            raise self._not_whole() from None
        read = 0
        while not self._began:
            piece = await anext(self._stream, b"")
            # The stream's last piece is empty.
            if not piece or read > MAX_BESIDE_BYTES:
                raise self._not_whole()
            read += len(piece)
            try:
                self._parser.write(piece)
            except FormParserError:
                raise self._not_whole() from None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The file as it comes. Raises ClientDisconnect where it is not whole, as its reader knows from any client."""
        while True:
            for ready in self._ready:
                yield ready
            self._ready.clear()
            if self._ended:
                return
            piece = await anext(self._stream, b"")
            # The stream's last piece is empty.
            if not piece:
                raise ClientDisconnect
            try:
                self._parser.write(piece)
            except FormParserError:
                raise ClientDisconnect from None

    async def rest(self) -> None:
        """Read what nobody wants: a browser shows no answer before it has sent all."""
        async for _piece in self._stream:
            pass

    def _part(self) -> None:
        self._now, self._disposition, self._is_file = bytearray(), b"", False

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers(self) -> None:
        options = parse_options_header(self._disposition)[1]
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == self._field and not self._began:
            self._began = self._is_file = True
            self.name = options.get(b"filename", b"").decode("utf-8", "replace")
            self._now = None
        elif self._began:
            # Behind the file nothing is expected.
            self._now = None
        else:
            self._typed = name

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._ready.append(data[start:end])
        elif self._now is not None:
            self._now += data[start:end]

    def _end(self) -> None:
        if self._is_file:
            self._is_file, self._ended = False, True
        elif self._now is not None:
            self.fields[self._typed] = self._now.decode("utf-8", "replace").strip()

    def _not_whole(self) -> Exception:
        return wrong(
            self._field, _("The file did not come whole."), _("Choose it once more, and send it. Nothing is doubled.")
        )


class Passed(Response):
    """A download: pieces as they come. What fails before the first one is raised by ``begun``; what fails later cuts
    the answer off, which is the only way left to say so. It is given up when the visitor has gone."""

    def __init__(self, first: bytes, pieces: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        # Not the base's own: it would make the headers of an empty answer.
        self.status_code = 200
        self.background = None
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._first = first
        self._pieces = pieces

    @classmethod
    async def begun(cls, pieces: AsyncIterator[bytes], *, name: str, media_type: str) -> Passed:
        """The response, when its first piece is there. ``name``: the file's, in ASCII."""
        # What clients pass on is a generator of their transport's.
        passed = cast("AsyncGenerator[bytes, None]", pieces)
        first = await anext(passed, b"")
        headers = {"content-type": media_type, "content-disposition": f'attachment; filename="{name}"'}
        return cls(first, passed, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        del scope
        sending, leaving = asyncio.create_task(self._send(send)), asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait((sending, leaving))

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
