"""Reads a file of members in either format."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from typing import Protocol

from backhaul_common.lines.formats import ERRORS, FileFormat
from backhaul_common.lines.turns import in_turns

from backhaul_normalizer.communications.files.csv_members import CsvMembers
from backhaul_normalizer.communications.files.json_members import JsonMembers
from backhaul_normalizer.communications.files.members import Member, Refused


class _Reader(Protocol):
    @property
    def columns(self) -> tuple[str, ...]: ...

    def feed(self, piece: bytes) -> Iterator[Member | Refused]: ...

    def end(self, *, whole: bool) -> Iterator[Member | Refused]: ...


class MemberFile:
    """One file, read once. ``clock`` is in seconds, and never goes back."""

    def __init__(self, file_format: FileFormat, clock: Callable[[], float] = time.monotonic) -> None:
        self._format = file_format
        self._clock = clock
        self._reader: _Reader = CsvMembers() if file_format is FileFormat.CSV else JsonMembers()
        self._headed = False

    def read(
        self, pieces: AsyncIterator[bytes], whole: Callable[[], bool] = lambda: True
    ) -> AsyncGenerator[list[Member | Refused], None]:
        """What was read, some at a time, in the order of the file; once for each piece at least. ``whole`` is asked
        when ``pieces`` have ended: where it says no, the last line is refused, since it may be half of one.

        INVALID_ARGUMENT, of the field ``data``, for a CSV file whose header is not understood.
        """
        return in_turns(pieces, self._reader.feed, lambda: self._reader.end(whole=whole()), self._clock)

    def errors(self, refused: Iterable[Refused]) -> bytes:
        """The next piece of the file of errors."""
        written, columns = ERRORS[self._format], self._reader.columns
        told = b"".join(written.line(columns, line, problem) for line, problem in refused)
        if not told or self._headed:
            return told
        self._headed = True
        return written.header(columns) + told
