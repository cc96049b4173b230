"""The end of subscriptions that were deleted, first of their deliveries and then of them; of signing keys whose grace
is over; and of what was known of communications that were disabled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from backhaul_common import mongo
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    ENDPOINTS_COLLECTION,
    SUBSCRIPTIONS_COLLECTION,
    SWITCHED_COLLECTION,
)

from backhaul_notifier.documents import ALERT

SWEEP_S: Final = 60.0

SETTLED_US: Final = 60 * 1_000_000
"""After so long no transaction is under way any more that saw a subscription before it was deleted."""

ENABLED_US: Final = 86_400 * 1_000_000
"""For how long it is remembered of a communication that it was enabled."""

SLICE: Final = 2000
"""Deliveries that are deleted at once."""


class Sweep:
    """Every copy sweeps; two that do so at once are none the worse for it."""

    def __init__(self, database: mongo.Database, now_us: Callable[[], int]) -> None:
        self._database = database
        self._switched = database[SWITCHED_COLLECTION]
        self._now_us = now_us

    async def run(self) -> None:
        """Sweep now and then, until cancelled. UNAVAILABLE when MongoDB is away."""
        while True:
            await self.once()
            await asyncio.sleep(SWEEP_S)

    async def once(self) -> None:
        """Delete what there is of each that was deleted, those that have settled, and what is over. UNAVAILABLE."""
        subscriptions = self._database[SUBSCRIPTIONS_COLLECTION]
        # The revision stays, since the tenant has changed nothing: whoever still knows such a key does not sign by it.
        over = {"expires_at_us": {"$lte": self._now_us()}}
        async with mongo.operation():
            await subscriptions.update_many({"secrets": {"$elemMatch": over}}, {"$pull": {"secrets": over}})
        async with mongo.operation():
            rows = await subscriptions.find({"deleted": True}, {"updated_at_us": 1, "registration": 1}).to_list(None)
        for row in rows:
            # Not by its own clock alone: what was made meanwhile is looked for after it has settled.
            settled = row["updated_at_us"] < self._now_us() - SETTLED_US
            endpoints = [row["_id"], ALERT + row["_id"]]
            for endpoint in endpoints:
                await self._delete_deliveries(row["registration"], endpoint)
            if settled:
                async with mongo.operation():
                    await self._switched.update_many({"held": row["_id"]}, {"$pull": {"held": row["_id"]}})
                    await self._database[ENDPOINTS_COLLECTION].delete_many({"_id": {"$in": endpoints}})
                    await subscriptions.delete_one({"_id": row["_id"], "deleted": True})

        # Before that, a notice that is late may still say of one that it is disabled.
        long_ago = {"disabled": False, "held": {"$in": [None, []]}, "at_us": {"$lt": self._now_us() - ENABLED_US}}
        async with mongo.operation():
            await self._switched.delete_many(long_ago)

    async def _delete_deliveries(self, registration: str, id_: str) -> None:
        deliveries = self._database[DELIVERIES_COLLECTION]
        while True:
            async with mongo.operation():
                some = (
                    await deliveries.find({"registration": registration, "subscription": id_}, {"_id": 1})
                    .limit(SLICE)
                    .to_list(None)
                )
                if not some:
                    return
                await deliveries.delete_many({"_id": {"$in": [row["_id"] for row in some]}})
