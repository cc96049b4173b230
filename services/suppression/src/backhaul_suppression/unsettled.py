"""Rows that are still to be settled, in MongoDB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import SUPPRESSION_FACTS_COLLECTION, SUPPRESSIONS_COLLECTION
from pymongo import ASCENDING

from backhaul_suppression.documents import to_row
from backhaul_suppression.ports import UnsettledRow


class MongoUnsettled:
    """``Unsettled``."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database

    async def oldest(self, limit: int) -> Sequence[UnsettledRow]:
        """See ``Unsettled``."""
        async with mongo.operation():
            cursor = self._database[SUPPRESSIONS_COLLECTION].find({"unsettled": {"$gt": 0}})
            documents = await cursor.sort([("unsettled", ASCENDING)]).limit(limit).to_list(None)
            tenants = await self._tenants({document["fact"] for document in documents})
        return [
            UnsettledRow(document["_id"], tenants.get(document["fact"], ""), to_row(document), document["unsettled"])
            for document in documents
        ]

    async def settled(self, rows: Sequence[UnsettledRow]) -> None:
        """See ``Unsettled``."""
        # What became unsettled anew meanwhile stays so.
        updates: list[Document] = [
            {"q": {"_id": row.id, "unsettled": row.seq}, "u": {"$unset": {"unsettled": ""}}} for row in rows
        ]
        if updates:
            async with mongo.operation():
                await self._database.command({"update": SUPPRESSIONS_COLLECTION, "updates": updates, "ordered": False})

    async def _tenants(self, facts: set[Any]) -> dict[Any, str]:
        found = self._database[SUPPRESSION_FACTS_COLLECTION].find({"_id": {"$in": list(facts)}}, {"tenant": 1})
        return {document["_id"]: document["tenant"] for document in await found.to_list(None)}
