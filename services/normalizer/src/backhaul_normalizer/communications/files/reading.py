"""Reads a file of members in either format."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from typing import Protocol

from backhaul_common.lines.formats import ERRORS, FileFormat

from backhaul_normalizer.communications.files.csv_members import CsvMembers
from backhaul_normalizer.communications.files.json_members import JsonMembers
from backhaul_normalizer.communications.files.members import Member, Refused

MAX_FOUND = 1_000
"""So many members and refused lines are given together at most."""

MAX_HELD_S = 0.002
"""So long lines are read before others may do something. The process answers other calls, and folds, meanwhile."""


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

    async def read(
        self, pieces: AsyncIterator[bytes], whole: Callable[[], bool] = lambda: True
    ) -> AsyncGenerator[list[Member | Refused], None]:
        """What was read, some at a time, in the order of the file; once for each piece at least. ``whole`` is asked
        when ``pieces`` have ended: where it says no, the last line is refused, since it may be half of one.

        INVALID_ARGUMENT, of the field ``data``, for a CSV file whose header is not understood.
        """
        async for piece in pieces:
            async for found in self._in_turns(self._reader.feed(piece)):
                yield found
        async for found in self._in_turns(self._reader.end(whole=whole())):
            yield found

    def errors(self, refused: Iterable[Refused]) -> bytes:
        """The next piece of the file of errors."""
        written, columns = ERRORS[self._format], self._reader.columns
        told = b"".join(written.line(columns, line, problem) for line, problem in refused)
        if not told or self._headed:
            return told
        self._headed = True
        return written.header(columns) + told

    async def _in_turns(self, read: Iterator[Member | Refused]) -> AsyncGenerator[list[Member | Refused], None]:
        found: list[Member | Refused] = []
        until = self._clock() + MAX_HELD_S
        for one in read:
            found.append(one)
            if self._clock() > until or len(found) == MAX_FOUND:
                yield found
                await asyncio.sleep(0)
                found, until = [], self._clock() + MAX_HELD_S
        yield found
