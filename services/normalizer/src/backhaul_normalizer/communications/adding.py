"""Members of a file are added to a batch, some at a time. While some are stored, the next ones are read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from secrets import token_hex

from backhaul_common.lifecycle import cancel
from backhaul_common.metering import Counter as Counted
from backhaul_common.tenants import Tenant

from backhaul_normalizer.communications.files.members import Member, Refused
from backhaul_normalizer.communications.files.reading import MemberFile
from backhaul_normalizer.communications.membership import MemberAt, RefusedError, Told, told_of
from backhaul_normalizer.communications.ports import Consequences, Sends, SentMessage
from backhaul_normalizer.communications.roster import MongoRoster

CHUNK_LINES = 1_000
"""So many lines are added together, and are told of in one answer."""

CHUNK_BYTES = 4 << 20
"""Fewer where they are so long: MongoDB takes 16 MB at once."""

MAX_ERRORS_BYTES = 256 << 10
"""An answer is given before its piece of the file of errors is much larger."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is. ``lines`` and ``refused`` are lines, the others members. ``errors`` is the next piece of the file
    of errors; the rest is as of the whole file."""

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
    members: list[Member] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    sent: list[SentMessage] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    refused_bytes: int = 0

    @property
    def full(self) -> bool:
        return self.lines >= CHUNK_LINES or self.size >= CHUNK_BYTES or self.refused_bytes >= MAX_ERRORS_BYTES

    def refuse(self, refused: Sequence[Refused]) -> None:
        self.refused += refused
        self.refused_bytes += sum(len(one.line.text) for one in refused)


class Adding:
    """Adds members. What is added stays so when it is interrupted, and the same sent again changes nothing."""

    def __init__(self, roster: MongoRoster, sends: Sends, consequences: Consequences, counted: Counted) -> None:
        """``counted`` counts members by tenant and outcome."""
        self._roster = roster
        self._counted = counted
        self._sends = sends
        self._consequences = consequences

    async def run(
        self,
        tenant: Tenant,
        batch_id: str,
        pieces: AsyncIterator[bytes],
        file: MemberFile,
        *,
        whole: Callable[[], bool] = lambda: True,
    ) -> AsyncGenerator[Progress, None]:
        """Read ``pieces`` to their end, and tell how far it is: when the first piece was found in order, and then now
        and again; the last time with ``done``. ``whole`` is asked at the end: where it says no, the file may have been
        cut off: its last line is refused, and the batch does not close.

        INVALID_ARGUMENT for a file that cannot be read; NOT_FOUND; FAILED_PRECONDITION where the batch is closed and
        something would change; UNAVAILABLE. What a progress told of before is stored.
        """
        at, call = await self._roster.place(tenant, batch_id), token_hex(8)
        told, chunk, accepted = Progress(), _Chunk(), False
        storing: asyncio.Task[Progress] | None = None
        try:
            async for found in file.read(pieces, whole):
                if not accepted:
                    accepted = True
                    yield told
                for one in found:
                    _take(chunk, one, at, tenant)
                    if not chunk.full:
                        continue
                    if storing is not None:
                        begun, storing = storing, None
                        told = await begun
                        yield told
                    storing = asyncio.create_task(self._stored(tenant, at, call, chunk, file, told))
                    chunk = _Chunk()
            if storing is not None:
                begun, storing = storing, None
                told = await begun
                yield told
        finally:
            if storing is not None:
                await cancel(storing)
        told = await self._stored(tenant, at, call, chunk, file, told, done=True, closes=whole())
        await self._roster.linked(at.batch["_id"], call)
        yield told

    async def _stored(
        self,
        tenant: Tenant,
        at: MemberAt,
        call: str,
        chunk: _Chunk,
        file: MemberFile,
        before: Progress,
        *,
        done: bool = False,
        closes: bool = False,
    ) -> Progress:
        batch = at.batch["_id"]
        if chunk.sent:
            await self._sends.publish(tenant, at.batch["communication_id"], at.batch["batch_id"], chunk.sent)
        added = await self._roster.add(tenant, at, chunk.told, call, last=closes)
        if added.touched:
            await self._consequences.of_members(batch, added.touched)
        if added.closed:
            await self._consequences.of_batch(batch)
        for member, outcome in zip(chunk.members, added.outcomes, strict=True):
            if not isinstance(outcome, str):
                chunk.refuse(member.refuse(outcome))
        outcomes = Counter(one for one in added.outcomes if isinstance(one, str))
        for became, count in (*outcomes.items(), ("refused", len(chunk.refused))):
            self._counted.add(tenant.id, became, amount=count)
        return Progress(
            before.lines + chunk.lines,
            before.added + outcomes["added"],
            before.changed + outcomes["changed"],
            before.unchanged + outcomes["unchanged"],
            before.refused + len(chunk.refused),
            file.errors(sorted(chunk.refused, key=lambda one: one.line.number)),
            done,
        )


def _take(chunk: _Chunk, one: Member | Refused, at: MemberAt, tenant: Tenant) -> None:
    """Have ``chunk`` hold what was read."""
    if isinstance(one, Refused):
        chunk.lines += 1
        chunk.refuse([one])
        return
    chunk.lines += one.lines
    try:
        told = told_of(one.key, one.attributes, one.destinations, at, tenant.channels)
    except RefusedError as exc:
        chunk.refuse(one.refuse(exc.violation))
        return
    chunk.members.append(one)
    chunk.told.append(told)
    chunk.size += one.size
    for channel, recipient, message_id in one.destinations:
        if message_id:
            chunk.sent.append(SentMessage(channel or at.channel, message_id, recipient, one.key))
