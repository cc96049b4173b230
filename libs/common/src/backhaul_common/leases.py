"""Which copy of a service works on what: a lease in its document by MongoDB's clock, whose epoch fences what is stored.

No clock of a copy decides anything: the lease only says when another copy may take the thing, and whoever has lost it
stores nothing more, however long it slept. A document that can be leased has ``owner`` (empty: nobody), ``epoch``,
which grows with each taking, and ``until``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pymongo import UpdateOne

from backhaul_common import mongo
from backhaul_common.documents import Document

LEASE_S: Final = 20.0
"""How long a copy that is not heard of keeps what it holds."""

RENEW_S: Final = 4.0

_MARGIN_S: Final = 2.0

_LEASE_MS: Final = int(LEASE_S * 1000)
_UNTIL: Final[Document] = {"$add": ["$$NOW", _LEASE_MS]}


class LostError(Exception):
    """Another copy has taken it: nothing is stored of what this one did since."""


@dataclass(slots=True)
class Lease:
    """Something that this copy holds. ``row`` is its document as it was taken. ``until`` is, in the loop's time, when
    it is lost unless the lease is renewed."""

    id: str
    epoch: int
    row: Mapping[str, Any]
    until: float
    began: float
    began_us: int
    loop_time: Callable[[], float]
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def works_until(self) -> float:
        """When its holder must have stopped, in the loop's time."""
        return self.until - _MARGIN_S

    def now_us(self) -> int:
        """The time, in unix time in microseconds, by MongoDB's clock, and as evenly as the loop's goes on."""
        return self.began_us + int((self.loop_time() - self.began) * 1_000_000)


L = TypeVar("L", bound=Lease)


class Leases(Generic[L]):
    """The leases of one collection."""

    def __init__(
        self, database: mongo.Database, collection: str, owner: str, kind: type[L], *, makes: bool = False
    ) -> None:
        """``owner`` names this copy, and no other one. What is held is told as ``kind``. ``makes``: a document is made
        of what is taken and not there."""
        self._name = collection
        self._rows = database[collection]
        self._owner = owner
        self._kind = kind
        self._makes = makes

    async def take(self, id_: str) -> L | None:
        """It, this copy's now; None where another one has it, or it is not there. UNAVAILABLE."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        free: Document = {
            "$or": [
                {"$in": [{"$ifNull": ["$owner", ""]}, ["", self._owner]]},
                {"$lt": [{"$ifNull": ["$until", "$$NOW"]}, "$$NOW"]},
            ]
        }
        epoch = {"$ifNull": ["$epoch", 0]}
        update = {
            "owner": {"$cond": [free, self._owner, "$owner"]},
            "epoch": {"$cond": [free, {"$add": [epoch, 1]}, epoch]},
            "until": {"$cond": [free, _UNTIL, "$until"]},
        }
        async with mongo.operation():
            row: Document | None = await self._rows.find_one_and_update(
                {"_id": id_}, [{"$set": update}], upsert=self._makes, return_document=True
            )
        if row is None or row["owner"] != self._owner:
            return None
        return self._kind(
            id=id_,
            epoch=row["epoch"],
            row=row,
            until=asked_at + LEASE_S,
            began=loop.time(),
            began_us=int(row["until"].timestamp() * 1_000_000) - _LEASE_MS * 1000,
            loop_time=loop.time,
        )

    async def renew(self, held: L) -> None:
        """Hold it for ``LEASE_S`` from now on. LostError; UNAVAILABLE, and it may be held until ``until`` then."""
        async with held.writing:
            asked_at = held.loop_time()
            async with mongo.operation():
                found = await self._rows.update_one(self._mine(held), _RENEWED)
            if not found.matched_count:
                raise LostError
            held.until = asked_at + LEASE_S

    async def renew_all(self, held: Collection[L]) -> Collection[L]:
        """Hold all of them for ``LEASE_S`` from now on. Returns those that are lost. UNAVAILABLE, and each may be held
        until its ``until`` then."""
        if not held:
            return ()
        asked_at = asyncio.get_running_loop().time()
        changes = [UpdateOne(self._mine(one), _RENEWED) for one in held]
        async with mongo.operation():
            done = await self._rows.bulk_write(changes, ordered=False)
            if done.matched_count < len(changes):
                query = {"_id": {"$in": [one.id for one in held]}, "owner": self._owner}
                mine = {row["_id"]: row["epoch"] async for row in self._rows.find(query, {"epoch": 1})}
            else:
                mine = {one.id: one.epoch for one in held}
        lost = [one for one in held if mine.get(one.id) != one.epoch]
        for one in held:
            if mine.get(one.id) == one.epoch:
                one.until = asked_at + LEASE_S
        return lost

    async def give_back(self, held: L, changes: Mapping[str, Any]) -> None:
        """Let another copy have it at once, with ``changes`` (expressions of a pipeline). UNAVAILABLE."""
        async with held.writing, mongo.operation():
            await self._rows.update_one(self._mine(held), [{"$set": {**changes, "owner": ""}}])

    async def leave(self) -> None:
        """Let other copies have at once whatever this one still holds. UNAVAILABLE."""
        async with mongo.operation():
            await self._rows.update_many({"owner": self._owner}, {"$set": {"owner": ""}})

    def fence(self, database: mongo.ThreadDatabase, session: mongo.Session, held: L) -> None:
        """To be called in each transaction, before anything is written: LostError where it is not held any more. It
        writes, so that whoever takes it meanwhile meets this transaction."""
        if not database[self._name].update_one(self._mine(held), _RENEWED, session=session).matched_count:
            raise LostError

    def _mine(self, held: L) -> Document:
        return {"_id": held.id, "owner": self._owner, "epoch": held.epoch}


# A write that changes nothing would not meet another transaction's.
_RENEWED: Final[list[Document]] = [
    {"$set": {"until": _UNTIL, "renewals": {"$add": [{"$ifNull": ["$renewals", 0]}, 1]}}}
]
