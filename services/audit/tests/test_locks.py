"""Locks of a real server: retention and a tenant's end wait for them, say until when, and go on when they are over."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from backhaul_audit.ports import Locked
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import AUDIT_FILES_COLLECTION, TENANTS_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_local.object_store import ObjectStoreServer
from backhaul_testing.waiting import until
from buckets_rig import bucket_at, client_at, folder
from digests_rig import Rig
from minio import Minio
from minio.commonconfig import COMPLIANCE, GOVERNANCE
from minio.retention import Retention

pytestmark = pytest.mark.slow

HELD_S = 6


@pytest.fixture
async def digesting(mongo_server: Any, mongo_database: str, s3_server: ObjectStoreServer) -> AsyncIterator[Rig]:
    """An installation whose bucket has object lock. Its clock is the server's, but where a test is ahead of it."""
    name = folder()
    client_at(s3_server).make_bucket(name, object_lock=True)
    client = mongo.connect(mongo_server.uri)
    database = mongo.database(client, mongo_database)
    await StoreFormat(database).ensure()
    with bucket_at(s3_server, bucket=name) as bucket:
        rig = Rig(database, bucket, name)
        await rig.prepare()
        yield rig
        rig.metrics.close()
    client.close()


@pytest.fixture
def s3(s3_server: ObjectStoreServer) -> Minio:
    return client_at(s3_server)


def now_us() -> int:
    return time.time_ns() // 1000


def lock(s3: Minio, bucket: str, keys: Sequence[str], mode: str) -> int:
    """Hold every version of these for ``HELD_S``; until when. A bucket's default counts in days."""
    ends = (datetime.now(UTC) + timedelta(seconds=HELD_S)).replace(microsecond=0)
    for key in keys:
        (version,) = s3.list_objects(bucket, prefix=key, include_version=True)
        s3.set_object_retention(bucket, key, Retention(mode, ends), version_id=version.version_id)
    return round(ends.timestamp() * 1_000_000)


def versions(s3: Minio, bucket: str, prefix: str) -> list[str]:
    """What is there in any version, markers of deletions included."""
    return [str(one.object_name) for one in s3.list_objects(bucket, prefix, recursive=True, include_version=True)]


@pytest.mark.parametrize("mode", [COMPLIANCE, GOVERNANCE])
async def test_files_that_a_lock_holds_go_when_it_is_over(digesting: Rig, s3: Minio, mode: str) -> None:
    bucket = digesting.bucket.bucket
    acme = await digesting.register("acme")
    await digesting.keep_for(acme, 1)
    held, free = await digesting.seal(acme), await digesting.seal(acme)
    await digesting.hour()
    await digesting.hour(48)
    retention = digesting.retention()
    await retention.look()
    await digesting.hour()
    ends_us = lock(s3, bucket, [held.plan.key], mode)
    digesting.now_us = now_us()

    await retention.look()
    assert await retention.locked(acme.registration) == {held.plan.pile.channel: Locked(1, ends_us)}
    assert versions(s3, bucket, "tenants/") == [held.plan.key]
    assert await digesting.bucket.stat(held.plan.key) is not None
    assert (await digesting.verified(acme))[0] == []

    async def gone() -> bool:
        digesting.now_us = now_us()
        await retention.look()
        return not await retention.locked(acme.registration)

    await until("the end of the lock", gone, within_s=60, pause_s=0.2)
    assert now_us() >= ends_us
    assert versions(s3, bucket, "tenants/") == []
    for file in (held, free):
        row = await digesting.database[AUDIT_FILES_COLLECTION].find_one({"key": file.plan.key})
        assert row is not None
        assert row["deleted_at_us"] > 0
    assert (await digesting.verified(acme))[0] == []


async def test_a_tenants_end_waits_for_locks_and_goes_on_when_they_are_over(digesting: Rig, s3: Minio) -> None:
    bucket = digesting.bucket.bucket
    acme, globex = await digesting.register("acme"), await digesting.register("globex")
    files = [await digesting.seal(acme) for _ in range(3)]
    theirs = await digesting.seal(globex)
    await digesting.hour()
    (digest,) = await digesting.rows(acme)
    ends_us = lock(s3, bucket, [files[1].plan.key, digest["key"]], COMPLIANCE)
    await digesting.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    data = digesting.tenant_data()
    said = datetime.fromtimestamp(ends_us / 1e6, UTC).isoformat(timespec="seconds")
    with pytest.raises(BackhaulError) as refused:
        await data.purge("acme", acme.registration)
    assert refused.value.code is Code.FAILED_PRECONDITION
    assert said in refused.value.message
    assert files[1].plan.key in versions(s3, bucket, f"tenants/{acme.registration}/")

    async def ended() -> bool:
        try:
            await data.purge("acme", acme.registration)
        except BackhaulError as exc:
            assert exc.code is Code.FAILED_PRECONDITION  # noqa: PT017  # it may be so, and nothing else may
            return False
        return True

    await until("the end of the locks", ended, within_s=60, pause_s=0.2)
    assert now_us() >= ends_us
    for prefix in (f"tenants/{acme.registration}/", f"digests/{acme.registration}/"):
        assert versions(s3, bucket, prefix) == []
    assert await digesting.rows(acme) == []
    assert versions(s3, bucket, f"tenants/{globex.registration}/") == [theirs.plan.key]
    assert (await digesting.verified(globex))[0] == []
