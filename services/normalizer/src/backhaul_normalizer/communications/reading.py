"""MongoDB, the reading side of communications, batches and members."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from backhaul_common import mongo, pages
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import (
    BATCH_COUNTS_COLLECTION,
    BATCHES_COLLECTION,
    COMMUNICATIONS_COLLECTION,
    MEMBERS_COLLECTION,
    MESSAGES_COLLECTION,
)
from pymongo import ASCENDING, DESCENDING

from backhaul_normalizer.communications.counting import ids_of, summed
from backhaul_normalizer.communications.documents import (
    MEMBER_ID_BYTES,
    batch_key,
    batch_of,
    communication_id_of,
    member_id,
)
from backhaul_normalizer.communications.registering import no_batch
from backhaul_normalizer.messages import WHERE, message_of
from backhaul_normalizer.scans import Scans
from backhaul_normalizer.timelines import MAX_READ_S

MAX_BATCHES = 100
"""Batches that are told of with their communication."""

MAX_MEMBERS = 1000
"""Members of one answer."""

_ANSWER_BYTES = 2 << 20
"""An answer of members ends before it is much larger, whatever number was asked for."""


class BatchRow(NamedTuple):
    """A batch, how many of its destinations are held in each fulfilment state, and how many changes were late."""

    batch: Document
    states: Mapping[str, int]
    late: int


class MembersRow(NamedTuple):
    """Members of one answer, the messages that hold their destinations by ``_id``, and the token of what comes behind
    them; empty where nothing does."""

    members: list[Document]
    messages: dict[bytes, Document]
    token: str


class MongoCommunications:
    """Reads what was registered, and how far it is. UNAVAILABLE from every method."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database
        self._scans = Scans()

    async def communication(self, registration: str, communication_id: str) -> Document | None:
        """The document of a communication; None where it has none."""
        query = {"_id": communication_id_of(registration, communication_id), "registration": registration}
        async with mongo.operation():
            return await self._database[COMMUNICATIONS_COLLECTION].find_one(query)

    async def communications(self, query: pages.Query) -> tuple[list[Document], str]:
        """A page of communications, newest first, and the token of the next page (empty on the last)."""
        return await self._page(query)

    async def batch(self, registration: str, batch_id: str) -> BatchRow:
        """One batch. NOT_FOUND."""
        found = await self._told(registration, [batch_key(registration, batch_id)])
        if not found:
            raise no_batch()
        return found[0]

    async def batches(self, query: pages.Query) -> tuple[list[BatchRow], str]:
        """A page of batches, newest first, and the token of the next page (empty on the last)."""
        rows, token = await self._page(query)
        return await self._told(query.registration, [row["_id"] for row in rows]), token

    async def batches_of(self, communication: Document) -> tuple[list[BatchRow], bool]:
        """The newest batches of a communication, MAX_BATCHES at most, and whether there are more."""
        async with mongo.operation():
            rows = (
                await self._database[BATCHES_COLLECTION]
                .find(
                    {"registration": communication["registration"], "communication": communication["_id"]}, {"_id": 1}
                )
                .sort([("created_at_us", DESCENDING), ("_id", DESCENDING)])
                .limit(MAX_BATCHES + 1)
                .to_list(None)
            )
        ids = [row["_id"] for row in rows]
        return await self._told(communication["registration"], ids[:MAX_BATCHES]), len(ids) > MAX_BATCHES

    async def _told(self, registration: str, keys: Sequence[bytes]) -> list[BatchRow]:
        """The batches of these keys, in that order, as they are at one moment."""
        if not keys:
            return []
        of_batches = [{"_id": ids_of(key)} for key in keys]
        async with mongo.operation(), mongo.at_one_moment(self._database) as moment:
            found = {
                row["_id"]: row
                async for row in self._database[BATCHES_COLLECTION].find(
                    {"_id": {"$in": list(keys)}, "registration": registration}, session=moment
                )
            }
            shards = (
                await self._database[BATCH_COUNTS_COLLECTION].find({"$or": of_batches}, session=moment).to_list(None)
            )
        counted: dict[bytes, list[Document]] = {key: [] for key in keys}
        for shard in shards:
            counted[batch_of(shard["_id"])].append(shard)
        return [BatchRow(found[key], *summed(counted[key])) for key in keys if key in found]

    async def members(
        self, registration: str, batch_id: str, size: int, token: str
    ) -> AsyncGenerator[MembersRow, None]:
        """The members of a batch, by ``_id``: with a ``size`` one answer of as many at most, else all of them, in
        answers each of which is as it was at one moment. NOT_FOUND; INVALID_ARGUMENT names ``page_size`` or
        ``page_token``."""
        if size and not 1 <= size <= MAX_MEMBERS:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                f"A page has 1 to {MAX_MEMBERS} members.",
                field="page_size",
                fix="Ask for fewer.",
            )
        key = batch_key(registration, batch_id)
        after = _position(token) if token else b""
        async with mongo.operation():
            there = await self._database[BATCHES_COLLECTION].find_one(
                {"_id": key, "registration": registration}, {"_id": 1}
            )
        if there is None:
            raise no_batch()
        while True:
            row = await self._some_members(key, after, size or MAX_MEMBERS)
            yield row if size else row._replace(token="")
            if size or not row.token:
                return
            after = _position(row.token)

    async def member(self, registration: str, batch_id: str, member_key: str) -> MembersRow:
        """One member of a batch. NOT_FOUND."""
        key = member_id(batch_key(registration, batch_id), member_key)
        async with mongo.operation(), mongo.at_one_moment(self._database) as moment:
            found = await self._database[MEMBERS_COLLECTION].find_one(
                {"_id": key, "registration": registration}, session=moment
            )
            if found is None:
                raise BackhaulError(Code.NOT_FOUND, "There is no such member, or no such batch.", field="member_key")
            return MembersRow([found], await self._holders([found], moment), "")

    async def _holders(self, members: Sequence[Document], moment: Any) -> dict[bytes, Document]:
        """The messages that hold the members' destinations."""
        holders = [one["holder"] for member in members for one in member["destinations"] if "holder" in one]
        if not holders:
            return {}
        found = self._database[MESSAGES_COLLECTION].find(
            {"_id": {"$in": holders}}, dict.fromkeys(WHERE, 0), batch_size=len(holders), session=moment
        )
        return {row["_id"]: message_of(row) async for row in found}

    async def _some_members(self, batch: bytes, after: bytes, most: int) -> MembersRow:
        width = MEMBER_ID_BYTES - len(batch)
        # MongoDB compares bytes by their number first: both ends are as long as an id.
        span: Document = {"$lte": batch + b"\xff" * width}
        span["$gt" if after else "$gte"] = batch + (after or b"\0" * width)
        members: list[Document] = []
        total, more = 0, False
        async with mongo.operation(), mongo.at_one_moment(self._database) as moment:
            cursor = self._database[MEMBERS_COLLECTION].find(
                {"_id": span}, sort=[("_id", ASCENDING)], limit=most + 1, batch_size=most + 1, session=moment
            )
            async for member in cursor:
                if len(members) == most or total > _ANSWER_BYTES:
                    more = True
                    break
                members.append(member)
                total += _size(member)
            await cursor.close()
            messages = await self._holders(members, moment)
        return MembersRow(members, messages, members[-1]["_id"][len(batch) :].hex() if more else "")

    async def _page(self, query: pages.Query) -> tuple[list[Document], str]:
        try:
            async with self._turn(query) as left_s:
                return await pages.page(self._database, query, within_s=left_s)
        except (pages.TooLongError, TimeoutError) as exc:
            raise BackhaulError(
                Code.DEADLINE_EXCEEDED,
                f"Not enough was found within {MAX_READ_S:g} s: few rows fit the filters, of many to look at.",
                field="from_us",
                fix="Narrow the span, or leave out a filter.",
            ) from exc

    @asynccontextmanager
    async def _turn(self, query: pages.Query) -> AsyncIterator[float]:
        if set(query.filtered_by) <= {"communication"} and not query.only:
            yield MAX_READ_S
            return
        async with self._scans.turn(query.registration, MAX_READ_S) as left_s:
            yield left_s


def _position(token: str) -> bytes:
    position = pages.bytes_in(token)
    if len(position) != MEMBER_ID_BYTES - len(batch_key("", "")):
        return pages.bytes_in("no token of ours")
    return position


def _size(member: Document) -> int:
    size = len(member["key"])
    size += sum(len(text) for pair in member["attributes"] for text in pair)
    return size + sum(len(one["recipient"]) + 500 for one in member["destinations"])


def communications_query(
    registration: str, filters: Mapping[str, Any], span: tuple[int, int], size: int, token: str, *, registered: bool
) -> pages.Query:
    """A question for a page of communications."""
    only: Document = {"registered": {"$exists": True}} if registered else {}
    return pages.Query(
        COMMUNICATIONS_COLLECTION, "created_at_us", registration, filters, span, size, token, only=only, binary_ids=True
    )


def batches_query(registration: str, filters: Mapping[str, Any], size: int, token: str) -> pages.Query:
    """A question for a page of batches."""
    return pages.Query(
        BATCHES_COLLECTION, "created_at_us", registration, filters, size=size, token=token, binary_ids=True
    )
