"""What is kept of a tenant: how much it is, and its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from backhaul_common import fence, mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.sizes import MAX_COUNTED
from backhaul_common.store_format import StoreFormat

PURGE_S = 15.0
"""When a purge begins no further slice. What is under way then has ``OPERATION_S`` more, which is within the 30 s that
a call may take."""

SLICE = 2000
"""How many documents are deleted at once. A purge that is cancelled leaves no more than one such deletion behind it:
motor's calls run to their end in their threads, and deletions of millions would pile up there."""

_NONE: Mapping[str, str] = {}

_AT_ONCE = 100
"""Documents that are looked at before it is seen whether they are enough."""


class TenantData(Protocol):
    """What a service keeps of tenants. UNAVAILABLE from every method while the store is away."""

    async def usage(self, registration: str) -> Mapping[str, int]:
        """How much there is of ``registration``, by kind; ``MAX_COUNTED`` may stand for more."""
        ...

    async def purge(self, tenant_id: str, registration: str) -> int:
        """Delete all that is kept of ``registration``; how much it was.

        UNAVAILABLE when the call's time is over and something is left: see ``TenantDataService``.
        """
        ...


class MongoTenantData:
    """A ``TenantData`` of documents that carry a ``registration``, by which their collections have an index.

    ``collections`` are all of the service's that hold tenants' documents; ``counted`` are those of them that people
    ask about, and stand for whatever belongs to them in the others. Documents of ``several`` each hold several of what
    is counted: in the list of that name, where null is none. A purge is one pass: it is asked for when nothing can be
    stored of the registration any more.
    """

    def __init__(
        self,
        database: mongo.Database,
        store_format: StoreFormat,
        *,
        collections: Collection[str],
        counted: Collection[str],
        several: Mapping[str, str] = _NONE,
        purge_s: float = PURGE_S,
        slice_documents: int = SLICE,
    ) -> None:
        self._database = database
        self._format = store_format
        self._collections = tuple(collections)
        self._counted = tuple(counted)
        self._several = several
        self._purge_s = purge_s
        self._slice = slice_documents

    async def usage(self, registration: str) -> Mapping[str, int]:
        """See ``TenantData``. Kinds are names of collections."""
        await self._format.ensure()
        async with mongo.operation():
            numbers = await asyncio.gather(*(self._count(name, registration) for name in self._counted))
        return dict(zip(self._counted, numbers, strict=True))

    async def _count(self, name: str, registration: str) -> int:
        query = {"registration": registration}
        if name not in self._several:
            return await self._database[name].count_documents(query, limit=MAX_COUNTED)
        present = {"$filter": {"input": f"${self._several[name]}", "as": "one", "cond": {"$ne": ["$$one", None]}}}
        pipeline: list[Document] = [
            {"$match": query},
            {"$limit": MAX_COUNTED},
            {"$project": {"_id": 0, "number": {"$size": present}}},
        ]
        documents = total = 0
        cursor = self._database[name].aggregate(pipeline, batchSize=_AT_ONCE)
        try:
            async for row in cursor:
                documents += 1
                total += row["number"]
                # Beyond so many documents nothing is looked at: there may be more in those.
                if total >= MAX_COUNTED or documents == MAX_COUNTED:
                    return MAX_COUNTED
        finally:
            await cursor.close()
        return total

    async def purge(self, tenant_id: str, registration: str) -> int:
        """See ``TenantData``. What was deleted when it fails stays deleted, and the same call again goes on."""
        ends = time.monotonic() + self._purge_s
        await self._format.ensure()
        if await fence.lives(self._database, tenant_id, registration):
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                "The tenant lives: what is stored of it next would be left behind.",
                field="registration",
                fix="Delete the tenant with DELETE /admin/v1/tenants/{id}?purge=true.",
            )
        deleted = 0
        for name in self._collections:
            while found := await self._find_slice(name, registration):
                if time.monotonic() >= ends:
                    # The text is the same each time: the gateway logs a reason once.
                    raise BackhaulError(
                        Code.UNAVAILABLE,
                        "The tenant has more than one call deletes.",
                        fix="Ask again: the next call goes on.",
                        retry_after_s=1,
                    )
                deleted += await self._delete_slice(name, registration, found)
        return deleted

    async def _find_slice(self, name: str, registration: str) -> list[Any]:
        query = {"registration": registration}
        async with mongo.operation():
            rows = await self._database[name].find(query, {"_id": 1}, limit=self._slice).to_list(None)
        return [row["_id"] for row in rows]

    async def _delete_slice(self, name: str, registration: str, ids: list[Any]) -> int:
        # The registration is asked for again: an id may be another registration's by now.
        query = {"_id": {"$in": ids}, "registration": registration}
        async with mongo.operation():
            return (await self._database[name].delete_many(query, hint="_id_")).deleted_count
