"""Lists of events, newest arrival first, and timelines: from what is found of events to the events themselves.

A list is filtered first by what leads to few: the message, the recipient, or the error code by the documents of these,
otherwise a communication, a kind or a channel by the marks of buckets. What else was asked for is looked up in the
events that are found.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backhaul_common import mongo, pages
from backhaul_common.documents import Document
from backhaul_common.names import ENTRIES_COLLECTION, EVENTS_COLLECTION, MESSAGES_COLLECTION
from backhaul_common.sizes import PAGE_BYTES
from backhaul_proto.event.v1.event_pb2 import Event
from pymongo import DESCENDING
from pymongo.errors import ExecutionTimeout

from backhaul_normalizer import buckets
from backhaul_normalizer.entries import ref_in
from backhaul_normalizer.refs import Mark, Ref, unpack

MAX_FOUND = 50_000
"""Events of one recipient, or of one message, that are sorted to list the newest of them."""

_AT_ONCE = 32
"""Events of one query. The server compares each event of their buckets with each that is asked for."""

_BUCKETS, _BUCKETS_FILTERED = 3, 16
"""Buckets that the server sends at a time: a default page is in two or three, unless few of their events fit."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question for a page of events of one registration; what is empty does not filter.

    ``message`` is the key of a message. ``span`` is that of the arrivals, from inclusive to exclusive; 0 leaves an end
    open. ``before`` is the position of the page before: time and id.
    """

    registration: str
    channel: str = ""
    kind: str = ""
    address: str = ""
    communication_id: str = ""
    error_code: str = ""
    message: str = ""
    span: tuple[int, int] = (0, 0)
    before: tuple[int, bytes] | None = None

    def fits(self, event: Event, communication_id: str) -> bool:
        """Whether it is one of the events that the page may have."""
        return (
            not event.duplicate_of
            and (not self.channel or event.channel == self.channel)
            and (not self.kind or buckets.kind_name(event.kind) == self.kind)
            and (not self.communication_id or communication_id == self.communication_id)
            and (not self.error_code or event.error_code == self.error_code)
        )

    def within(self, received_at_us: int, event_id: bytes) -> bool:
        """Whether an event that arrived then is in the span, and behind the page before."""
        return (
            self.span[0] <= received_at_us
            and (not self.span[1] or received_at_us < self.span[1])
            and (self.before is None or (received_at_us, event_id) < self.before)
        )

    @property
    def until_us(self) -> int:
        """The latest arrival that the page may have; 0 where there is none."""
        ends = [end for end in (self.span[1] - 1, self.before[0] if self.before else -1) if end >= 0]
        return min(ends, default=0)

    @property
    def marks(self) -> list[str]:
        """The marks of buckets that may have such events; that which fewest have comes first."""
        marks = [buckets.communication_mark(self.communication_id)] if self.communication_id else []
        marks += [buckets.kind_mark(self.kind)] if self.kind else []
        marks += [buckets.channel_mark(self.channel)] if self.channel else []
        return marks or [buckets.ALL]


class EventLists:
    """The reading side of buckets, references and entries."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database

    async def page(self, asked: Asked, size: int, *, within_s: float) -> tuple[list[Document], bool]:
        """Events as the servicer takes them, fewer than ``size`` where they would have more than PAGE_BYTES; and
        whether there are more. pages.TooLongError after ``within_s``; UNAVAILABLE."""
        rows: list[Document] = []
        total = 0
        async with mongo.translated():
            try:
                async for row in self._rows(asked, within_s):
                    total += len(row["payload"])
                    if len(rows) == size or (rows and total > PAGE_BYTES):
                        return rows, True
                    rows.append(row)
            except ExecutionTimeout as exc:
                raise pages.TooLongError from exc
        return rows, False

    def _rows(self, asked: Asked, within_s: float) -> AsyncIterator[Document]:
        if asked.message or asked.address:
            return self._of_messages(asked, within_s)
        if asked.error_code:
            return self._of_code(asked, within_s)
        return self._walk(asked, within_s)

    async def _walk(self, asked: Asked, within_s: float) -> AsyncIterator[Document]:
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
        cursor = self._database[EVENTS_COLLECTION].find(
            query,
            {"at_us": 1, "events": 1},
            sort=[("at_us", DESCENDING), ("_id", DESCENDING)],
            batch_size=_BUCKETS if asked.marks == [buckets.ALL] else _BUCKETS_FILTERED,
            max_time_ms=_milliseconds(within_s),
        )
        waiting: list[tuple[int, bytes, Document]] = []
        try:
            async for bucket in cursor:
                while waiting and -waiting[0][0] > bucket["at_us"]:
                    yield heapq.heappop(waiting)[2]
                for one in filter(None, bucket["events"]):
                    event = Event.FromString(one["payload"])
                    row = _row(one, event.received_at_us)
                    if asked.within(event.received_at_us, one["id"]) and asked.fits(event, row["communication_id"]):
                        heapq.heappush(waiting, (-event.received_at_us, _descending(one["id"]), row))
            while waiting:
                yield heapq.heappop(waiting)[2]
        finally:
            await cursor.close()

    async def _of_code(self, asked: Asked, within_s: float) -> AsyncIterator[Document]:
        query: Document = {"registration": asked.registration, "error_code": asked.error_code}
        bounds = {"$gte": asked.span[0]} if asked.span[0] else {}
        if asked.until_us:
            bounds["$lte"] = asked.until_us
        if bounds:
            query["received_at_us"] = bounds
        cursor = self._database[ENTRIES_COLLECTION].find(
            query,
            {"ref": 1},
            sort=[("received_at_us", DESCENDING), ("_id", DESCENDING)],
            batch_size=2 * _AT_ONCE,
            max_time_ms=_milliseconds(within_s),
        )
        some: list[Ref] = []
        try:
            async for one in cursor:
                some.append(ref_in(one))
                if len(some) == _AT_ONCE:
                    async for row in self._fitting(asked, some, within_s):
                        yield row
                    some = []
            async for row in self._fitting(asked, some, within_s):
                yield row
        finally:
            await cursor.close()

    async def _of_messages(self, asked: Asked, within_s: float) -> AsyncIterator[Document]:
        """Of one message, or of all to one recipient: what these refer to, and what is alone."""
        found = [ref async for ref in self._found(asked, within_s)]
        found.sort(key=lambda ref: (ref.received_at_us, ref.id), reverse=True)
        for start in range(0, len(found), _AT_ONCE):
            async for row in self._fitting(asked, found[start : start + _AT_ONCE], within_s):
                yield row

    async def _found(self, asked: Asked, within_s: float) -> AsyncIterator[Ref]:
        key = bytes.fromhex(asked.message)
        messages: Document = {"registration": asked.registration}
        messages |= {"_id": key} if asked.message else {"address": asked.address}
        alone: Document = {"registration": asked.registration, "alone": True}
        alone |= {"message": key} if asked.message else {"address": asked.address}
        queries = [(MESSAGES_COLLECTION, messages, "refs"), (ENTRIES_COLLECTION, alone, "ref")]
        count = 0
        for collection, query, packed in queries:
            cursor = self._database[collection].find(query, {packed: 1}, max_time_ms=_milliseconds(within_s))
            async for document in cursor:
                for ref in unpack(document[packed]):
                    if not self._may_fit(asked, ref):
                        continue
                    count += 1
                    if count > MAX_FOUND:
                        await cursor.close()
                        raise pages.TooLongError
                    yield ref

    @staticmethod
    def _may_fit(asked: Asked, ref: Ref) -> bool:
        return (
            not ref.marks & Mark.DUPLICATE
            and (not asked.kind or buckets.kind_name(ref.kind) == asked.kind)
            and asked.within(ref.received_at_us, ref.id)
        )

    async def _fitting(self, asked: Asked, refs: Sequence[Ref], within_s: float) -> AsyncIterator[Document]:
        """Those events at these references that fit, in this order."""
        found = await self.events(refs, within_s) if refs else {}
        for ref in refs:
            one = found.get(ref.id)
            if one is None or not asked.within(ref.received_at_us, ref.id):
                continue
            row = _row(one, ref.received_at_us)
            if asked.fits(Event.FromString(one["payload"]), row["communication_id"]):
                yield row

    async def events(self, refs: Sequence[Ref], within_s: float) -> Mapping[bytes, Document]:
        """The events at these references as they stand in their buckets, by id; those that are there."""
        cursor = self._database[EVENTS_COLLECTION].find(*buckets.asked(refs), max_time_ms=_milliseconds(within_s))
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


def _descending(event_id: bytes) -> bytes:
    return bytes(255 - byte for byte in event_id)


def _milliseconds(within_s: float) -> int:
    return max(1, round(within_s * 1000))
