"""What follows a commit that changed messages or members: links are settled, and batches that are done completed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import (
    BATCHES_COLLECTION,
    COMMUNICATIONS_COLLECTION,
    MEMBERS_COLLECTION,
    MESSAGES_COLLECTION,
)

from backhaul_normalizer.attribution import Touched
from backhaul_normalizer.communications.completing import Completing
from backhaul_normalizer.communications.documents import told_key
from backhaul_normalizer.communications.linking import Linking, Made, link_new
from backhaul_normalizer.plan import Plan

_MAX_REMEMBERED = 65_536
_PAGE = 2000
_AT_ONCE = 1000
"""Members whose messages are looked up by one query."""


class Consequences:
    """Settles them. UNAVAILABLE from each method, and all may be done again then."""

    def __init__(self, database: mongo.Database, linking: Linking, completing: Completing) -> None:
        self._database = database
        self._linking = linking
        self._completing = completing
        self._registering: set[str] = set()
        """Registrations that have registered communications. Whoever has one has one as long as it lives."""

    def of_new(self, database: mongo.ThreadDatabase, session: mongo.Session, planned: Plan) -> None:
        """Link messages that are about to be inserted, in their own transaction, as far as that is simple. What is left
        is done by ``of_commit``, which must follow; so it is where a registration is not known yet to register."""
        new = [
            row for row in planned.new_messages if row["communication_id"] and row["registration"] in self._registering
        ]
        if new:
            planned.touched.made = link_new(database, session, new, planned.batches)
            planned.touched.batches.update(planned.batches.batches)

    async def of_commit(self, touched: Touched, tenants: Collection[str]) -> None:
        """What a fold ``touched`` of these tenants. Most have registered nothing, and a look is all that it costs."""
        batches = set(touched.batches)
        links = {bytes.fromhex(key) for key in await self._of_those_who_register(touched)}
        made = {key for keys in touched.made.values() for key in keys}
        self._linking.count(len(made))
        sure = await self._sure(touched.made)
        if links - sure or touched.destinations:
            batches |= await self._linking.link(links - sure, touched.destinations, tenants, made)
        await self._completing.check(batches)

    async def _sure(self, made: Made) -> set[bytes]:
        """The messages whose communications got no member since they were linked. Whoever adds one from now on finds
        them."""
        if not made:
            return set()
        query = {"_id": {"$in": [communication for communication, _ in made]}}
        async with mongo.operation():
            rows = await self._database[COMMUNICATIONS_COLLECTION].find(query, {"members_version": 1}).to_list(None)
        now = {(row["_id"], row.get("members_version", 0)) for row in rows}
        return {key for seen, keys in made.items() if seen in now for key in keys}

    async def of_members(self, batch: bytes, members: Sequence[bytes]) -> None:
        """These members of a batch were stored: link the messages that are there already."""
        async with mongo.operation():
            found = await self._database[BATCHES_COLLECTION].find_one({"_id": batch})
        if found is None:
            return
        batches = {batch}
        if await self._has_messages(found):
            for start in range(0, len(members), _AT_ONCE):
                async with aclosing(self._messages_of(found, members[start : start + _AT_ONCE])) as portions:
                    async for keys in portions:
                        batches |= await self._linking.link(keys, (), [found["tenant"]])
        await self._completing.check(batches)

    async def of_batch(self, batch: bytes) -> None:
        """A batch was closed."""
        await self._completing.check([batch])

    async def _of_those_who_register(self, touched: Touched) -> Collection[str]:
        strange = {touched.registrations[key] for key in touched.links} - self._registering
        if strange:
            query = {"registration": {"$in": list(strange)}, "registered": {"$exists": True}}
            async with mongo.operation():
                found = await self._database[COMMUNICATIONS_COLLECTION].distinct("registration", query)
            if len(self._registering) + len(found) > _MAX_REMEMBERED:
                self._registering.clear()
            self._registering.update(found)
        return [key for key in touched.links if touched.registrations[key] in self._registering]

    async def _has_messages(self, batch: Document) -> bool:
        # Whoever stores one from now on sees the members.
        query = {"registration": batch["registration"], "communication_id": batch["communication_id"]}
        async with mongo.operation():
            return await self._database[MESSAGES_COLLECTION].find_one(query, {"_id": 1}) is not None

    async def _messages_of(self, batch: Document, members: Sequence[bytes]) -> AsyncGenerator[list[bytes], None]:
        """The keys of the messages that these members may be concerned in, in portions."""
        registration = batch["registration"]
        async with mongo.operation():
            query = {"_id": {"$in": list(members)}}
            rows = await self._database[MEMBERS_COLLECTION].find(query, {"key": 1, "destinations": 1}).to_list(None)
        addresses = {one["address"] for row in rows for one in row["destinations"] if one["address"]}
        told = {told_key(registration, row["key"]) for row in rows}
        communication = {"communication_id": batch["communication_id"]}
        queries: list[Document] = [{"told": {"$in": list(told)}, **communication}]
        if addresses:
            queries.append({"registration": registration, "address": {"$in": list(addresses)}, **communication})
        for query in queries:
            # Very many may have one address.
            cursor = self._database[MESSAGES_COLLECTION].find(query, {"_id": 1}, batch_size=_PAGE)
            try:
                more = True
                while more:
                    async with mongo.operation():
                        found = await cursor.to_list(_PAGE)
                    yield [row["_id"] for row in found]
                    more = len(found) == _PAGE
            finally:
                await cursor.close()
