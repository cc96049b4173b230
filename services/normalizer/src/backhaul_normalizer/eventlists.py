"""Lists of events, newest arrival first, and timelines: from what is found of events to the events themselves.

A list is filtered first by what leads to few: the message, the recipient, or the error code by the documents of these,
otherwise a communication, a kind or a channel by the marks of buckets. What else was asked for is looked up in the
events that are found.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from backhaul_common import mongo, pages
from backhaul_common.documents import Document
from backhaul_common.names import ENTRIES_COLLECTION, EVENTS_COLLECTION, MESSAGES_COLLECTION
from backhaul_common.sizes import PAGE_BYTES
from backhaul_proto.event.v1.event_pb2 import Event
from pymongo import DESCENDING
from pymongo.errors import ExecutionTimeout

from backhaul_normalizer import buckets
from backhaul_normalizer.asked import Asked
from backhaul_normalizer.entries import ref_in
from backhaul_normalizer.refs import Mark, Ref, unpack

MAX_FOUND = 50_000
"""Events of one recipient, or of one message, that are sorted to list the newest of them."""

AT_ONCE = 32
"""Events of one query. The server compares each event of their buckets with each that is asked for."""

_FIRST_BUCKETS, _BUCKETS = 5, 16
"""Buckets that the server sends first where all events fit, and otherwise: a default page is mostly in five, even where
posts of very many events lie in several that end at the same time."""


class TooManyError(pages.TooLongError):
    """More than ``most`` events would have to be sorted."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most


class EventLists:
    """The reading side of buckets, references and entries."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database

    async def page(self, asked: Asked, size: int, *, within_s: float) -> tuple[list[Document], bool]:
        """Events as the servicer takes them, fewer than ``size`` where they would have more than PAGE_BYTES; and
        whether there are more. pages.TooLongError after ``within_s``; TooManyError; UNAVAILABLE."""
        rows: list[Document] = []
        total = 0
        patience = _Patience(within_s)
        async with mongo.translated():
            try:
                async with (
                    mongo.at_one_moment(self._database) as moment,
                    aclosing(self._rows(asked, patience, moment)) as found,
                ):
                    async for row in found:
                        total += len(row["payload"])
                        if len(rows) == size or (rows and total > PAGE_BYTES):
                            return rows, True
                        rows.append(row)
            except ExecutionTimeout as exc:
                raise pages.TooLongError from exc
        return rows, False

    # All is read as it is at one moment: an event that changes its place meanwhile would be met twice, or not at all.
    def _rows(self, asked: Asked, patience: _Patience, moment: mongo.Moment) -> AsyncGenerator[Document, None]:
        if asked.message or asked.address:
            return self._of_messages(asked, patience, moment)
        if asked.error_code:
            return self._of_code(asked, patience, moment)
        return self._walk(asked, patience, moment)

    async def _walk(self, asked: Asked, patience: _Patience, moment: mongo.Moment) -> AsyncGenerator[Document, None]:
        """Through the buckets. What is in one may have arrived before all that is in the next, or among it."""
        query: Document = {"registration": asked.registration, "marks": asked.marks[0]}
        if asked.marks[1:]:
            query["$and"] = [{"marks": mark} for mark in asked.marks[1:]]
        bounds = {"$gte": asked.span[0]} if asked.span[0] else {}
        if asked.until_us:
            bounds["$lte"] = asked.until_us + buckets.MAX_SPAN_US
            query["first_us"] = {"$lte": asked.until_us}
        if bounds:
            query["at_us"] = bounds
        first = _FIRST_BUCKETS if asked.marks == [buckets.ALL] else _BUCKETS
        waiting: list[tuple[int, bytes, Document]] = []
        async with aclosing(self._buckets(query, first, patience, moment)) as found:
            async for bucket in found:
                while waiting and -waiting[0][0] > bucket["at_us"]:
                    yield heapq.heappop(waiting)[2]
                for one in filter(None, bucket["events"]):
                    event = Event.FromString(one["payload"])
                    row = _row(one, event.received_at_us)
                    if asked.within(event.received_at_us, one["id"]) and asked.fits(event, row["communication_id"]):
                        heapq.heappush(waiting, (-event.received_at_us, _descending(one["id"]), row))
            while waiting:
                yield heapq.heappop(waiting)[2]

    async def _buckets(
        self, query: Document, first: int, patience: _Patience, moment: mongo.Moment
    ) -> AsyncGenerator[Document, None]:
        """Those that fit, the newest first. The first of them are asked for by themselves: most pages need no more, and
        to close a cursor that has more takes as long as such a page does otherwise."""
        asking: dict[str, Any] = {
            "projection": {"at_us": 1, "events": 1},
            "sort": [("at_us", DESCENDING), ("_id", DESCENDING)],
            "session": moment,
        }
        collection = self._database[EVENTS_COLLECTION]
        found = await collection.find(query, limit=first, max_time_ms=patience.left_ms(), **asking).to_list(None)
        for bucket in found:
            yield bucket
        if len(found) < first:
            return
        cursor = collection.find(query, skip=first, batch_size=_BUCKETS, max_time_ms=patience.left_ms(), **asking)
        try:
            async for bucket in cursor:
                patience.left_ms()
                yield bucket
        finally:
            await cursor.close()

    async def _of_code(self, asked: Asked, patience: _Patience, moment: mongo.Moment) -> AsyncGenerator[Document, None]:
        query: Document = {"registration": asked.registration, "error_code": asked.error_code}
        query |= {"duplicate_of": {"$exists": False}}
        query |= {name: value for name, value in (("channel", asked.channel), ("kind", asked.kind)) if value}
        bounds = {"$gte": asked.span[0]} if asked.span[0] else {}
        if asked.until_us:
            bounds["$lte"] = asked.until_us
        if bounds:
            query["received_at_us"] = bounds
        cursor = self._database[ENTRIES_COLLECTION].find(
            query,
            {"ref": 1},
            sort=[("received_at_us", DESCENDING), ("_id", DESCENDING)],
            batch_size=2 * AT_ONCE,
            max_time_ms=patience.left_ms(),
            session=moment,
        )
        some: list[Ref] = []
        try:
            async for one in cursor:
                some.append(ref_in(one))
                if len(some) == AT_ONCE:
                    async for row in self._fitting(asked, some, patience, moment):
                        yield row
                    some = []
            async for row in self._fitting(asked, some, patience, moment):
                yield row
        finally:
            await cursor.close()

    async def _of_messages(
        self, asked: Asked, patience: _Patience, moment: mongo.Moment
    ) -> AsyncGenerator[Document, None]:
        """Of one message, or of all to one recipient; and what was sent to the recipient and is of no message."""
        found: list[Ref] = []
        async for ref in self._found(asked, patience, moment):
            if self._may_fit(asked, ref):
                if len(found) == MAX_FOUND:
                    raise TooManyError(MAX_FOUND)
                found.append(ref)
        found.sort(key=lambda ref: (ref.received_at_us, ref.id), reverse=True)
        for start in range(0, len(found), AT_ONCE):
            async for row in self._fitting(asked, found[start : start + AT_ONCE], patience, moment):
                yield row

    async def _found(self, asked: Asked, patience: _Patience, moment: mongo.Moment) -> AsyncGenerator[Ref, None]:
        own: Document = {"registration": asked.registration}
        messages = own | ({"_id": bytes.fromhex(asked.message)} if asked.message else {})
        messages |= {"address": asked.address} if asked.address else {}
        async for message in self._documents(
            MESSAGES_COLLECTION, messages, {"refs": 1, "spilled": 1}, patience, moment
        ):
            for ref in unpack(message["refs"]):
                yield ref
            if message.get("spilled"):
                query = {"message": message["_id"]}
                async for one in self._documents(ENTRIES_COLLECTION, query, {"ref": 1}, patience, moment):
                    yield ref_in(one)
        if not asked.message:
            query = own | {"address": asked.address, "alone": True, "message": {"$exists": False}}
            async for one in self._documents(ENTRIES_COLLECTION, query, {"ref": 1}, patience, moment):
                yield ref_in(one)

    async def _documents(
        self, collection: str, query: Document, projection: Document, patience: _Patience, moment: mongo.Moment
    ) -> AsyncGenerator[Document, None]:
        cursor = self._database[collection].find(query, projection, max_time_ms=patience.left_ms(), session=moment)
        try:
            async for document in cursor:
                patience.left_ms()
                yield document
        finally:
            await cursor.close()

    @staticmethod
    def _may_fit(asked: Asked, ref: Ref) -> bool:
        return (
            not ref.marks & Mark.DUPLICATE
            and (not asked.kind or buckets.kind_name(ref.kind) == asked.kind)
            and asked.within(ref.received_at_us, ref.id)
        )

    async def _fitting(
        self, asked: Asked, refs: Sequence[Ref], patience: _Patience, moment: mongo.Moment
    ) -> AsyncGenerator[Document, None]:
        """Those events at these references that fit, in this order."""
        found = await self.events(refs, patience.left_ms() / 1000, moment) if refs else {}
        for ref in refs:
            one = found.get(ref.id)
            if one is None or not asked.within(ref.received_at_us, ref.id):
                continue
            row = _row(one, ref.received_at_us)
            if asked.fits(Event.FromString(one["payload"]), row["communication_id"]):
                yield row

    async def events(
        self, refs: Sequence[Ref], within_s: float, moment: mongo.Moment | None = None
    ) -> Mapping[bytes, Document]:
        """The events at these references as they stand in their buckets, by id; those that are there."""
        cursor = self._database[EVENTS_COLLECTION].find(
            *buckets.asked(refs), max_time_ms=round(within_s * 1000), session=moment
        )
        return {one["id"]: one async for bucket in cursor for one in bucket["events"]}


def rows_of(found: Mapping[bytes, Document], refs: Sequence[Ref]) -> Iterator[Document]:
    """Events as the servicer takes them, in the order of ``refs``, with what timelines are ordered by."""
    for ref in refs:
        if ref.id in found:
            row = _row(found[ref.id], ref.received_at_us)
            event = Event.FromString(row["payload"])
            row |= {"occurred_at_us": ref.occurred_at_us, "kind": buckets.kind_name(ref.kind)}
            if event.HasField("sequence"):
                row["sequence"] = event.sequence
            yield row


def _row(one: Document, received_at_us: int) -> dict[str, Any]:
    return {
        "_id": one["id"].hex(),
        "received_at_us": received_at_us,
        "payload": one["payload"],
        "communication_id": one.get("communication_id", ""),
    }


_COMPLEMENT = bytes(range(255, -1, -1))


def _descending(event_id: bytes) -> bytes:
    return event_id.translate(_COMPLEMENT)


class _Patience:
    """The time that a page may take, whatever number of questions it takes."""

    def __init__(self, within_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + within_s

    def left_ms(self) -> int:
        """What is left of it, at least 1. pages.TooLongError when nothing is."""
        left_s = self._ends - self._loop.time()
        if left_s <= 0:
            raise pages.TooLongError
        return max(1, round(left_s * 1000))
