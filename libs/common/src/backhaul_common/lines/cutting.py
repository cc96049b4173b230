"""Lines out of pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from backhaul_common.lines.line import MAX_LINE_BYTES

_BOM = b"\xef\xbb\xbf"
_WINDOW_BYTES = MAX_LINE_BYTES
"""So much is cut at once: what is nothing but line breaks must not become a million lines that are held together."""


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

    Keeps one line at most, and of that no more than ``MAX_LINE_BYTES`` + 1. ``blank``: whether lines that are blank are
    given too. A million of them come in a megabyte, so they are left out here, where each costs least.
    """

    def __init__(self, *, blank: bool = True) -> None:
        self._blank = blank
        self._number = 1
        self._parts: list[bytes] = []
        self._size = 0
        self._after_return = False
        """A return ends what is kept, and whether a line feed follows is not known yet."""

    def feed(self, piece: bytes) -> Iterator[Cut]:
        """The lines that ``piece`` completes. To be read to its end."""
        for begin in range(0, len(piece), _WINDOW_BYTES):
            yield from self._window(piece[begin : begin + _WINDOW_BYTES])

    def _window(self, part: bytes) -> Iterator[Cut]:
        if self._after_return:
            if part.startswith(b"\n"):
                self._keep(b"\n")
                part = part[1:]
            self._after_return = False
            yield from self._line()
        lines = part.splitlines(keepends=True)
        rest = lines.pop() if lines and not part.endswith(b"\n") else b""
        for raw in lines:
            if self._parts or self._number == 1:
                self._keep(raw)
                yield from self._line()
            else:
                # By far the most lines: nothing of them was kept.
                number, self._number = self._number, self._number + 1
                if self._blank or not raw.isspace():
                    yield Cut(number, raw)
        self._keep(rest)
        self._after_return = rest.endswith(b"\r")

    def end(self) -> Iterator[Cut]:
        """The last line, if no line break was behind it."""
        if self._size:
            self._after_return = False
            yield from self._line()

    def _keep(self, part: bytes) -> None:
        room = MAX_LINE_BYTES + 1 - self._size
        if room > 0 and part:
            self._parts.append(part[:room])
            self._size += len(self._parts[-1])

    def _line(self) -> Iterator[Cut]:
        raw = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        cut = Cut(self._number, raw)
        if self._number == 1 and not cut.too_long:
            cut = Cut(1, raw.removeprefix(_BOM))
        self._parts.clear()
        self._size = 0
        self._number += 1
        if self._blank or cut.too_long or cut.raw.strip():
            yield cut
