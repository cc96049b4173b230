"""The copies that may answer from memory, as MongoDB has them. docs/decisions/0023 says why each step is as it is."""

from __future__ import annotations

from collections.abc import Collection

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import SUPPRESSION_COPIES_COLLECTION, SUPPRESSION_COUNTERS_COLLECTION
from pymongo import UpdateMany, UpdateOne
from pymongo.read_concern import ReadConcern

from backhaul_suppression.documents import COUNTER

STEP_S = 2.0
"""How long a step may take: less than a lease, so that one that is lost is tried again before the lease runs out."""

_BAR = "bar"
"""A document that every bar writes to. It is no copy's: it has no ``applied``."""


class MongoCopies:
    """``Copies``: a document each, ``{_id, applied, need, renewed}``."""

    def __init__(self, database: mongo.Database) -> None:
        self._copies = database[SUPPRESSION_COPIES_COLLECTION]
        self._counters = database.get_collection(
            SUPPRESSION_COUNTERS_COLLECTION, read_concern=ReadConcern("linearizable")
        )

    async def register(self, copy: str, applied: int) -> None:
        """See ``Copies``."""
        # Tried again by the driver, or by whoever calls, it is one document all the same.
        document = {"$setOnInsert": {"applied": applied, "need": 0, "renewed": 0}}
        async with mongo.operation(STEP_S):
            await self._copies.update_one({"_id": copy}, document, upsert=True)

    async def last(self) -> int:
        """See ``Copies``."""
        async with mongo.operation(STEP_S):
            counter = await self._counters.find_one({"_id": COUNTER})
        return int(counter["seq"]) if counter is not None else 0

    async def renew(self, copy: str, applied: int) -> int | None:
        """See ``Copies``."""
        # A real write each time: what it says is acknowledged by the majority, and not by a node that is primary no
        # more and does not know it.
        update = {"applied": {"$max": ["$applied", applied]}, "renewed": {"$add": ["$renewed", 1]}}
        async with mongo.operation(STEP_S):
            document: Document | None = await self._copies.find_one_and_update(
                {"_id": copy}, [{"$set": update}], projection={"need": 1}, return_document=True
            )
        return int(document["need"]) if document is not None else None

    async def bar(self, seq: int) -> None:
        """See ``Copies``."""
        # The first walks through all copies, and meets each that stays where it is; so there is no index on
        # ``applied``, where a document could move past the walk. The second always changes something, by which the
        # majority says that this is the primary. Where no copy is behind, the first writes nothing, and a deposed
        # primary could say so of copies that it never saw.
        steps: list[UpdateMany | UpdateOne] = [
            UpdateMany({"applied": {"$lt": seq}}, {"$max": {"need": seq}}),
            UpdateOne({"_id": _BAR}, {"$inc": {"written": 1}}, upsert=True),
        ]
        async with mongo.operation(STEP_S):
            await self._copies.bulk_write(steps)

    async def behind(self, seq: int) -> Collection[str]:
        """See ``Copies``."""
        query = {"applied": {"$lt": seq}, "need": {"$gte": seq}}
        async with mongo.operation(STEP_S):
            found = await self._copies.find(query, {"_id": 1}).to_list(None)
        return [str(document["_id"]) for document in found]

    async def forget(self, copies: Collection[str], seq: int) -> None:
        """See ``Copies``."""
        async with mongo.operation(STEP_S):
            await self._copies.delete_many({"_id": {"$in": list(copies)}, "applied": {"$lt": seq}})

    async def leave(self, copy: str) -> None:
        """See ``Copies``."""
        async with mongo.operation(STEP_S):
            await self._copies.delete_one({"_id": copy})
