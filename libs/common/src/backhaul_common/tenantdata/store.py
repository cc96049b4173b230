"""What is kept of a tenant: how much it is, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Protocol

from backhaul_common import fence, mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.store_format import StoreFormat


class TenantData(Protocol):
    """What a service keeps of tenants. UNAVAILABLE from every method while the store is away."""

    async def usage(self, registration: str) -> Mapping[str, int]:
        """How much there is of ``registration``, by kind."""
        ...

    async def purge(self, tenant_id: str, registration: str) -> int:
        """Delete all that is kept of ``registration``; how much it was. See ``TenantDataService``."""
        ...


class MongoTenantData:
    """A ``TenantData`` of documents that carry a ``registration``, by which their collections have an index.

    ``collections`` are all of the service's that hold tenants' documents; ``counted`` are those of them that people
    ask about, and stand for whatever belongs to them in the others. A purge is one pass: it is asked for when nothing
    can be stored of the registration any more.
    """

    def __init__(
        self,
        database: mongo.Database,
        store_format: StoreFormat,
        *,
        collections: Collection[str],
        counted: Collection[str],
    ) -> None:
        self._database = database
        self._format = store_format
        self._collections = tuple(collections)
        self._counted = tuple(counted)

    async def usage(self, registration: str) -> Mapping[str, int]:
        """See ``TenantData``. Kinds are names of collections."""
        await self._format.ensure()
        async with mongo.operation(mongo.PATIENT_S):
            numbers = await asyncio.gather(
                *(self._database[name].count_documents({"registration": registration}) for name in self._counted)
            )
        return dict(zip(self._counted, numbers, strict=True))

    async def purge(self, tenant_id: str, registration: str) -> int:
        """See ``TenantData``. What was deleted when it fails stays deleted, and the same call again goes on."""
        await self._format.ensure()
        if await fence.lives(self._database, tenant_id, registration):
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                "The tenant lives: what is stored of it next would be left behind.",
                field="registration",
                fix="Delete the tenant with DELETE /admin/v1/tenants/{id}?purge=true.",
            )
        deleted = 0
        async with mongo.operation(mongo.PATIENT_S):
            for name in self._collections:
                deleted += (await self._database[name].delete_many({"registration": registration})).deleted_count
        return deleted
