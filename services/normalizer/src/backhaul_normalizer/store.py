"""MongoDB: one transaction a batch, so that events, states and counts always agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from backhaul_common import mongo
from backhaul_common.mongo import Document
from backhaul_common.names import (
    COMMUNICATIONS_COLLECTION,
    DEAD_LETTERS_COLLECTION,
    EVENTS_COLLECTION,
    MESSAGES_COLLECTION,
)
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import BulkWriteError

from backhaul_normalizer.facts import Fact
from backhaul_normalizer.fold import Fold


class Rejection(msgspec.Struct, gc=False):
    """A callback, or one part of it, that could not be read. ``callback`` is serialised, its body cut to the part."""

    id: str
    tenant: str
    registration: str
    channel: str
    provider: str
    reason: str
    callback: bytes
    seen_at_us: int
    stream_seq: int


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a batch. ``new`` were counted; ``known`` had been before, by event id: the position in CALLBACKS
    of the message that brought them first."""

    new: Sequence[Fact]
    known: dict[str, int]


def _newest_first(time_field: str, *leading: str, **options: object) -> IndexModel:
    keys = [
        ("registration", ASCENDING),
        *((name, ASCENDING) for name in leading),
        (time_field, DESCENDING),
        ("_id", DESCENDING),
    ]
    return IndexModel(keys, **options)


def _partial(time_field: str, field: str) -> IndexModel:
    # Most documents lack the field, and an index holds only those that have it.
    return _newest_first(time_field, field, partialFilterExpression={field: {"$gt": ""}})


INDEXES = {
    EVENTS_COLLECTION: [
        _newest_first("received_at_us"),
        IndexModel(
            [("message", ASCENDING), ("occurred_at_us", ASCENDING)], partialFilterExpression={"message": {"$gt": ""}}
        ),
        _partial("received_at_us", "recipient"),
        _partial("received_at_us", "communication_id"),
        _partial("received_at_us", "error_code"),
    ],
    MESSAGES_COLLECTION: [
        _newest_first("created_at_us"),
        _partial("created_at_us", "recipient"),
        _partial("created_at_us", "communication_id"),
        _partial("created_at_us", "error_code"),
    ],
    COMMUNICATIONS_COLLECTION: [IndexModel([("registration", ASCENDING)])],
    DEAD_LETTERS_COLLECTION: [_newest_first("first_seen_at_us")],
}


class MongoEventStore:
    """The writing side."""

    def __init__(self, client: mongo.Client, database: mongo.Database) -> None:
        self._client = client
        self._database = database

    async def prepare(self) -> None:
        """Create collections and indexes where they are missing. UNAVAILABLE when MongoDB is away."""
        async with mongo.translated():
            for name, indexes in INDEXES.items():
                await self._database[name].create_indexes(indexes)

    async def ping(self) -> None:
        """Returns when the primary answers; UNAVAILABLE otherwise."""
        await mongo.ping(self._client)

    async def commit(
        self, facts: Sequence[Fact], duplicates: Sequence[Fact], rejections: Sequence[Rejection]
    ) -> Committed:
        """Store what is new of ``facts``, fold it into states and counts, and file ``rejections``: all or nothing.

        ``facts`` have distinct ids; ``duplicates`` have ids of theirs. Raises UNAVAILABLE when MongoDB is away; nothing
        is stored then, or all is and committing the same batch again changes nothing.
        """

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> Committed:
            batch = _Transaction(database, session)
            committed = batch.store(facts, duplicates) if facts else Committed((), {})
            if rejections:
                batch.update(DEAD_LETTERS_COLLECTION, [_rejection_update(one) for one in rejections])
            return committed

        async with mongo.translated():
            return await mongo.in_transaction(self._database, work)


class _Transaction:
    """One batch on its way into the store."""

    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        self._database = database
        self._session = session

    def store(self, facts: Sequence[Fact], duplicates: Sequence[Fact]) -> Committed:
        """See ``MongoEventStore.commit``."""
        known = {
            row["_id"]: row["stream_seq"]
            for row in self._find(EVENTS_COLLECTION, [fact.id for fact in facts], {"stream_seq": 1})
        }
        new: Sequence[Fact] = facts
        if known:
            new = [fact for fact in facts if fact.id not in known]
            duplicates = [*(fact for fact in facts if fact.id in known), *duplicates]
        keys = {fact.message for fact in facts if fact.message}
        messages = {row["_id"]: row for row in self._find(MESSAGES_COLLECTION, list(keys))}
        fold = Fold(messages).add(new, duplicates)
        self._insert(EVENTS_COLLECTION, [fact.to_document() for fact in new])
        self._insert(MESSAGES_COLLECTION, [message for key, message in fold.messages.items() if key not in messages])
        self.update(
            MESSAGES_COLLECTION,
            [{"q": {"_id": key}, "u": message} for key, message in fold.messages.items() if key in messages],
        )
        self.update(COMMUNICATIONS_COLLECTION, [delta.to_update() for delta in fold.communications.values()])
        return Committed(new, known)

    def update(self, collection: str, updates: Sequence[Document]) -> None:
        """Apply the entries of an update command."""
        if updates:
            self._write({"update": collection, "updates": updates, "ordered": False})

    def _find(self, collection: str, ids: list[str], projection: Document | None = None) -> list[Document]:
        return self._database[collection].find({"_id": {"$in": ids}}, projection, session=self._session).to_list()

    def _insert(self, collection: str, documents: Sequence[Document]) -> None:
        if documents:
            self._write({"insert": collection, "documents": documents, "ordered": False})

    def _write(self, command: Document) -> None:
        # The bare command spares the driver's object for every operation, a third of what a batch costs here.
        reply = self._database.command(command, session=self._session)
        if reply.get("writeErrors"):
            raise BulkWriteError(dict(reply))


def _rejection_update(one: Rejection) -> Document:
    # A duplicate and a failed replay come later in the stream than what was filed. A redelivery does not: it must
    # neither count again nor open what was closed meanwhile. Where two copies settle two messages in the wrong order,
    # the earlier one is thus not counted: the number may be one too low, but it never grows by itself.
    # A pipeline sees the old values, where update operators do not.
    again = {"$lt": [{"$ifNull": ["$stream_seq", -1]}, one.stream_seq]}
    return {
        "q": {"_id": one.id},
        "u": [
            {
                "$set": {
                    "registration": {"$literal": one.registration},
                    "channel": {"$literal": one.channel},
                    "provider": {"$literal": one.provider},
                    "reason": {"$literal": one.reason},
                    "callback": {"$ifNull": ["$callback", one.callback]},
                    "state": {"$cond": [again, "open", "$state"]},
                    "occurrences": {"$add": [{"$ifNull": ["$occurrences", 0]}, {"$cond": [again, 1, 0]}]},
                    "first_seen_at_us": {"$ifNull": ["$first_seen_at_us", one.seen_at_us]},
                    "last_seen_at_us": {"$max": ["$last_seen_at_us", one.seen_at_us]},
                    "stream_seq": {"$max": ["$stream_seq", one.stream_seq]},
                }
            }
        ],
        "upsert": True,
    }
