"""A database and a bucket in which digests are made, by a clock that tests set."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from backhaul_audit.digests import keys, retention, store
from backhaul_audit.digests.keys import MongoKeys
from backhaul_audit.digests.making import DigestMaker
from backhaul_audit.digests.retention import Retention
from backhaul_audit.digests.store import MongoDigests
from backhaul_audit.documents import plan_document, sealing
from backhaul_audit.model import SealedFile
from backhaul_audit.objects import Bucket
from backhaul_audit.ports import Verified, VerifyQuery
from backhaul_audit.tenancy import AuditTenantData
from backhaul_audit.verification import BucketVerification
from backhaul_common import mongo
from backhaul_common.metering import Metrics
from backhaul_common.names import (
    AUDIT_CHAINS_COLLECTION,
    AUDIT_DIGESTS_COLLECTION,
    AUDIT_FILES_COLLECTION,
    AUDIT_OUTBOX,
    TENANTS_COLLECTION,
)
from backhaul_common.secrets import SecretBox
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenants import AuditRetention, Tenant
from backhaul_digests.model import Chain, ChainKey, Finding
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_testing import make
from signed_world import HOUR_US, START_US, sealed

DAY_US = 24 * HOUR_US
BOX_KEYS = ("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",)


@dataclass
class Told:
    """Who would publish."""

    times: int = 0

    def written(self) -> None:
        self.times += 1


@dataclass
class Tenants:
    """What is asked of a directory."""

    tenants: dict[str, Tenant] = field(default_factory=dict)


@dataclass
class Here:
    """``Destinations`` of one bucket."""

    bucket: Any

    def of(self, tenant: Any, channel: Any) -> Any:
        return self.bucket

    def named(self, registration: str, destination: str) -> Any:
        return self.bucket

    def lying(self, registration: str, destination: str, bucket: str) -> Any:
        return self.bucket if self.bucket.bucket == bucket else self.bucket.beside(bucket)


@dataclass
class Rig:
    """One installation. ``now_us`` is what all its copies think that time it is."""

    database: mongo.Database
    bucket: Bucket
    folder: str
    now_us: int = START_US
    tenants: Tenants = field(default_factory=Tenants)
    told: Told = field(default_factory=Told)

    def clock(self) -> int:
        return self.now_us

    def __post_init__(self) -> None:
        self.digests = MongoDigests(self.database, self.clock)
        self.keys = MongoKeys(self.database, SecretBox(BOX_KEYS), self.clock)
        self.destinations = Here(self.bucket)
        self.metrics = Metrics("test")

    async def prepare(self) -> None:
        for indexes in (keys.INDEXES, store.INDEXES, retention.INDEXES):
            await mongo.make_indexes(self.database, indexes)

    async def register(self, tenant_id: str, **changes: Any) -> Tenant:
        made = make.tenant(tenant_id)
        # The bucket is the session's, so nobody else may have this registration.
        made = made.model_copy(update={"registration": f"{tenant_id}.{self.folder}", **changes})
        await self.database[TENANTS_COLLECTION].replace_one({"_id": tenant_id}, made.to_document(), upsert=True)
        self.tenants.tenants[tenant_id] = made
        return made

    async def keep_for(self, tenant: Tenant, days: int | None) -> None:
        self.tenants.tenants[tenant.id] = tenant.model_copy(update={"audit": AuditRetention(retention_days=days)})

    def maker(self, destinations: Any = None) -> DigestMaker:
        """One copy's. All tenants ask for files."""
        return DigestMaker(
            self.database,
            self.digests,
            self.keys,
            destinations or self.destinations,
            self.tenants,  # type: ignore[arg-type]  # all that is asked of it
            lambda _: True,
            self.told,
            self.metrics,
            self.clock,
            every_s=3600,
        )

    def retention(self, destinations: Any = None) -> Retention:
        """One copy's."""
        return Retention(
            self.database,
            destinations or self.destinations,
            self.tenants,  # type: ignore[arg-type]  # all that is asked of it
            self.metrics,
            self.clock,
        )

    def tenant_data(self, destinations: Any = None) -> AuditTenantData:
        return AuditTenantData(self.database, StoreFormat(self.database), destinations or self.destinations)

    async def hour(self, hours: int = 1) -> None:
        """So many hours pass, and digests are made at the end."""
        self.now_us += hours * HOUR_US
        maker = self.maker()
        assert await maker.make_due()
        assert await maker.upload()

    async def seal(self, tenant: Tenant, *lines: bytes, chain: Chain = Chain.EVENTS, at_us: int = 0) -> SealedFile:
        """A file, in its place and sealed."""
        of = ChainKey(tenant.registration, chain)
        row = await self.database[AUDIT_CHAINS_COLLECTION].find_one_and_update(
            {"_id": of.id},
            {
                "$inc": {"number": 1},
                "$setOnInsert": {
                    "registration": of.registration,
                    "tenant_id": tenant.id,
                    "chain": chain.value,
                    "digest": 0,
                },
            },
            upsert=True,
            return_document=True,
        )
        assert row is not None
        file, data = sealed(row["number"], lines or (b'{"a":1}',), of=of, zipped=True, bucket=self.bucket.bucket)
        assert await self.bucket.create(file.plan.key, data, {})
        plan = plan_document(file.plan, self.now_us)
        plan["_id"] = f"{of.id}/{row['number']}"
        done = sealing(file.content, row["number"], at_us or self.now_us)
        await self.database[AUDIT_FILES_COLLECTION].insert_one({**plan, **done})
        return file

    async def rows(self, tenant: Tenant, chain: Chain = Chain.EVENTS) -> list[dict[str, Any]]:
        """The recorded digests of a chain."""
        query = {"registration": tenant.registration, "chain": chain.value}
        return await self.database[AUDIT_DIGESTS_COLLECTION].find(query).sort("number", 1).to_list(None)

    async def notices(self) -> list[Notice]:
        rows = await self.database[AUDIT_OUTBOX].find({}).sort("at_us", 1).to_list(None)
        return [Notice.FromString(row["payload"]) for row in rows]

    async def verified(self, tenant: Tenant, query: VerifyQuery = VerifyQuery()) -> tuple[list[Finding], Verified]:  # noqa: B008  # it is frozen
        """What is found to be invalid, and the summary."""
        checks = BucketVerification(self.destinations, self.digests, self.keys)
        findings: list[Finding] = []
        async for told in checks.run(tenant, query):
            findings += [one for one in told.findings if not one.valid]
            if told.done:
                return findings, told
        raise AssertionError("It did not come to an end.")


class Locking:
    """A bucket whose objects are locked until a time."""

    def __init__(self, bucket: Any, rig: Rig, until_us: int) -> None:
        self._bucket = bucket
        self.bucket = bucket.bucket
        self._rig = rig
        self._until_us = until_us
        self.asked = 0

    def keys(self, prefix: str) -> Any:
        return self._bucket.keys(prefix)

    async def delete(self, key: str) -> datetime | None:
        self.asked += 1
        if self._rig.now_us < self._until_us:
            return datetime.fromtimestamp(self._until_us / 1e6, UTC)
        done: datetime | None = await self._bucket.delete(key)
        return done


async def together(*work: Any) -> list[Any]:
    """All at once."""
    return list(await asyncio.gather(*work))
