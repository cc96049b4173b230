"""Which events lie in a file of which nobody remembers them: read from its lines, where these name their events."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime, timedelta

import msgspec

from backhaul_audit.contents import SLOT_US, Content, id_bytes
from backhaul_audit.model import Shape

MAX_LINE_BYTES = 64 << 20
"""No line that is filed is longer. Whoever wrote a longer one, nothing is made of it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Event(msgspec.Struct):
    id: str
    revision: int
    received_at: str | None = None


class _Line(msgspec.Struct):
    event: _Event


_decode = msgspec.json.Decoder(_Line).decode
"""Reads past all else."""


class Inside:
    """Takes the inflated bytes of a file of ``shape``, piece by piece."""

    def __init__(self, shape: Shape) -> None:
        self._content: Content | None = Content() if shape.with_event or shape.encrypted else None
        self._line = bytearray()

    def add(self, piece: bytes) -> None:
        """The next of its bytes."""
        if self._content is None:
            return
        begun, *lines = piece.split(b"\n")
        self._line += begun
        for line in lines:
            self._take(self._line)
            self._line = bytearray(line)
        if len(self._line) > MAX_LINE_BYTES:
            self._content = None

    def content(self, events: int) -> Content | None:
        """The ids, revisions and times of arrival of the file's events, of which there are so many; nothing else of a
        ``Content``. None where its lines do not tell."""
        content = self._content
        return content if content is not None and len(content.revisions) == events else None

    def _take(self, line: bytearray) -> None:
        if self._content is None or len(line) == 1:  # The ends of a file that is an array.
            return
        try:
            event = _decode(memoryview(line).toreadonly()[: len(line) - line.endswith(b",")]).event
            self._content.ids += id_bytes(event.id)
            self._content.revisions.extend(array("I", [event.revision]))
            self._content.slots.add(_unix_us(event.received_at) // SLOT_US)
        except (msgspec.DecodeError, TypeError, ValueError, OverflowError):
            self._content = None


def _unix_us(text: str | None) -> int:
    """0 where no time is known."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1) if text else 0
