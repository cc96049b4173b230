"""Deleting files whose time is over, so that what is left can still be verified.

A file is condemned first, which the next digest says; only when that digest is in its place is the object deleted. So
nobody ever finds a file missing of which no digest says that it may be. A lock that holds an object delays this.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from backhaul_common import mongo
from backhaul_common.directory import TenantDirectory
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import AUDIT_FILES_DELETED
from backhaul_common.names import AUDIT_CHAINS_COLLECTION, AUDIT_DIGESTS_COLLECTION, AUDIT_FILES_COLLECTION
from backhaul_common.tenants import Tenant
from backhaul_digests.model import Chain, ChainKey
from pymongo import ASCENDING, DESCENDING, IndexModel

from backhaul_audit.digests.store import MAX_FILES
from backhaul_audit.documents import SEALED
from backhaul_audit.ports import Destinations, Locked

EVERY_S = 600.0
"""How often it is looked for files whose time is over."""

MAX_DELETED = 1000
"""Files of one chain that are deleted at a time, before it is another chain's turn."""

MAX_REFUSED = 5
"""Deletions that a bucket may refuse before it is left alone until the next time. A legal hold is of one file; what is
wrong with a bucket is so for all."""

_DAY_US = 86_400_000_000

INDEXES = {
    AUDIT_FILES_COLLECTION: [
        IndexModel(
            [("registration", ASCENDING), ("chain", ASCENDING), ("announced", ASCENDING)],
            partialFilterExpression={"deleted_at_us": 0, "announced": {"$gt": 0}},
            name="to_delete",
        ),
        IndexModel(
            # All that is asked of it, so that no document is read.
            [
                ("registration", ASCENDING),
                ("deleted_at_us", ASCENDING),
                ("locked_until_us", ASCENDING),
                ("channel", ASCENDING),
            ],
            partialFilterExpression={"deleted_at_us": 0, "locked_until_us": {"$gt": 0}},
            name="locked",
        ),
    ]
}


class Retention:
    """What any copy does, again and again; several may at once."""

    def __init__(
        self,
        database: mongo.Database,
        destinations: Destinations,
        tenants: TenantDirectory,
        metrics: Metrics,
        now_us: Callable[[], int],
    ) -> None:
        self._files = database[AUDIT_FILES_COLLECTION]
        self._chains = database[AUDIT_CHAINS_COLLECTION]
        self._digests = database[AUDIT_DIGESTS_COLLECTION]
        self._destinations = destinations
        self._tenants = tenants
        self._now_us = now_us
        self._deleted = metrics.counter(AUDIT_FILES_DELETED)
        self._log = get_logger(component="retention")

    async def run(self) -> None:
        """Until cancelled. UNAVAILABLE when MongoDB is away."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Condemn what is too old, and delete what is condemned and announced."""
        tenants = {tenant.registration: tenant for tenant in self._tenants.tenants.values()}
        async with mongo.operation():
            rows = await self._chains.find({"digest": {"$gt": 0}}, {"registration": 1, "chain": 1}).to_list(None)
        for row in rows:
            tenant = tenants.get(row["registration"])
            if tenant is None or tenant.status == "deleting":
                continue
            of = ChainKey(tenant.registration, Chain(row["chain"]))
            if tenant.audit.retention_days is not None:
                await self._condemn(of, tenant.audit.retention_days)
            await self._delete(of, tenant)

    async def locked(self, registration: str) -> Mapping[str, Locked]:
        """See ``Locks``: as it was when this or another copy last tried to delete them."""
        held = {"registration": registration, "deleted_at_us": 0, "locked_until_us": {"$gt": self._now_us()}}
        by_channel = {"_id": "$channel", "files": {"$sum": 1}, "until_us": {"$max": "$locked_until_us"}}
        async with mongo.operation():
            rows = await self._files.aggregate([{"$match": held}, {"$group": by_channel}]).to_list(None)
        return {row["_id"]: Locked(row["files"], row["until_us"]) for row in rows}

    async def _condemn(self, of: ChainKey, days: int) -> None:
        now_us = self._now_us()
        query: Document = {"registration": of.registration, "chain": of.chain.value}
        async with mongo.operation():
            before = {**query, "to_us": {"$lt": now_us - days * _DAY_US}, "uploaded": True}
            digest = await self._digests.find_one(before, {"number": 1}, sort=[("number", DESCENDING)])
            chain = await self._chains.find_one({"_id": of.id}, {"condemned": 1})
        if digest is None or chain is None:
            return
        while True:
            listed = {"$gt": 0, "$lte": digest["number"]}
            old = {**query, "state": SEALED, "number": {"$gt": chain.get("condemned", 0)}, "digest": listed}
            async with mongo.operation():
                found = self._files.find(old, {"number": 1}, sort=[("number", ASCENDING)], limit=MAX_FILES)
                rows = await found.to_list(None)
            if not rows:
                return
            last = rows[-1]["number"]
            condemned = {**query, "number": {"$gte": rows[0]["number"], "$lte": last}, "condemned_at_us": None}
            async with mongo.operation():
                await self._files.update_many(condemned, {"$set": {"condemned_at_us": now_us, "announced": 0}})
                # Behind the files: if this copy dies in between, another finds them condemned, and goes on.
                await self._chains.update_one({"_id": of.id}, {"$max": {"condemned": last}})
            chain = {"condemned": last}

    async def _delete(self, of: ChainKey, tenant: Tenant) -> None:
        query: Document = {"registration": of.registration, "chain": of.chain.value}
        async with mongo.operation():
            in_place = await self._digests.find_one(
                {**query, "uploaded": True}, {"number": 1}, sort=[("number", DESCENDING)]
            )
        if in_place is None:
            return
        now_us = self._now_us()
        ready = {
            **query,
            "deleted_at_us": 0,
            "announced": {"$gt": 0, "$lte": in_place["number"]},
            "locked_until_us": {"$not": {"$gt": now_us}},
        }
        async with mongo.operation():
            fields = {"key": 1, "destination": 1, "bucket": 1}
            rows = await self._files.find(ready, fields, limit=MAX_DELETED).to_list(None)
        deleted, locked, until = 0, 0, 0
        refused = Counter[tuple[str, str]]()
        for row in rows:
            lies_in = row["destination"], row["bucket"]
            if refused[lies_in] >= MAX_REFUSED:
                continue
            try:
                until_at = await self._destinations.lying(of.registration, *lies_in).delete(row["key"])
            except BackhaulError as exc:
                if exc.code not in (Code.UNAVAILABLE, Code.FAILED_PRECONDITION):
                    raise
                refused[lies_in] += 1
                self._log.warning("retention_waits", tenant=tenant.id, chain=of.chain, problem=str(exc))
                continue
            if until_at is None:
                change = {"deleted_at_us": self._now_us()}
                deleted += 1
            else:
                until = round(until_at.timestamp() * 1_000_000)
                change = {"locked_until_us": until}
                locked += 1
            async with mongo.operation():
                await self._files.update_one({"_id": row["_id"]}, {"$set": change})
        if deleted or locked:
            self._deleted.add(tenant.id, amount=deleted)
            until_text = datetime.fromtimestamp(until / 1e6, UTC).isoformat() if until else ""
            self._log.info(
                "files_deleted", tenant=tenant.id, chain=of.chain, deleted=deleted, locked=locked, until=until_text
            )
