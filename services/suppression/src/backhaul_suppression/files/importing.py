"""Import: lines of a list become facts, a few thousand at a time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lines.formats import FileFormat, Reader
from backhaul_common.lines.line import CUT_OFF, Line
from backhaul_common.lines.turns import in_turns

from backhaul_suppression.files.formats import FORMATS
from backhaul_suppression.files.statements import Defaults, LineError, facts_of
from backhaul_suppression.model import EVERYTHING, Address, Fact, RowKey, Target
from backhaul_suppression.ports import Facts, Narrow
from backhaul_suppression.room import no_room

CHUNK_LINES = 2_000
"""So many lines become facts together, and are told of in one answer."""

MAX_ERRORS_BYTES = 256 << 10
"""An answer is given before its piece of the file of errors is much larger."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is. ``errors`` is the next piece of the file of errors; the rest is as of the whole file."""

    lines: int
    changed: int
    unchanged: int
    refused: int
    errors: bytes
    done: bool = False


@dataclass(slots=True)
class _Chunk:
    """What was read and is not recorded yet. ``own`` are the ids of facts about addresses that lines name."""

    lines: int = 0
    refused: int = 0
    facts: dict[str, Fact] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    narrow: dict[Address, set[Target]] = field(default_factory=lambda: defaultdict(set))
    errors: bytearray = field(default_factory=bytearray)

    @property
    def full(self) -> bool:
        return self.lines >= CHUNK_LINES or len(self.errors) >= MAX_ERRORS_BYTES


class Import:
    """Takes lists over. It only suppresses: nothing in a list lifts anything.

    What is recorded stays recorded when an import is interrupted, and the same list sent again goes on from there,
    since a line is the same fact whenever it is sent.
    """

    def __init__(self, facts: Facts, rows: Narrow, clock: Callable[[], float] = time.monotonic) -> None:
        self._facts = facts
        self._rows = rows
        self._clock = clock

    async def run(
        self,
        pieces: AsyncIterator[bytes],
        file_format: FileFormat,
        defaults: Defaults,
        *,
        whole: Callable[[], bool] = lambda: True,
    ) -> AsyncGenerator[Progress, None]:
        """Read ``pieces`` to their end, and tell how far it is: when the first piece was found in order, and then now
        and again; the last time with ``done``. ``whole`` is asked then: where it says no, the file may have been cut
        off, and half a number is another number.

        INVALID_ARGUMENT for a file without a header that is understood; NOT_FOUND when the tenant is deleted
        meanwhile; UNAVAILABLE. What a progress told of before is recorded.
        """
        written = FORMATS[file_format]
        reader = written.reader()
        told = Progress(0, 0, 0, 0, b"")
        chunk, headed, accepted = _Chunk(), False, False
        read = in_turns(
            pieces,
            lambda piece: _read(reader.feed(piece), defaults),
            lambda: _read(_left(reader, whole), defaults),
            self._clock,
        )
        async for lines in read:
            if not accepted:
                accepted = True
                yield told
            for line, said in lines:
                chunk.lines += 1
                try:
                    self._take(chunk, said)
                except LineError as exc:
                    chunk.refused += 1
                    if not headed:
                        chunk.errors += written.error_header(reader.columns)
                        headed = True
                    chunk.errors += written.error_line(reader.columns, line, exc.problem)
                if chunk.full:
                    told = await self._recorded(chunk, told)
                    yield told
                    chunk = _Chunk()
        told = await self._recorded(chunk, told, done=True)
        yield told

    def _take(self, chunk: _Chunk, facts: Sequence[Fact] | LineError) -> None:
        """Have ``chunk`` hold ``facts`` of a line, the first of which is the one of the address that it names.
        LineError where there are none, or an address has no room for it."""
        if isinstance(facts, LineError):
            raise facts
        narrow = [(one.address, target) for one in facts for target in one.targets if target.scope != EVERYTHING]
        for address, target in narrow:
            if wrong := no_room({*self._rows.narrow(address), *chunk.narrow[address]}, target):
                raise LineError(wrong)
        for address, target in narrow:
            chunk.narrow[address].add(target)
        for fact in facts:
            chunk.facts.setdefault(fact.id, fact)
        chunk.own.update(fact.id for fact in facts[:1])

    async def _recorded(self, chunk: _Chunk, before: Progress, *, done: bool = False) -> Progress:
        changed = 0
        if chunk.facts:
            facts = list(chunk.facts.values())
            recorded = await self._facts.record(facts)
            if any(_row_id(fact) not in recorded.rows for fact in facts):
                # A fact that suppresses has a row for ever, but where its registration is gone.
                raise BackhaulError(Code.NOT_FOUND, "The tenant was deleted.", field="tenant_id")
            # A row that is there now but lifted is there because a later word overrules the line.
            active = {change.fact.id for change in recorded.changes if change.row.active}
            changed = len(active & chunk.own)
        return Progress(
            before.lines + chunk.lines,
            before.changed + changed,
            before.unchanged + chunk.lines - chunk.refused - changed,
            before.refused + chunk.refused,
            bytes(chunk.errors),
            done,
        )


def _read(lines: Iterable[Line], defaults: Defaults) -> Iterator[tuple[Line, Sequence[Fact] | LineError]]:
    """What each line says, or why it says nothing. That takes most of the time, so it belongs to the reading."""
    for line in lines:
        try:
            yield line, facts_of(line, defaults)
        except LineError as exc:
            yield line, exc


def _left(reader: Reader, whole: Callable[[], bool]) -> Iterator[Line]:
    """What is left when the file has ended; refused where that is not its end."""
    for line in reader.end():
        yield line if whole() or line.problem else line._replace(values={}, problem=CUT_OFF)


def _row_id(fact: Fact) -> str:
    target = fact.targets[0]
    return RowKey(fact.address, target.kind, target.scope).id
