"""How it stands with the files that are being made: written by the copy that makes them, read by all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import AUDIT_POSITION_COLLECTION, EVENTS_STREAM
from pymongo import ReplaceOne, UpdateOne

from backhaul_audit.ports import Waiting

_PREFIX = "state/"


class MongoStates:
    """``States``, in documents beside the position."""

    def __init__(self, database: mongo.Database) -> None:
        self._collection = database[AUDIT_POSITION_COLLECTION]
        self._told: dict[str, Document] = {}

    async def waiting(self, registration: str) -> Sequence[Waiting]:
        """See ``States``."""
        async with mongo.operation():
            row = await self._collection.find_one({"_id": _PREFIX + registration})
        channels = row["channels"] if row is not None else ()
        return [Waiting(one["channel"], one["problem"], one["since_us"], one.get("stored_us", 0)) for one in channels]

    async def read_to_us(self) -> int:
        """See ``States``."""
        async with mongo.operation():
            row = await self._collection.find_one({"_id": EVENTS_STREAM})
        return int(row.get("read_to_us", 0)) if row is not None else 0

    async def begin(self) -> None:
        """To be called by the copy that makes the files, before it tells anything: what another one said before it, and
        is over, would stand for ever otherwise. UNAVAILABLE."""
        query = {"registration": {"$exists": True}, "channels": {"$ne": []}}
        async with mongo.operation():
            rows = await self._collection.find(query).to_list(None)
        self._told = {row["registration"]: row for row in rows}

    async def tell(self, waiting: Mapping[str, Sequence[Waiting]], read_to_us: int) -> None:
        """This is how it stands now, by registration; of those that are not named there is nothing to tell. Only what
        has changed since the last time is written. UNAVAILABLE."""
        rows = {
            registration: {
                "_id": _PREFIX + registration,
                "registration": registration,
                "channels": [asdict(one) for one in channels],
            }
            for registration, channels in waiting.items()
        }
        for registration in self._told.keys() - rows.keys():
            rows[registration] = {"_id": _PREFIX + registration, "registration": registration, "channels": []}
        changes: list[ReplaceOne[Document] | UpdateOne] = [
            ReplaceOne({"_id": row["_id"]}, row, upsert=True)
            for registration, row in rows.items()
            if self._told.get(registration) != row
        ]
        changes.append(UpdateOne({"_id": EVENTS_STREAM}, {"$set": {"read_to_us": read_to_us}}))
        async with mongo.operation():
            await self._collection.bulk_write(changes, ordered=False)
        self._told = {registration: row for registration, row in rows.items() if row["channels"]}
