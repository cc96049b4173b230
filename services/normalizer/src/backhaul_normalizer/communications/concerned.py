"""The messages that are there already, and may be for members who were stored a moment ago.

Whoever is written to again and again in one communication has a message of each batch. That of an earlier one stays
that one's: it is not read anew for each member who comes later, nor is what is to an address that very many members of
the batch have. What is left out here is what ``choose`` would leave as it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import BATCHES_COLLECTION, MEMBERS_COLLECTION, MESSAGES_COLLECTION
from pymongo import ASCENDING, DESCENDING

from backhaul_normalizer.communications.choosing import SLACK_US, sent_at
from backhaul_normalizer.communications.documents import (
    KEY_BYTES,
    MEMBER_ID_BYTES,
    batch_of,
    found_by_address,
    member_of,
    told_key,
)

PAGE = 2000
"""Messages that are told of at once: very many may have one address."""

MAX_LATER = 16
"""Batches registered after that of the members, up to which it is asked which messages are theirs."""

_BY_ADDRESS = [
    ("registration", ASCENDING),
    ("address", ASCENDING),
    ("created_at_us", DESCENDING),
    ("_id", DESCENDING),
]
_BY_TOLD = [("told", ASCENDING)]
_TOLD = dict.fromkeys(("told", "dest", "first_at_us", "created_at_us"), 1)
_BEHIND = b"\xff" * (MEMBER_ID_BYTES + 1 - KEY_BYTES)


class Concerned:
    """Finds them. UNAVAILABLE."""

    def __init__(self, database: mongo.Database) -> None:
        self._batches = database[BATCHES_COLLECTION]
        self._members = database[MEMBERS_COLLECTION]
        self._messages = database[MESSAGES_COLLECTION]

    async def messages(self, batch: Document, members: Sequence[bytes]) -> AsyncGenerator[list[bytes], None]:
        """The keys of the messages, in portions. The members are of that batch, a thousand at most."""
        wanted = {"key": 1, "destinations": 1}
        async with mongo.operation():
            rows = await self._members.find({"_id": {"$in": list(members)}}, wanted).to_list(None)
        contested = await self._contested(batch)
        registration = batch["registration"]
        channels = {one["channel"] for row in rows for one in row["destinations"]}
        common: Document = {
            "communication_id": batch["communication_id"],
            "channel": {"$in": list(channels)},
            # What names another batch is for nobody of this one.
            "batch_id": {"$in": [None, "", batch["batch_id"]]},
        }
        told = {told_key(registration, row["key"]): row["_id"] for row in rows}
        async for some in self._found({"told": {"$in": list(told)}, **common}, _TOLD, _BY_TOLD):
            # Of whom an event names the message is first, and only then of whom it has the address.
            yield [
                row["_id"]
                for row in some
                if "dest" not in row
                or member_of(row["dest"])[0][KEY_BYTES:] != told[row["told"]][KEY_BYTES:]
                or sent_at(row) >= batch["created_at_us"] - SLACK_US
                or contested is None
                or batch_of(row["dest"]) in contested
            ]
        addresses = await self._foremost(batch, rows)
        if addresses:
            query = {"registration": registration, "address": {"$in": list(addresses)}, **common}
            if contested is not None:
                query["$or"] = _may_move(batch["created_at_us"], contested)
            async for some in self._found(query, {"_id": 1}, _BY_ADDRESS):
                yield [row["_id"] for row in some]

    async def _contested(self, batch: Document) -> Collection[bytes] | None:
        """The keys of the batches whose messages may be for this one's members although they were sent before it was
        registered: itself, and those that were registered later. None where these are many."""
        query = {
            "registration": batch["registration"],
            "communication": batch["communication"],
            "created_at_us": {"$gte": batch["created_at_us"]},
        }
        async with mongo.operation():
            found = await self._batches.find(query, {"_id": 1}).limit(MAX_LATER + 2).to_list(None)
        return {batch["_id"], *(row["_id"] for row in found)} if len(found) <= MAX_LATER + 1 else None

    async def _foremost(self, batch: Document, rows: Sequence[Document]) -> Collection[str]:
        """The addresses of these members, but for those that a member of the batch has who comes before all of them:
        of several it is the one whose key comes first."""
        communication = batch["communication"]
        keys: dict[bytes, str] = {}
        first: dict[bytes, str] = {}
        for row in rows:
            for one in row["destinations"]:
                if one["address"]:
                    by = found_by_address(communication, one["channel"], one["address"])
                    keys[by] = one["address"]
                    first[by] = min(first.get(by, row["key"]), row["key"])
        before = await self._first_of_all(batch, first) if keys else {}
        return {address for by, address in keys.items() if before.get(by, first[by]) >= first[by]}

    async def _first_of_all(self, batch: Document, asked: Mapping[bytes, str]) -> dict[bytes, str]:
        """By what members are found, the first key of those of the batch that are found so."""
        at_once: Document = {"batch_at_us": batch["created_at_us"], "batch_id": batch["batch_id"]}
        query = {"found_by": {"$in": list(asked)}, **at_once}
        most = 2 * len(asked)
        async with mongo.operation():
            found = await self._members.find(query, {"key": 1, "found_by": 1}).limit(most + 1).to_list(None)
        first: dict[bytes, str] = {}
        if len(found) <= most:
            for row in found:
                for by in row["found_by"]:
                    first[by] = min(first.get(by, row["key"]), row["key"])
            return first
        for by in asked:
            async with mongo.operation():
                one = await self._members.find_one({"found_by": by, **at_once}, {"key": 1}, sort=[("key", ASCENDING)])
            if one is not None:
                first[by] = one["key"]
        return first

    async def _found(
        self, query: Document, wanted: Document, index: list[tuple[str, int]]
    ) -> AsyncGenerator[list[Document], None]:
        # The planner could take that of the communication, which has all of its messages.
        cursor = self._messages.find(query, wanted, batch_size=PAGE, hint=index)
        try:
            more = True
            while more:
                async with mongo.operation():
                    found = await cursor.to_list(PAGE)
                yield found
                more = len(found) == PAGE
        finally:
            await cursor.close()


def _may_move(registered_us: int, contested: Collection[bytes]) -> list[Document]:
    """The conditions, any of which a message meets that may be for a member of a batch registered then."""
    since: Document = {"$gte": registered_us - SLACK_US}
    return [
        {"dest": {"$exists": False}},
        {"first_at_us": since},
        {"first_at_us": {"$exists": False}, "created_at_us": since},
        *({"dest": {"$gte": key + bytes(len(_BEHIND)), "$lte": key + _BEHIND}} for key in contested),
    ]
