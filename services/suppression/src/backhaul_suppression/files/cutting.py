"""Lines out of pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from backhaul_suppression.files.line import MAX_LINE_BYTES

_BOM = b"\xef\xbb\xbf"
_BREAK = re.compile(rb"\r\n|\r|\n")


class Cut(NamedTuple):
    """``raw`` is the line with its line break; of one that is too long, its first ``MAX_LINE_BYTES`` + 1."""

    number: int
    raw: bytes

    @property
    def too_long(self) -> bool:
        """Whether it has more than ``MAX_LINE_BYTES``."""
        return len(self.raw) > MAX_LINE_BYTES


class Cutter:
    """Cuts a file into lines, however it comes in pieces. CRLF, LF and CR each end a line; a BOM is taken off.

    Keeps one line at most, and of that no more than ``MAX_LINE_BYTES`` + 1.
    """

    def __init__(self) -> None:
        self._number = 1
        self._parts: list[bytes] = []
        self._size = 0
        self._after_return = False
        """A return ends what is kept, and whether a line feed follows is not known yet."""

    def feed(self, piece: bytes) -> Iterator[Cut]:
        """The lines that ``piece`` completes. To be read to its end."""
        begin = 0
        if self._after_return and piece:
            begin = 1 if piece.startswith(b"\n") else 0
            self._keep(piece[:begin])
            self._after_return = False
            yield self._line()
        for match in _BREAK.finditer(piece, begin):
            end = match.end()
            if end == len(piece) and piece.endswith(b"\r"):
                break
            self._keep(piece[begin:end])
            begin = end
            yield self._line()
        if begin < len(piece):
            self._keep(piece[begin:])
            self._after_return = piece.endswith(b"\r")

    def end(self) -> Iterator[Cut]:
        """The last line, if no line break was behind it."""
        if self._size:
            self._after_return = False
            yield self._line()

    def _keep(self, part: bytes) -> None:
        room = MAX_LINE_BYTES + 1 - self._size
        if room > 0 and part:
            self._parts.append(part[:room])
            self._size += len(self._parts[-1])

    def _line(self) -> Cut:
        raw = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        cut = Cut(self._number, raw)
        if self._number == 1 and not cut.too_long:
            cut = Cut(1, raw.removeprefix(_BOM))
        self._parts.clear()
        self._size = 0
        self._number += 1
        return cut
