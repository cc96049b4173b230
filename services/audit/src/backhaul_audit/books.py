"""What the copy that files writes down: each step of a file's life is a transaction that only the owner can commit."""

from __future__ import annotations

import asyncio
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.feed import StreamMessage
from backhaul_common.fence import living
from backhaul_common.following import MongoProgress
from backhaul_common.names import (
    AUDIT_AGAIN_COLLECTION,
    AUDIT_CHAINS_COLLECTION,
    AUDIT_CONTENTS_COLLECTION,
    AUDIT_FILES_COLLECTION,
    AUDIT_POSITION_COLLECTION,
    EVENTS_STREAM,
)
from backhaul_digests.model import ChainKey
from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, ReplaceOne, UpdateOne

from backhaul_audit.contents import ID_BYTES, events_of
from backhaul_audit.documents import ABANDONED, LOST, RECORDED, chain_of, plan_document, sealing, to_plan
from backhaul_audit.model import Content, EventId, PileKey, Plan
from backhaul_audit.plans import Closed

INDEXES: Mapping[str, Sequence[IndexModel]] = {
    AUDIT_FILES_COLLECTION: [
        IndexModel([("registration", ASCENDING), ("sealed_at_us", DESCENDING), ("_id", DESCENDING)]),
        IndexModel(
            [
                ("registration", ASCENDING),
                ("channel", ASCENDING),
                ("sealed_at_us", DESCENDING),
                ("_id", DESCENDING),
            ]
        ),
        # Numbers have no gaps and are used once.
        IndexModel(
            [("registration", ASCENDING), ("chain", ASCENDING), ("number", ASCENDING)],
            unique=True,
            partialFilterExpression={"number": {"$exists": True}},
        ),
        IndexModel("state", partialFilterExpression={"state": RECORDED}),
        # Which channels have files in which what is personal can be read.
        IndexModel(
            [("registration", ASCENDING), ("encrypted", ASCENDING), ("channel", ASCENDING)],
            partialFilterExpression={"deleted_at_us": 0},
        ),
    ],
    AUDIT_CONTENTS_COLLECTION: [
        IndexModel([("registration", ASCENDING), ("last_at_us", DESCENDING)]),
        IndexModel([("pile", ASCENDING), ("slots", ASCENDING)]),
    ],
    AUDIT_CHAINS_COLLECTION: [IndexModel("registration")],
    AUDIT_AGAIN_COLLECTION: [IndexModel("registration"), IndexModel("at_us")],
    AUDIT_POSITION_COLLECTION: [
        IndexModel("registration", partialFilterExpression={"registration": {"$exists": True}})
    ],
}

T = TypeVar("T")

AGAIN_US = 3_600_000_000
"""For how long behind a message that was marked, by the stream's clock, its events are looked up once more."""


_MANY = 40
"""Events from which on a file is gone through once for all of them: to look for each costs a fortieth of that."""


@dataclass(frozen=True, slots=True)
class Sealing:
    """A file that is in its place, and what it holds."""

    closed: Closed
    content: Content


@dataclass(slots=True)
class Opened:
    """What a copy begins with: how far each pile is, files that are to be made again, and what EVENTS had twice."""

    done: dict[PileKey, int] = field(default_factory=dict)
    planned: dict[PileKey, list[Plan]] = field(default_factory=lambda: defaultdict(list))
    again: dict[PileKey, dict[EventId, int]] = field(default_factory=lambda: defaultdict(dict))


class Books(MongoProgress[None]):
    """The position, and what is true up to it.

    Every method but ``load``, ``remember``, ``forget_again`` and ``found`` raises UNAVAILABLE where another copy owns
    the position by now: nothing is stored then.
    """

    def __init__(self, database: mongo.Database, now_us: Callable[[], int]) -> None:
        super().__init__(database, AUDIT_POSITION_COLLECTION, EVENTS_STREAM)
        self._now_us = now_us

    def store(self, messages: Sequence[StreamMessage], database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        """See ``MongoProgress``. Messages alone bring nothing: positions move when files are sealed."""

    @property
    def floor(self) -> int:
        """The position that is stored."""
        return self._position

    async def load(self) -> Opened:
        """To be called by the owner, before it reads."""
        opened = Opened()
        async with mongo.operation():
            async for row in self._database[AUDIT_CHAINS_COLLECTION].find({}):
                of = chain_of(row)
                for channel, done in row.get("piles", {}).items():
                    opened.done[PileKey(of.registration, channel, of.chain)] = done
            async for row in self._database[AUDIT_FILES_COLLECTION].find({"state": RECORDED}):
                plan = to_plan(row)
                opened.planned[plan.pile].append(plan)
            async for row in self._database[AUDIT_AGAIN_COLLECTION].find({}):
                of = chain_of(row)
                pile = PileKey(of.registration, row["channel"], of.chain)
                opened.again[pile] |= dict.fromkeys(_events(row), row["at_us"])
        return opened

    async def record(self, plans: Sequence[Plan], floor: int) -> Collection[Plan]:
        """Store that these files are about to be made. Returns those whose tenants are gone: they are not."""

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> Collection[Plan]:
            lives = _lives(database, session, plans)
            now_us = self._now_us()
            kept = [InsertOne(plan_document(plan, now_us)) for plan in plans if plan.pile.registration in lives]
            if kept:
                database[AUDIT_FILES_COLLECTION].bulk_write(kept, session=session)
            return [plan for plan in plans if plan.pile.registration not in lives]

        return await self._commit(floor, work)

    async def replan(self, plan: Plan, other: Plan) -> bool:
        """Make ``other`` in place of ``plan``, of the same events. False: the tenant is gone, and it is given up."""

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> bool:
            lives = plan.pile.registration in _lives(database, session, [plan])
            changes: list[Any] = [_given_up(plan, ABANDONED, "another file was made of its events")]
            if lives:
                changes.append(InsertOne(plan_document(other, self._now_us())))
            database[AUDIT_FILES_COLLECTION].bulk_write(changes, session=session)
            return lives

        return await self._commit(self._position, work)

    async def seal(self, sealings: Sequence[Sealing], floor: int) -> Collection[Plan]:
        """Seal files that are in place, in this order. Returns those that are given up, as their tenants are gone."""

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> Collection[Plan]:
            lives = _lives(database, session, [one.closed.plan for one in sealings])
            now_us = self._now_us()
            by_chain: dict[ChainKey, list[Sealing]] = defaultdict(list)
            gone = []
            for one in sealings:
                if one.closed.plan.pile.registration in lives:
                    by_chain[one.closed.plan.pile.of].append(one)
                else:
                    gone.append(one.closed.plan)
            files = database[AUDIT_FILES_COLLECTION]
            if gone:
                files.bulk_write([_given_up(plan, ABANDONED, "its tenant is gone") for plan in gone], session=session)
            changes = []
            for of, some in by_chain.items():
                first = _numbered(database, session, of, some)
                for number, one in enumerate(some, first):
                    query = {"_id": one.closed.plan.id, "state": RECORDED}
                    changes.append(UpdateOne(query, {"$set": sealing(one.content, number, now_us)}))
            if changes:
                if files.bulk_write(changes, session=session).matched_count != len(changes):
                    raise RuntimeError("A file that was to be sealed is not recorded any more.")
                contents = [_contents(one) for some in by_chain.values() for one in some]
                database[AUDIT_CONTENTS_COLLECTION].insert_many(contents, session=session)
            return gone

        return await self._commit(floor, work)

    async def give_up(self, plan: Plan, reason: str, floor: int, *, done: bool) -> None:
        """The file cannot be made, as ``reason`` says. With ``done`` nothing more is made of its events."""

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            changes = [_given_up(plan, LOST, reason)]
            database[AUDIT_FILES_COLLECTION].bulk_write(changes, session=session)
            if done and plan.pile.registration in _lives(database, session, [plan]):
                _done(database, session, plan.pile, plan.last)

        await self._commit(floor, work)

    async def abandon(self, registrations: Collection[str]) -> Collection[str]:
        """Give up whatever is being made for those of the registrations that are gone. Returns these."""

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> Collection[str]:
            owners = living(database, session, {one.rpartition(".")[0] for one in registrations})
            lives = {owner.registration for owner in owners.values()}
            gone = [one for one in registrations if one not in lives]
            if gone:
                database[AUDIT_FILES_COLLECTION].update_many(
                    {"registration": {"$in": gone}, "state": RECORDED},
                    {"$set": {"state": ABANDONED, "reason": "its tenant is gone"}},
                    session=session,
                )
            return gone

        return await self._commit(self._position, work)

    async def move(self, floor: int) -> None:
        """Everything up to ``floor`` is done with."""
        await self._commit(floor, lambda _, __: None)

    async def remember(self, pile: PileKey, position: int, at_us: int, ids: bytes, revisions: Sequence[int]) -> None:
        """A message that may repeat events brought these, by the stream's clock at ``at_us``. UNAVAILABLE."""
        row: Document = {
            "_id": f"{pile.id}/{position}",
            "registration": pile.registration,
            "chain": pile.chain.value,
            "channel": pile.channel,
            "at_us": at_us,
            "ids": ids,
            "revisions": array("I", revisions).tobytes(),
        }
        async with mongo.operation():
            await self._database[AUDIT_AGAIN_COLLECTION].bulk_write([ReplaceOne({"_id": row["_id"]}, row, upsert=True)])

    async def forget_again(self, before_us: int) -> None:
        """Forget what was remembered before. UNAVAILABLE."""
        async with mongo.operation():
            await self._database[AUDIT_AGAIN_COLLECTION].delete_many({"at_us": {"$lt": before_us}})

    async def found(self, pile: PileKey, wanted: Collection[EventId], slots: Iterable[int]) -> set[EventId]:
        """Which of ``wanted`` lie in sealed files of the pile; they arrived in ``slots``. UNAVAILABLE."""
        found: set[EventId] = set()
        if not wanted:
            return found
        by_id: dict[bytes, list[EventId]] = defaultdict(list)
        for one in wanted:
            by_id[bytes.fromhex(one.id)].append(one)
        query = {"pile": pile.id, "slots": {"$in": sorted(slots)}}
        async with mongo.operation(mongo.PATIENT_S):
            async for row in self._database[AUDIT_CONTENTS_COLLECTION].find(query, {"ids": 1, "revisions": 1}):
                found.update(_lying(row, by_id))
                if len(found) == len(wanted):
                    break
                # There may be many, and it has to be said meanwhile that this copy is at it.
                await asyncio.sleep(0)
        return found


def _lying(row: Mapping[str, Any], wanted: Mapping[bytes, Sequence[EventId]]) -> Iterator[EventId]:
    """Which of ``wanted``, by the bytes of their ids, lie in the file of a document of ``audit_contents``."""
    if len(wanted) < _MANY:
        for some in wanted.values():
            there = holding(row, some[0].id)
            yield from (one for one in some if one in there)
        return
    ids = row["ids"]
    for place, revision in enumerate(array("I", row["revisions"])):
        start = place * ID_BYTES
        for one in wanted.get(ids[start : start + ID_BYTES], ()):
            if one.revision == revision:
                yield one


def holding(row: Mapping[str, Any], event_id: str) -> Mapping[EventId, int]:
    """Each revision of the event in a document of ``audit_contents``, with its place in the file, from 1."""
    ids, wanted = row["ids"], bytes.fromhex(event_id)
    found: dict[EventId, int] = {}
    revisions: array[int] | None = None
    at = ids.find(wanted)
    while at >= 0:
        place, inside = divmod(at, ID_BYTES)
        if not inside:
            if revisions is None:
                revisions = array("I", row["revisions"])
            found[EventId(event_id, revisions[place])] = place + 1
        at = ids.find(wanted, at + 1)
    return found


def _events(row: Mapping[str, Any]) -> Iterable[EventId]:
    return events_of(row["ids"], array("I", row["revisions"]))


def _contents(one: Sealing) -> Document:
    plan, content = one.closed.plan, one.closed.content
    return {
        "_id": plan.id,
        "registration": plan.pile.registration,
        "pile": plan.pile.id,
        "slots": sorted(content.slots),
        "last_at_us": one.content.last_at_us,
        "ids": bytes(content.ids),
        "revisions": content.revisions.tobytes(),
    }


def _given_up(plan: Plan, state: str, reason: str) -> UpdateOne:
    return UpdateOne({"_id": plan.id, "state": RECORDED}, {"$set": {"state": state, "reason": reason}})


def _lives(database: mongo.ThreadDatabase, session: mongo.Session, plans: Iterable[Plan]) -> Collection[str]:
    owners = living(database, session, {plan.tenant_id for plan in plans})
    return {owner.registration for owner in owners.values()}


def _numbered(database: mongo.ThreadDatabase, session: mongo.Session, of: ChainKey, some: Sequence[Sealing]) -> int:
    """The number of the first of ``some``, which are the next of their chain."""
    row = _chain(
        database,
        session,
        of,
        {
            "$inc": {"number": len(some)},
            "$max": {f"piles.{one.closed.plan.pile.channel}": one.closed.plan.last for one in some},
        },
        some[0].closed.plan.tenant_id,
    )
    return int(row["number"]) - len(some) + 1


def _done(database: mongo.ThreadDatabase, session: mongo.Session, pile: PileKey, last: int) -> None:
    tenant_id = pile.registration.rpartition(".")[0]
    _chain(database, session, pile.of, {"$max": {f"piles.{pile.channel}": last}, "$inc": {"number": 0}}, tenant_id)


def _chain(
    database: mongo.ThreadDatabase, session: mongo.Session, of: ChainKey, update: Document, tenant_id: str
) -> Document:
    made = {"registration": of.registration, "tenant_id": tenant_id, "chain": of.chain.value, "digest": 0}
    row = database[AUDIT_CHAINS_COLLECTION].find_one_and_update(
        {"_id": of.id}, {**update, "$setOnInsert": made}, upsert=True, return_document=True, session=session
    )
    return row or {}  # It is there: it is made where it was not.
