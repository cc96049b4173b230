"""What a tenant keeps for less than it did when it was told. Its end is written down with each delivery, so all others
end by an index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import DELIVERIES_COLLECTION

EVERY_S: Final = 3600.0

SLICE: Final = 2000
"""Deliveries that are deleted at once."""

_DAY_US: Final = 86_400 * 1_000_000


class Keeping:
    """Every copy looks; two that do so at once are none the worse for it."""

    def __init__(
        self, database: mongo.Database, shorter: Callable[[], Mapping[str, float]], now_us: Callable[[], int]
    ) -> None:
        """``shorter`` are the registrations that keep what is over for less than the installation does, with their
        days."""
        self._deliveries = database[DELIVERIES_COLLECTION]
        self._shorter = shorter
        self._now_us = now_us

    async def run(self) -> None:
        """Look now and then, until cancelled. UNAVAILABLE when MongoDB is away."""
        while True:
            await self.once()
            await asyncio.sleep(EVERY_S)

    async def once(self) -> None:
        """Delete what is kept for too long by now. UNAVAILABLE."""
        for registration, days in self._shorter().items():
            before: Document = {"$lt": self._now_us() - round(days * _DAY_US)}
            # When it was made is in the index, and is not later than when it ended.
            over: Document = {
                "registration": registration,
                "state": {"$in": ["delivered", "failed"]},
                "created_at_us": before,
                "ended_at_us": before,
            }
            while await self._delete(over):
                pass

    async def _delete(self, over: Document) -> bool:
        """Delete some; whether there were any."""
        async with mongo.operation():
            some = [row["_id"] async for row in self._deliveries.find(over, {"_id": 1}).limit(SLICE)]
        async with mongo.operation():
            # What is sent again meanwhile is not over any more.
            await self._deliveries.delete_many({**over, "_id": {"$in": some}})
        return bool(some)
