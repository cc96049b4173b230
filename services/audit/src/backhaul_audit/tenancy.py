"""What is kept of a tenant, and its end: objects first, then the documents that know of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime

from backhaul_common import fence, mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.names import AUDIT_DIGESTS_COLLECTION, AUDIT_FILES_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import MongoTenantData

from backhaul_audit import people
from backhaul_audit.books import INDEXES
from backhaul_audit.digests import store
from backhaul_audit.documents import ABANDONED, RECORDED, SEALED
from backhaul_audit.ports import Destinations

COUNTED = (AUDIT_FILES_COLLECTION,)

OBJECTS_S = 10.0
"""For how long one call deletes objects. The rest of its time is for documents."""

_PAGE = 100


class AuditTenantData:
    """A ``TenantData``. The copy that files gives up what it was making for a tenant that is gone; until it has, its
    documents stay, since an object could still come into the bucket."""

    def __init__(self, database: mongo.Database, store_format: StoreFormat, destinations: Destinations) -> None:
        self._database = database
        self._destinations = destinations
        collections = dict.fromkeys((*INDEXES, *store.INDEXES, *people.INDEXES))
        self._documents = MongoTenantData(database, store_format, collections=collections, counted=COUNTED)
        self._log = get_logger(component="tenancy")

    async def usage(self, registration: str) -> Mapping[str, int]:
        """See ``TenantData``."""
        return await self._documents.usage(registration)

    async def purge(self, tenant_id: str, registration: str) -> int:
        """See ``TenantData``. UNAVAILABLE also while a file of the tenant is being made, and while a bucket is away;
        FAILED_PRECONDITION says until when a lock holds an object.

        What lies in a channel's own bucket that lets nobody in stays there: it is the tenant's.
        """
        if not await fence.lives(self._database, tenant_id, registration):
            await self._require_idle(registration)
            ends = time.monotonic() + OBJECTS_S
            files = {"state": {"$in": [SEALED, ABANDONED]}, "deleted_at_us": {"$in": [0, None]}}
            for collection, query in ((AUDIT_FILES_COLLECTION, files), (AUDIT_DIGESTS_COLLECTION, {})):
                asked = {"registration": registration, "purged": None, **query}
                async for row in self._rows(collection, asked):
                    await self._delete(registration, row)
                    async with mongo.operation():
                        await self._database[collection].update_one({"_id": row["_id"]}, {"$set": {"purged": True}})
                    if time.monotonic() > ends:
                        raise BackhaulError(
                            Code.UNAVAILABLE,
                            "The tenant has more audit files than one call deletes.",
                            fix="Ask again: the next call goes on.",
                            retry_after_s=1,
                        )
        return await self._documents.purge(tenant_id, registration)

    async def _require_idle(self, registration: str) -> None:
        async with mongo.operation():
            made = await self._database[AUDIT_FILES_COLLECTION].find_one(
                {"registration": registration, "state": RECORDED}, {"_id": 1}
            )
        if made is not None:
            raise BackhaulError(
                Code.UNAVAILABLE,
                "An audit file of the tenant is still being made.",
                fix="Ask again: it is given up within seconds.",
                retry_after_s=1,
            )

    async def _rows(self, collection: str, query: Document) -> AsyncIterator[Document]:
        """What ``query`` finds, until it finds nothing more."""
        while True:
            async with mongo.operation():
                found = self._database[collection].find(query, {"key": 1, "destination": 1, "bucket": 1}, limit=_PAGE)
                rows = await found.to_list(None)
            if not rows:
                return
            for row in rows:
                yield row

    async def _delete(self, registration: str, row: Document) -> None:
        destination = row.get("destination", "")  # Digests lie in the installation's bucket.
        until: datetime | None = None
        try:
            until = await self._destinations.lying(registration, destination, row["bucket"]).delete(row["key"])
        except BackhaulError as exc:
            if exc.code is not Code.FAILED_PRECONDITION or not destination:
                raise
            self._log.warning("object_left_behind", registration=registration, key=row["key"], error=str(exc))
        if until is not None:
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                f"A lock holds {row['key']} until {until.isoformat(timespec='seconds')}.",
                fix="Wait until then: the deletion goes on by itself.",
            )
