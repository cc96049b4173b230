"""Files that a visitor sends: passed on as they come, and never held. What is sent to them is in ``streaming.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from backhaul_console.bounds import STEADY_BODY
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
        self._scope = request.scope
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
        # As long as the API takes it, it may take as long as it likes; what stands around it has a form's time.
        self._scope[STEADY_BODY] = object()
        try:
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
        finally:
            self._scope.pop(STEADY_BODY, None)

    async def rest(self) -> None:
        """Read what nobody wants: a browser shows no answer before it has sent all."""
        # Whoever took its pieces may have left in their middle.
        self._scope.pop(STEADY_BODY, None)
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
