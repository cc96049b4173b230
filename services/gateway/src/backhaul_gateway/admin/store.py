"""Tenants in MongoDB."""

from __future__ import annotations

from typing import Any

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.mongo import Collection, operation
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenants import Tenant
from pymongo.errors import DuplicateKeyError

_QUEUE_PATH_INDEX = "queue_path_key_unique"
_CREDENTIALS_INDEX = "credentials_id"


class MongoTenantStore:
    """A ``TenantStore``. Unique indexes decide: of all that register one queue path at once, one wins."""

    def __init__(self, collection: Collection, store_format: StoreFormat) -> None:
        self._collection = collection
        self._format = store_format
        self._prepared = False

    async def prepare(self) -> None:
        """Create the indexes. Idempotent."""
        await self._format.ensure()
        async with operation():
            await self._collection.create_index("queue_path_key", unique=True, name=_QUEUE_PATH_INDEX)
            await self._collection.create_index("credentials.id", name=_CREDENTIALS_INDEX)
        self._prepared = True

    async def insert(self, tenant: Tenant) -> None:
        """See ``TenantStore``."""
        if not self._prepared:
            # Without the index nothing would be refused, and the task that makes it may not have come that far.
            await self.prepare()
        try:
            async with operation():
                await self._collection.insert_one(tenant.to_document())
        except DuplicateKeyError as exc:
            if "queue_path_key" in ((exc.details or {}).get("keyPattern") or {}):
                raise BackhaulError(
                    Code.CONFLICT,
                    f"The queue path {tenant.queue_path!r} belongs to another tenant (upper and lower case count as "
                    "one).",
                    field="queue_path",
                    fix="Choose a queue path that no other tenant has.",
                ) from exc
            raise BackhaulError(
                Code.CONFLICT,
                f"There is a tenant {tenant.id!r} already.",
                field="id",
                fix="Choose another id. That of a tenant that is being deleted is free as soon as GET answers 404.",
            ) from exc

    async def find(self, tenant_id: str) -> Tenant | None:
        """See ``TenantStore``."""
        await self._format.ensure()
        async with operation():
            document = await self._collection.find_one({"_id": tenant_id})
        return Tenant.from_document(document) if document is not None else None

    async def owner_of(self, credential_id: str) -> str | None:
        """See ``TenantStore``."""
        await self._format.ensure()
        async with operation():
            document = await self._collection.find_one({"credentials.id": credential_id}, {"_id": 1})
        return str(document["_id"]) if document is not None else None

    async def page(self, after: str, limit: int) -> list[Tenant]:
        """See ``TenantStore``."""
        await self._format.ensure()
        async with operation():
            documents = await self._collection.find({"_id": {"$gt": after}}).sort("_id", 1).limit(limit).to_list(limit)
        return [Tenant.from_document(document) for document in documents]

    async def replace(self, tenant: Tenant, revision: int) -> bool:
        """See ``TenantStore``."""
        document = tenant.to_document()
        del document["_id"]
        async with operation():
            result = await self._collection.update_one(
                {**_registration(tenant), "revision": revision}, {"$set": document}
            )
        return result.matched_count == 1

    async def delete(self, tenant: Tenant) -> bool:
        """See ``TenantStore``."""
        async with operation():
            result = await self._collection.delete_one({**_registration(tenant), "revision": tenant.revision})
        return result.deleted_count == 1


def _registration(tenant: Tenant) -> dict[str, Any]:
    """A filter that finds this registration, and no later one of the same id."""
    return {"_id": tenant.id, "registration": tenant.registration}
