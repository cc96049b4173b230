"""MongoDB, the reading side. Every query starts with the tenant's registration; every page is cut by a position that
never moves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from backhaul_common import mongo, pages
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import (
    COMMUNICATIONS_COLLECTION,
    DEAD_LETTERS_COLLECTION,
    ENTRIES_COLLECTION,
    EVENTS_COLLECTION,
    JOINS_COLLECTION,
    MEMBERS_COLLECTION,
    MESSAGES_COLLECTION,
    channel_key,
)
from backhaul_common.sizes import PAGE_BYTES
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import ExecutionTimeout

from backhaul_normalizer import narrowing, stats
from backhaul_normalizer.asked import Asked
from backhaul_normalizer.communications.documents import communication_id_of, member_of
from backhaul_normalizer.entries import ref_in
from backhaul_normalizer.eventlists import AT_ONCE, EventLists, TooManyError, rows_of
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.joins import MAX_STEPS
from backhaul_normalizer.messages import join_of, message_of
from backhaul_normalizer.refs import unpack
from backhaul_normalizer.replays.tasks import MAX_OPEN
from backhaul_normalizer.scans import Scans
from backhaul_normalizer.timelines import MAX_READ_S, Timeline, Timelines

MAX_ERROR_COUNTS = 1000
"""Channels and codes that are told apart in one answer."""

_OF_A_REPLY = 8
"""Events of a message that a person wrote of which it is asked what it answers: there is one, but for oddities."""

_COUNTS: Document = {"duplicate_of": {"$exists": False}}
"""Events that do not only tell once more what happens to a message once."""

_INDEXED = frozenset({"address", "communication_id", "error_code", "kind", "message", "references", "review", "_id"})
"""Filters each of which has an index of its own; so has the state of dead letters, but not that of messages."""


class MongoReads:
    """Read models of messages, events, communications and dead letters."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database
        self._scans = Scans()
        self._lists = EventLists(database)
        self._timelines = Timelines(database)

    async def message(self, registration: str, channel: str, message_id: str) -> Timeline | None:
        """A message with its events; None if unknown.

        ``message_id`` may also be a further name of it, or a reference that no other message of the channel has:
        FAILED_PRECONDITION if others have it too. MAX_TIMELINE events at most, and PAGE_BYTES of them.
        """
        channel = channel_key(channel)
        async with mongo.operation():
            found = await self._timelines.read(registration, message_key(registration, channel, message_id))
            if found is None and (named := await self._named(registration, channel, message_id)) is not None:
                found = await self._timelines.read(registration, named["_id"])
        if found is not None and _is_reply(found.message):
            events = (row for row in found.events if row["kind"] == "inbound" and row.get("communication_id"))
            _answers(found.message, next(events, {}))
        return found

    async def _as_replies(self, messages: Sequence[Document], refs: Sequence[bytes]) -> None:
        """Have those of ``messages`` that people wrote tell the communication that their events tell."""
        asked: dict[bytes, Document] = {}
        for message, packed in zip(messages, refs, strict=True):
            if _is_reply(message):
                asked |= {ref.id: message for ref in list(unpack(packed))[:_OF_A_REPLY]}
        if asked:
            query = {"_id": {"$in": list(asked)}, "kind": "inbound", **_COUNTS}
            wanted = {"communication_id": 1}
            for entry in await self._database[ENTRIES_COLLECTION].find(query, wanted).to_list(None):
                _answers(asked[entry["_id"]], entry)

    async def member_of(self, message: Document) -> Document | None:
        """The ``batch_id`` and the ``key`` of the member of whose destinations ``message`` holds one; else None."""
        if not message.get("holds"):
            return None
        query = {"_id": member_of(message["dest"])[0]}
        async with mongo.operation():
            return await self._database[MEMBERS_COLLECTION].find_one(query, {"batch_id": 1, "key": 1})

    async def one_message(self, registration: str, channel: str, message_id: str) -> str:
        """The key of the message that ``message`` finds; if there is none, the key that it would have."""
        found = await self._named(registration, channel, message_id)
        return str(found["_id"]) if found is not None else message_key(registration, channel, message_id)

    async def by_message_id(self, registration: str, channels: Sequence[str], message_id: str) -> Document:
        """A filter of messages: those that ``message_id`` names in any of ``channels``, or else those that have it as a
        reference."""
        named = await self._by_name(registration, channels, message_id)
        return {"_id": {"$in": [bytes.fromhex(row["_id"]) for row in named]}} if named else {"references": message_id}

    async def _named(self, registration: str, channel: str, message_id: str) -> Document | None:
        named = await self._by_name(registration, [channel], message_id)
        if named:
            return named[0]
        query = {"registration": registration, "references": message_id, "channel": channel}
        async with mongo.operation():
            referred = [message_of(row) async for row in self._database[MESSAGES_COLLECTION].find(query, limit=2)]
        if len(referred) > 1:
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                "Several messages have this reference.",
                field="message_id",
                fix="List them by message_id, and ask for one by the message_id that it has there.",
            )
        return referred[0] if referred else None

    async def _by_name(self, registration: str, channels: Sequence[str], message_id: str) -> list[Document]:
        """The messages of that id in ``channels``; where there is none, the one to which it leads as a further name."""
        keys = {message_key(registration, channel, message_id) for channel in channels}
        found: list[Document] = []
        async with mongo.operation():
            for _ in range(MAX_STEPS + 1):
                query = {"_id": {"$in": list(map(bytes.fromhex, keys))}, "registration": registration}
                rows = [message_of(row) async for row in self._database[MESSAGES_COLLECTION].find(query)]
                found += rows
                keys.difference_update(row["_id"] for row in rows)
                if not keys:
                    break
                query = {"_id": {"$in": list(map(bytes.fromhex, keys))}, "registration": registration}
                joins = [join_of(row) async for row in self._database[JOINS_COLLECTION].find(query)]
                keys = {row["message"] for row in joins if row["message"]}
        return found

    async def messages(
        self, registration: str, filters: Mapping[str, Any], span: tuple[int, int], size: int, token: str
    ) -> tuple[list[Document], str]:
        """A page of messages, newest first, and the token of the next page (empty on the last).

        By a communication, what a person wrote is left out where it answers what was sent for another one: the page has
        fewer rows then, and none where nothing else was found within MAX_READ_S.
        """
        asked = filters.get("communication_id")
        ends = time.monotonic() + MAX_READ_S
        while True:
            query = pages.Query(
                MESSAGES_COLLECTION, "created_at_us", registration, filters, span, size, token, binary_ids=True
            )
            found, token = await self._page(query)
            rows = [message_of(row) for row in found]
            async with mongo.operation():
                await self._as_replies(rows, [row["refs"] for row in found])
            # The index has what they name themselves, and no index says of a message what it answers.
            rows = [row for row in rows if not asked or row["communication_id"] == asked]
            if rows or not token or time.monotonic() > ends:
                return rows, token

    async def events(
        self, registration: str, filters: Mapping[str, Any], span: tuple[int, int], size: int, token: str
    ) -> tuple[list[Document], str]:
        """A page of events, newest arrival first, and the token of the next page (empty on the last)."""
        query = pages.Query(EVENTS_COLLECTION, "received_at_us", registration, filters, span, size, token)
        before = query.before()
        position = (before[0], pages.bytes_in(before[1])) if before is not None else None
        asked = Asked(registration, **filters, span=span, before=position)
        try:
            async with self._turn(query) as left_s:
                rows, more = await self._lists.page(asked, query.rows(), within_s=left_s)
        except TooManyError as exc:
            raise narrowing.too_many_to_sort(exc.most) from exc
        except (pages.TooLongError, TimeoutError) as exc:
            raise narrowing.too_long() from exc
        return rows, pages.token_of(rows[-1]["received_at_us"], rows[-1]["_id"]) if more else ""

    async def errors(self, registration: str, channel: str, code: str, span: tuple[int, int]) -> list[Document]:
        """How often each error code was reported, by channel, the most frequent first: ``channel``, ``error_code``,
        ``count``, ``last_received_at_us``. MAX_ERROR_COUNTS at most.

        An empty ``channel`` or ``code`` does not filter. ``span`` bounds the arrival, from inclusive to exclusive; 0
        leaves an end open. DEADLINE_EXCEEDED where they are too many to be counted within MAX_READ_S.
        """
        match: Document = {"registration": registration, "error_code": code or {"$gt": ""}}
        bounds = {"$gte": span[0], "$lt": span[1]}
        if any(span):
            match["received_at_us"] = {operator: at_us for operator, at_us in bounds.items() if at_us}
        if channel:
            match["channel"] = channel
        # All of it stands in the index of error codes, so no document is looked at. A filter for what lacks a field
        # would look at each, since in an index null and nothing are one; a sum need not tell them apart.
        counts = {"$lte": ["$duplicate_of", None]}
        count = {"$sum": {"$cond": [counts, 1, 0]}}
        last = {"$max": {"$cond": [counts, "$received_at_us", None]}}
        by = {"channel": "$channel", "error_code": "$error_code"}
        pipeline: list[Document] = [
            {"$match": match},
            {"$group": {"_id": by, "count": count, "last_received_at_us": last}},
            {"$match": {"count": {"$gt": 0}}},
            {"$sort": {"count": DESCENDING, "last_received_at_us": DESCENDING, "_id": ASCENDING}},
            {"$limit": MAX_ERROR_COUNTS},
        ]
        try:
            async with self._scans.turn(registration, MAX_READ_S) as left_s:
                rows = await self._aggregated(pipeline, left_s)
        except (pages.TooLongError, TimeoutError) as exc:
            raise narrowing.too_many_errors(span) from exc
        return [{**row.pop("_id"), **row} for row in rows]

    async def _aggregated(self, pipeline: list[Document], within_s: float) -> list[Document]:
        """Rows of events; pages.TooLongError after ``within_s``."""
        cursor = self._database[ENTRIES_COLLECTION].aggregate(
            pipeline, maxTimeMS=max(1, round(within_s * 1000)), batchSize=MAX_ERROR_COUNTS
        )
        async with mongo.translated():
            try:
                rows: list[Document] = await cursor.to_list(None)
            except ExecutionTimeout as exc:
                raise pages.TooLongError from exc
        return rows

    async def replies(
        self, registration: str, filters: Mapping[str, Any], span: tuple[int, int], size: int, token: str
    ) -> tuple[list[Document], str]:
        """A page of inbound messages, newest arrival first, and the token of the next page (empty on the last)."""
        only = {"kind": "inbound", **_COUNTS}
        query = pages.Query(
            ENTRIES_COLLECTION, "received_at_us", registration, filters, span, size, token, only=only, binary_ids=True
        )
        found, following = await self._page(query)
        refs = [ref_in(one) for one in found]
        rows: list[Document] = []
        total = 0
        async with mongo.operation():
            for start in range(0, len(refs), AT_ONCE):
                some = refs[start : start + AT_ONCE]
                for row in rows_of(await self._lists.events(some, MAX_READ_S), some):
                    total += len(row["payload"])
                    if rows and total > PAGE_BYTES:
                        return rows, pages.token_of(rows[-1]["received_at_us"], rows[-1]["_id"])
                    rows.append(row)
        return rows, following

    async def dead_letters(
        self, registration: str, filters: Mapping[str, Any], size: int, token: str
    ) -> tuple[list[Document], str]:
        """A page of dead letters, newest first, without ``callback``; and the token of the next (empty on the last)."""
        query = pages.Query(
            DEAD_LETTERS_COLLECTION,
            "first_seen_at_us",
            registration,
            filters,
            size=size,
            token=token,
            without="callback",
        )
        return await self._page(query)

    async def communication(self, registration: str, communication_id: str) -> Document | None:
        """The counts of a communication, and its ``errors``; None if nothing belongs to it and it is not registered."""
        try:
            found = await stats.communication(self._database, registration, communication_id, MAX_READ_S)
            if found is None:
                return await self._without_events(registration, communication_id)
            errors = await stats.message_errors(self._database, registration, communication_id, MAX_READ_S)
        except pages.TooLongError as exc:
            raise narrowing.too_many_days() from exc
        return {**found, "errors": errors}

    async def _without_events(self, registration: str, communication_id: str) -> Document | None:
        query = {"_id": communication_id_of(registration, communication_id), "registered": {"$exists": True}}
        async with mongo.operation():
            row = await self._database[COMMUNICATIONS_COLLECTION].find_one(query, {"created_at_us": 1})
        if row is None:
            return None
        return {
            "communication_id": communication_id,
            "messages": 0,
            "created_at_us": row["created_at_us"],
            "last_event_at_us": 0,
        }

    async def stats(self, question: stats.Question) -> tuple[list[stats.Row], bool]:
        """The statistics that are asked for, and whether there are more. DEADLINE_EXCEEDED where they are too many to
        be summed up within MAX_READ_S."""
        try:
            async with self._scans.turn(question.registration, MAX_READ_S) as left_s:
                return await stats.rows(self._database, question, left_s)
        except (pages.TooLongError, TimeoutError) as exc:
            raise narrowing.too_many_counts() from exc

    async def dead_letter(self, registration: str, dead_letter_id: str) -> Document | None:
        """A dead letter; None if unknown."""
        async with mongo.operation():
            found: Document | None = await self._database[DEAD_LETTERS_COLLECTION].find_one(
                {"_id": dead_letter_id, "registration": registration}
            )
        return found

    async def close_dead_letter(
        self, registration: str, dead_letter: Document, state: str, *, replay: str = ""
    ) -> Document | None:
        """Set the state of an open dead letter that has not been refused again since ``dead_letter`` was read. The task
        ``replay`` finds by its id what it sent through, also where another one sends it meanwhile."""
        mark = {"$each": [replay], "$slice": -MAX_OPEN}
        async with mongo.operation():
            found: Document | None = await self._database[DEAD_LETTERS_COLLECTION].find_one_and_update(
                {
                    "_id": dead_letter["_id"],
                    "registration": registration,
                    "state": "open",
                    "stream_seq": dead_letter["stream_seq"],
                },
                {"$set": {"state": state}} | ({"$push": {"replays": mark}} if replay else {}),
                return_document=True,
            )
        return found

    async def _page(self, query: pages.Query) -> tuple[list[Document], str]:
        try:
            async with self._turn(query) as left_s:
                return await pages.page(self._database, query, within_s=left_s)
        except (pages.TooLongError, TimeoutError) as exc:
            raise narrowing.too_long() from exc

    @asynccontextmanager
    async def _turn(self, query: pages.Query) -> AsyncIterator[float]:
        """Wait for a turn where the filters may have to look at many rows; gives the seconds that are left."""
        names = query.filtered_by
        indexed = {"state"} if query.collection == DEAD_LETTERS_COLLECTION else _INDEXED
        if not names or (len(names) == 1 and names[0] in indexed):
            yield MAX_READ_S
            return
        async with self._scans.turn(query.registration, MAX_READ_S) as left_s:
            yield left_s


def _is_reply(message: Document) -> bool:
    """Whether it was written by a person: counts of a communication are of what was sent, so it has none of its own."""
    return "first_at_us" not in message and bool(message["kinds"].get("inbound"))


def _answers(message: Document, event: Document) -> None:
    """Have ``message`` tell the communication of the one that it answers, as its ``event`` does."""
    if "communication_id" in event:
        message["communication_id"] = event["communication_id"]
