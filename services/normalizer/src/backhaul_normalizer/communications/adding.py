"""Members of a file are added to a batch, some at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from secrets import token_hex

from backhaul_common.tenants import Tenant

from backhaul_normalizer.communications.files.members import Member, Refused
from backhaul_normalizer.communications.files.reading import MemberFile
from backhaul_normalizer.communications.membership import MemberAt, RefusedError, ToldDestination, ToldMember, checked
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
    found: list[Member] = field(default_factory=list)
    members: list[ToldMember] = field(default_factory=list)
    errors: bytearray = field(default_factory=bytearray)

    @property
    def full(self) -> bool:
        return self.lines >= CHUNK_LINES or self.size >= CHUNK_BYTES or len(self.errors) >= MAX_ERRORS_BYTES

    def refuse(self, file: MemberFile, refused: Sequence[Refused]) -> None:
        self.refused += len(refused)
        self.errors += file.errors(refused)


class Adding:
    """Adds members. What is added stays so when it is interrupted, and the same sent again changes nothing."""

    def __init__(
        self,
        roster: MongoRoster,
        sends: Sends,
        consequences: Consequences,
    ) -> None:
        self._roster = roster
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
        cut off, and its last line is refused.

        INVALID_ARGUMENT for a file that cannot be read; NOT_FOUND; FAILED_PRECONDITION where the batch is closed and
        something would change; UNAVAILABLE. What a progress told of before is stored.
        """
        at, call = await self._roster.place(tenant, batch_id), token_hex(8)
        told, chunk = Progress(), _Chunk()
        accepted = False
        async for some in file.read(pieces, whole):
            if not accepted:
                accepted = True
                yield told
            for found in some:
                self._take(chunk, found, file, tenant, at)
                if chunk.full:
                    told = await self._added(tenant, at, call, chunk, file, told)
                    yield told
                    chunk = _Chunk()
        told = await self._added(tenant, at, call, chunk, file, told, done=True, whole=whole())
        await self._roster.linked(at.batch["_id"], call)
        yield told

    @staticmethod
    def _take(chunk: _Chunk, found: Member | Refused, file: MemberFile, tenant: Tenant, at: MemberAt) -> None:
        if isinstance(found, Refused):
            chunk.lines += 1
            chunk.refuse(file, [found])
            return
        chunk.lines += found.lines
        chunk.size += found.size
        destinations = tuple(ToldDestination(*one) for one in found.destinations)
        told = ToldMember(found.key, tuple(found.attributes), destinations)
        try:
            chunk.members.append(checked(told, at.channel, tenant.channels))
            chunk.found.append(found)
        except RefusedError as exc:
            chunk.refuse(file, found.refuse(exc.violation))

    async def _added(
        self,
        tenant: Tenant,
        at: MemberAt,
        call: str,
        chunk: _Chunk,
        file: MemberFile,
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
        added = await self._roster.add(tenant, at, chunk.members, call, last=done and whole)
        if added.touched:
            await self._consequences.of_members(at.batch["_id"], added.touched)
        if added.closed:
            await self._consequences.of_batch(at.batch["_id"])
        outcomes = Counter(one for one in added.outcomes if isinstance(one, str))
        for found, outcome in zip(chunk.found, added.outcomes, strict=True):
            if not isinstance(outcome, str):
                chunk.refuse(file, found.refuse(outcome))
        return Progress(
            before.lines + chunk.lines,
            before.added + outcomes["added"],
            before.changed + outcomes["changed"],
            before.unchanged + outcomes["unchanged"],
            before.refused + chunk.refused,
            bytes(chunk.errors),
            done,
        )
