"""Members whose messages nobody linked to them, since whoever added them died, or gave up, before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.logs import get_logger
from backhaul_common.metering import Counter
from backhaul_common.names import BATCHES_COLLECTION, MEMBERS_COLLECTION

from backhaul_normalizer.communications.documents import KEY_BYTES, MEMBER_ID_BYTES
from backhaul_normalizer.communications.ports import Consequences

LOOK_S = 60.0
"""How often every copy looks for them."""

GIVEN_UP_US = 120 * 1_000_000
"""A call that has added nothing for so long is taken for one that has died. One that has not is done twice."""

_PAGE = 1000


class Relinking:
    """Links them."""

    def __init__(
        self, database: mongo.Database, consequences: Consequences, now_us: Callable[[], int], counted: Counter
    ) -> None:
        """``counted`` counts batches by tenant."""
        self._counted = counted
        self._batches = database[BATCHES_COLLECTION]
        self._members = database[MEMBERS_COLLECTION]
        self._consequences = consequences
        self._now_us = now_us
        self._log = get_logger(component="relinking")

    async def run(self) -> None:
        """Link them, and look again, until cancelled. UNAVAILABLE."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Link all that are there. UNAVAILABLE."""
        async with mongo.operation():
            found = await self._batches.find({"to_link": {"$exists": True}}).limit(_PAGE).to_list(None)
        for batch in found:
            before_us = self._now_us() - GIVEN_UP_US
            dead = {call: at_us for call, at_us in batch["to_link"].items() if at_us < before_us}
            if dead:
                await self._link(batch)
                await self._linked(batch, dead)

    async def _link(self, batch: Document) -> None:
        key: bytes = batch["_id"]
        last = key + bytes(MEMBER_ID_BYTES - KEY_BYTES)
        end = key + b"\xff" * (MEMBER_ID_BYTES - KEY_BYTES)
        while True:
            query = {"_id": {"$gt": last, "$lte": end}}
            async with mongo.operation():
                rows = await self._members.find(query, {"_id": 1}).sort("_id", 1).limit(_PAGE).to_list(None)
            if not rows:
                return
            members = [row["_id"] for row in rows]
            await self._consequences.of_members(key, members)
            last = members[-1]

    async def _linked(self, batch: Document, dead: Document) -> None:
        # A call that goes on after all says so anew.
        query = {"_id": batch["_id"], **{f"to_link.{call}": at_us for call, at_us in dead.items()}}
        async with mongo.operation():
            await self._batches.update_one(query, {"$unset": {f"to_link.{call}": "" for call in dead}})
            await self._batches.update_one({"_id": batch["_id"], "to_link": {}}, {"$unset": {"to_link": ""}})
        self._counted.add(batch["tenant"])
        self._log.info("members_linked_late", tenant=batch["tenant"], batch_id=batch["batch_id"])
