"""What follows a commit that changed messages or members: links are settled, members told of that were processed, and
batches completed that are done."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import aclosing

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import (
    BATCHES_COLLECTION,
    COMMUNICATIONS_COLLECTION,
    MESSAGES_COLLECTION,
)

from backhaul_normalizer.attribution import Touched
from backhaul_normalizer.communications.completing import Completing
from backhaul_normalizer.communications.concerned import Concerned
from backhaul_normalizer.communications.linking import Linking, Made, link_new
from backhaul_normalizer.communications.processed import MembersProcessed
from backhaul_normalizer.having import Having
from backhaul_normalizer.plan import Plan

_AT_ONCE = 1000
"""Members whose messages are looked up by one query."""


class Consequences:
    """Settles them. UNAVAILABLE from each method, and all may be done again then."""

    def __init__(
        self,
        database: mongo.Database,
        linking: Linking,
        processed: MembersProcessed,
        completing: Completing,
        having: Having,
    ) -> None:
        self._database = database
        self._concerned = Concerned(database)
        self._linking = linking
        self._processed = processed
        self._completing = completing
        self._having = having

    def of_new(self, database: mongo.ThreadDatabase, session: mongo.Session, planned: Plan) -> None:
        """Link messages that are about to be inserted, in their own transaction, as far as that is simple. What is left
        is done by ``of_commit``, which must follow; so it is where a registration is not known yet to register."""
        registering = self._having.registering
        new = [row for row in planned.new_messages if row["communication_id"] and row["registration"] in registering]
        if new:
            planned.touched.made = link_new(database, session, new, planned.batches)
            planned.touched.batches.update(planned.batches.batches)
            planned.touched.processed.update(planned.batches.processed)

    async def of_commit(
        self, touched: Touched, tenants: Collection[str], registering: Collection[str] = frozenset()
    ) -> None:
        """What a fold ``touched`` of these tenants. Most have registered nothing; ``registering`` are the registrations
        that have."""
        batches, processed = set(touched.batches), dict(touched.processed)
        links = {bytes.fromhex(key) for key in touched.links if touched.registrations[key] in registering}
        made = {key for keys in touched.made.values() for key in keys}
        self._linking.count(len(made))
        sure = await self._sure(touched.made)
        if links - sure or touched.destinations:
            linked = await self._linking.link(links - sure, touched.destinations, tenants, made)
            batches |= linked.batches
            processed |= linked.processed
        await self._processed.check(processed, tenants)
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
            # All of them: whoever linked them before may have died since.
            processed = dict.fromkeys(members, str(found["registration"]))
            for start in range(0, len(members), _AT_ONCE):
                async with aclosing(self._concerned.messages(found, members[start : start + _AT_ONCE])) as portions:
                    async for keys in portions:
                        linked = await self._linking.link(keys, (), [found["tenant"]])
                        batches |= linked.batches
                        processed |= linked.processed
            await self._processed.check(processed, [found["tenant"]])
        await self._completing.check(batches)

    async def of_batch(self, batch: bytes) -> None:
        """A batch was closed."""
        await self._completing.check([batch])

    async def _has_messages(self, batch: Document) -> bool:
        # Whoever stores one from now on sees the members.
        query = {"registration": batch["registration"], "communication_id": batch["communication_id"]}
        async with mongo.operation():
            return await self._database[MESSAGES_COLLECTION].find_one(query, {"_id": 1}) is not None
