"""What is kept of a tenant, and its end."""

from __future__ import annotations

from collections.abc import Mapping

from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import AUDIT_FILES_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import MongoTenantData

from backhaul_audit.books import INDEXES
from backhaul_audit.documents import RECORDED

COUNTED = (AUDIT_FILES_COLLECTION,)


class AuditTenantData:
    """A ``TenantData``. The copy that files gives up what it was making for a tenant that is gone; until it has, its
    documents stay, since an object could still come into the bucket."""

    def __init__(self, database: mongo.Database, store_format: StoreFormat) -> None:
        self._files = database[AUDIT_FILES_COLLECTION]
        self._documents = MongoTenantData(database, store_format, collections=INDEXES, counted=COUNTED)

    async def usage(self, registration: str) -> Mapping[str, int]:
        """See ``TenantData``."""
        return await self._documents.usage(registration)

    async def purge(self, tenant_id: str, registration: str) -> int:
        """See ``TenantData``. UNAVAILABLE also while a file of the tenant is being made."""
        async with mongo.operation():
            made = await self._files.find_one({"registration": registration, "state": RECORDED}, {"_id": 1})
        if made is not None:
            raise BackhaulError(
                Code.UNAVAILABLE,
                "An audit file of the tenant is still being made.",
                fix="Ask again: it is given up within seconds.",
                retry_after_s=1,
            )
        return await self._documents.purge(tenant_id, registration)
