"""Members of a file are added to a batch, some at a time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from backhaul_common.errors import Violation
from backhaul_common.tenants import Tenant

from backhaul_normalizer.communications.lines import Read
from backhaul_normalizer.communications.membership import MemberAt, RefusedError, ToldMember, checked
from backhaul_normalizer.communications.ports import Consequences, Sends, SentMessage
from backhaul_normalizer.communications.roster import MongoRoster

CHUNK_LINES = 1_000
"""So many lines are added together, and are told of in one answer."""

CHUNK_BYTES = 4 << 20
"""Fewer where they are so long: MongoDB takes 16 MB at once."""

MAX_ERRORS_BYTES = 256 << 10
"""An answer is given before its piece of the file of errors is much larger."""

MAX_HELD_S = 0.002
"""So long lines are read before others may do something."""


class Reader(Protocol):
    """Reads members out of pieces that are cut anywhere. INVALID_ARGUMENT for a file of which no line can be read."""

    def feed(self, piece: bytes) -> Iterator[Read]:
        """The lines that ``piece`` completes. To be read to its end."""
        ...

    def end(self) -> Iterator[Read]:
        """What is left when the file has ended."""
        ...

    def error(self, read: Read, problem: Violation) -> bytes:
        """The line of a file of errors; of the first one, what such a file begins with in front of it."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is. ``errors`` is the next piece of the file of errors; the rest is as of the whole file."""

    lines: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: int = 0
    errors: bytes = b""
    done: bool = False


@dataclass(slots=True)
class _Chunk:
    """What was read and is not added yet."""

    lines: int = 0
    size: int = 0
    refused: int = 0
    reads: list[Read] = field(default_factory=list)
    members: list[ToldMember] = field(default_factory=list)
    errors: bytearray = field(default_factory=bytearray)

    @property
    def full(self) -> bool:
        return self.lines >= CHUNK_LINES or self.size >= CHUNK_BYTES or len(self.errors) >= MAX_ERRORS_BYTES


class Adding:
    """Adds members. What is added stays so when it is interrupted, and the same sent again changes nothing."""

    def __init__(
        self,
        roster: MongoRoster,
        sends: Sends,
        consequences: Consequences,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._roster = roster
        self._sends = sends
        self._consequences = consequences
        self._clock = clock

    async def run(
        self,
        tenant: Tenant,
        batch_id: str,
        pieces: AsyncIterator[bytes],
        reader: Reader,
        *,
        whole: Callable[[], bool] = lambda: True,
    ) -> AsyncGenerator[Progress, None]:
        """Read ``pieces`` to their end, and tell how far it is: when the first piece was found in order, and then now
        and again; the last time with ``done``. ``whole`` is asked at the end: where it says no, the file may have been
        cut off, and its last line counts for nothing.

        INVALID_ARGUMENT for a file that cannot be read; NOT_FOUND; FAILED_PRECONDITION where the batch is closed and
        something would change; UNAVAILABLE. What a progress told of before is stored.
        """
        at = await self._roster.place(tenant, batch_id)
        told, chunk = Progress(), _Chunk()
        async for read in self._reads(reader, pieces, whole):
            if read is None:
                if not told.lines:
                    yield told
                continue
            self._take(chunk, read, reader, tenant, at)
            if chunk.full:
                told = await self._added(tenant, at, chunk, reader, told)
                yield told
                chunk = _Chunk()
        told = await self._added(tenant, at, chunk, reader, told, done=True, whole=whole())
        yield told

    async def _reads(
        self, reader: Reader, pieces: AsyncIterator[bytes], whole: Callable[[], bool]
    ) -> AsyncIterator[Read | None]:
        """The lines of all pieces. None is where the first piece ends."""
        began, first = self._clock(), True
        async for piece in pieces:
            for read in reader.feed(piece):
                yield read
                if self._clock() - began > MAX_HELD_S:
                    await asyncio.sleep(0)
                    began = self._clock()
            if first:
                yield None
                first = False
        if whole():
            for read in reader.end():
                yield read

    @staticmethod
    def _take(chunk: _Chunk, read: Read, reader: Reader, tenant: Tenant, at: MemberAt) -> None:
        chunk.lines += 1
        chunk.size += len(read.text)
        problem = read.problem
        if read.member is not None:
            try:
                chunk.members.append(checked(read.member, at.channel, tenant.channels))
                chunk.reads.append(read)
            except RefusedError as exc:
                problem = exc.violation
        if problem is not None:
            chunk.refused += 1
            chunk.errors += reader.error(read, problem)

    async def _added(
        self,
        tenant: Tenant,
        at: MemberAt,
        chunk: _Chunk,
        reader: Reader,
        before: Progress,
        *,
        done: bool = False,
        whole: bool = False,
    ) -> Progress:
        sent = [
            SentMessage(one.channel, one.message_id, one.recipient, member.key)
            for member in chunk.members
            for one in member.destinations
            if one.message_id
        ]
        if sent:
            await self._sends.publish(tenant, at.batch["communication_id"], at.batch["batch_id"], sent)
        added = await self._roster.add(tenant, at, chunk.members, last=done and whole)
        if added.touched:
            await self._consequences.of_members(tenant, at.batch["_id"], added.touched)
        if added.closed:
            await self._consequences.of_batch(at.batch["_id"])
        outcomes = Counter(one for one in added.outcomes if isinstance(one, str))
        for read, outcome in zip(chunk.reads, added.outcomes, strict=True):
            if not isinstance(outcome, str):
                chunk.refused += 1
                chunk.errors += reader.error(read, outcome)
        return Progress(
            before.lines + chunk.lines,
            before.added + outcomes["added"],
            before.changed + outcomes["changed"],
            before.unchanged + outcomes["unchanged"],
            before.refused + chunk.refused,
            bytes(chunk.errors),
            done,
        )
