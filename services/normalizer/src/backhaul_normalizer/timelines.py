"""A message with its events, in one question to MongoDB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import ENTRIES_COLLECTION, EVENTS_COLLECTION, MESSAGES_COLLECTION
from backhaul_common.sizes import PAGE_BYTES
from pymongo.read_concern import ReadConcern

from backhaul_normalizer.entries import ref_in
from backhaul_normalizer.eventlists import EventLists, rows_of
from backhaul_normalizer.messages import message_of
from backhaul_normalizer.refs import MAX_REFS, Mark, Ref, unpack
from backhaul_normalizer.timeline import in_order

MAX_TIMELINE = 1000

MAX_READ_S = 4.0
"""A read ends on the server after this, a little before whoever called gives up."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A message, its events in the order in which they happened, whether there are ``more``, and how many of those that
    it counts have ``expired``."""

    message: Document
    events: list[Document]
    more: bool
    expired: int


class Timelines:
    """Reads messages with their events."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database
        self._lists = EventLists(database)

    async def read(self, registration: str, key: str) -> Timeline | None:
        """That of the message of that key; None where there is no such message. MAX_TIMELINE events at most, and
        PAGE_BYTES of them."""
        message_id = bytes.fromhex(key)
        only = {"$filter": {"input": "$events", "as": "one", "cond": {"$eq": ["$$one.message", message_id]}}}
        # Message and buckets as they are at one moment: an event that grows too large for its bucket leaves it.
        messages = self._database.get_collection(MESSAGES_COLLECTION, read_concern=ReadConcern("snapshot"))
        cursor = messages.aggregate(
            [
                {"$match": {"_id": message_id, "registration": registration}},
                {
                    "$lookup": {
                        "from": EVENTS_COLLECTION,
                        "localField": "buckets",
                        "foreignField": "_id",
                        "pipeline": [{"$project": {"events": only}}],
                        "as": "found",
                    }
                },
                # One bucket in each answer: all of them in one may be more than MongoDB takes for a document.
                {"$unwind": {"path": "$found", "preserveNullAndEmptyArrays": True}},
            ],
            maxTimeMS=round(MAX_READ_S * 1000),
        )
        message: Document | None = None
        refs: list[Ref] = []
        found: dict[bytes, Document] = {}
        there: set[bytes] = set()
        async for answer in cursor:
            bucket = answer.pop("found", {"_id": b"", "events": []})
            if message is None:
                message = answer
                refs = [ref for ref in unpack(answer["refs"]) if not ref.marks & Mark.DUPLICATE]
                if message.get("spilled") or sum(ref.size for ref in refs) > PAGE_BYTES:
                    await cursor.close()
                    return await self._long(message, refs)
            there.add(bucket["_id"])
            found.update((one["id"], one) for one in bucket["events"])
        if message is None:
            return None
        expired = sum(ref.bucket not in there for ref in refs)
        return Timeline(message_of(message), in_order(rows_of(found, refs)), False, expired)

    async def _long(self, message: Document, refs: list[Ref]) -> Timeline:
        """Of a message that has more than an answer holds, what happened first of what is kept."""
        cursor = self._database[EVENTS_COLLECTION].find({"_id": {"$in": message["buckets"]}}, {"_id": 1})
        there = {bucket["_id"] async for bucket in cursor}
        refs = [ref for ref in refs if ref.bucket in there]
        kept_count = len(refs)
        if message.get("spilled"):
            query = {"message": message["_id"], "duplicate_of": {"$exists": False}}
            cursor = self._database[ENTRIES_COLLECTION].find(
                query, {"ref": 1}, sort=[("occurred_at_us", 1), ("_id", 1)]
            )
            alone = [ref_in(one) async for one in cursor.limit(MAX_TIMELINE + 1)]
            refs += alone
            kept_count += (
                len(alone)
                if len(alone) <= MAX_TIMELINE
                else await self._database[ENTRIES_COLLECTION].count_documents({**query, "alone": True})
            )
        refs.sort(key=lambda ref: (ref.occurred_at_us, ref.id))
        kept = _within(refs)
        found: dict[bytes, Document] = {}
        for start in range(0, len(kept), MAX_REFS):
            found.update(await self._lists.events(kept[start : start + MAX_REFS], MAX_READ_S))
        counted = message["event_count"] - sum(message.get("duplicates", {}).values())
        expired = max(0, counted - kept_count)
        return Timeline(message_of(message), in_order(rows_of(found, kept)), len(kept) < len(refs), expired)


def _within(refs: Sequence[Ref]) -> Sequence[Ref]:
    total = 0
    for count, ref in enumerate(refs):
        total += ref.size
        if count == MAX_TIMELINE or (count and total > PAGE_BYTES):
            return refs[:count]
    return refs
