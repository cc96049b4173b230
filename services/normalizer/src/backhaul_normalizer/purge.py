"""All that is stored of a tenant's registration: how much it is, and its end."""

from __future__ import annotations

import asyncio

from backhaul_common import mongo
from backhaul_common.names import (
    COMMUNICATIONS_COLLECTION,
    DEAD_LETTERS_COLLECTION,
    EVENTS_COLLECTION,
    MESSAGES_COLLECTION,
)
from backhaul_common.store_format import StoreFormat

from backhaul_normalizer.store import INDEXES

_COUNTED = (EVENTS_COLLECTION, MESSAGES_COLLECTION, COMMUNICATIONS_COLLECTION, DEAD_LETTERS_COLLECTION)
"""What people ask about. Whatever else is stored belongs to one of these, and is not there without it."""


class TenantData:
    """Counts and deletes the documents of a registration.

    A purge is one pass. It is asked for when nothing can be stored of the registration any more: no transaction is left
    that began before the tenant was marked, and those that began later leave it out.
    """

    def __init__(self, database: mongo.Database, store_format: StoreFormat) -> None:
        self._database = database
        self._format = store_format

    async def usage(self, registration: str) -> dict[str, int]:
        """How many documents of ``registration`` there are, by collection. UNAVAILABLE when MongoDB is away."""
        await self._format.ensure()
        async with mongo.operation(mongo.PATIENT_S):
            numbers = await asyncio.gather(
                *(self._database[name].count_documents({"registration": registration}) for name in _COUNTED)
            )
        return dict(zip(_COUNTED, numbers, strict=True))

    async def purge(self, registration: str) -> int:
        """Delete every document of ``registration``; how many there were.

        UNAVAILABLE when MongoDB is away; what was deleted by then stays deleted, and the same call again goes on.
        """
        await self._format.ensure()
        deleted = 0
        async with mongo.operation(mongo.PATIENT_S):
            for name in INDEXES:
                deleted += (await self._database[name].delete_many({"registration": registration})).deleted_count
        return deleted
