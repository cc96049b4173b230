"""A bucket that has another one in its place by now: what lies there is read, checked and deleted there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from backhaul_audit.objects import Bucket
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import TENANTS_COLLECTION
from backhaul_common.tenants import Tenant
from backhaul_local.object_store import ObjectStoreServer
from buckets_rig import bucket_at, client_at, folder
from digests_rig import Here, Rig
from signed_world import HOUR_US


@pytest.fixture
async def former(digesting: Rig, s3_server: ObjectStoreServer) -> AsyncIterator[Bucket]:
    """The bucket that the rig had first."""
    client = client_at(s3_server)
    names = folder(), folder()
    for name in names:
        client.make_bucket(name)
    with bucket_at(s3_server, bucket=names[0]) as first, bucket_at(s3_server, bucket=names[1]) as second:
        use(digesting, first)
        acme = await digesting.register("acme")
        await digesting.seal(acme)
        await digesting.hour()
        await digesting.seal(acme)
        await digesting.hour()
        use(digesting, second)
        await digesting.seal(acme)
        await digesting.hour()
        yield first


def use(digesting: Rig, bucket: Bucket) -> None:
    digesting.bucket, digesting.destinations = bucket, Here(bucket)


def acme_of(digesting: Rig) -> Tenant:
    return digesting.tenants.tenants["acme"]


async def keys(bucket: Bucket, prefix: str = "") -> list[str]:
    return [key async for key in bucket.keys(prefix)]


async def test_what_was_put_into_it_is_checked_there(digesting: Rig, former: Bucket) -> None:
    acme = acme_of(digesting)
    findings, told = await digesting.verified(acme)
    assert findings == []
    assert (told.digests, told.files) == (3, 3)
    # What is missing, changed or added there is found.
    first, second = await keys(former, "digests/")
    (file, _) = await keys(former, "tenants/")
    assert await former.delete(file) is None
    findings, _ = await digesting.verified(acme)
    assert [(one.name, one.problem) for one in findings] == [(f"{former.bucket}/{file}", "not_found")]
    assert await former.delete(second) is None
    assert await former.create(second, b"{}\n{}\n", {})
    findings, _ = await digesting.verified(acme)
    assert (second, "invalid_format") in [(one.name, one.problem) for one in findings]
    assert await former.delete(first) is None
    assert "gap" in [one.problem for one in (await digesting.verified(acme))[0]]


async def test_a_digest_is_put_where_it_was_signed_to_lie(
    digesting: Rig, former: Bucket, s3_server: ObjectStoreServer
) -> None:
    acme = acme_of(digesting)
    digesting.now_us += HOUR_US
    assert await digesting.maker().make_due()
    use(digesting, former)
    assert await digesting.maker().upload()
    key = (await digesting.rows(acme))[-1]["key"]
    assert key not in await keys(former)
    findings, told = await digesting.verified(acme)
    assert findings == []
    assert told.digests == 4


async def test_digests_that_were_copied_are_as_good(digesting: Rig, former: Bucket) -> None:
    for key in await keys(former, "digests/"):
        data = b"".join([piece async for piece in former.read(key)])
        assert await digesting.bucket.create(key, data, {})
        assert await former.delete(key) is None
    findings, told = await digesting.verified(acme_of(digesting))
    assert findings == []
    assert (told.digests, told.files) == (3, 3)


async def test_without_it_what_lay_there_is_missed(
    digesting: Rig, former: Bucket, s3_server: ObjectStoreServer
) -> None:
    for key in await keys(former):
        await former.delete(key)
    client_at(s3_server).remove_bucket(former.bucket)
    findings, told = await digesting.verified(acme_of(digesting))
    assert {one.problem for one in findings} == {"not_found", "gap"}
    assert (told.valid_digests, told.valid_files) == (1, 1)


async def test_files_whose_time_is_over_are_deleted_there(
    digesting: Rig, former: Bucket, s3_server: ObjectStoreServer
) -> None:
    acme = acme_of(digesting)
    await digesting.keep_for(acme, 1)
    await digesting.hour(48)
    retention = digesting.retention()
    await retention.look()
    await digesting.hour()
    await retention.look()
    assert await keys(former, "tenants/") == []
    assert await keys(digesting.bucket, "tenants/") == []
    assert (await digesting.verified(acme))[0] == []


async def test_a_tenants_end_reaches_it(digesting: Rig, former: Bucket, s3_server: ObjectStoreServer) -> None:
    acme = acme_of(digesting)
    await digesting.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    await digesting.tenant_data().purge("acme", acme.registration)
    assert await keys(former) == []
    assert await keys(digesting.bucket) == []


async def test_with_a_bucket_goes_all_that_lay_in_it(
    digesting: Rig, former: Bucket, s3_server: ObjectStoreServer
) -> None:
    acme = acme_of(digesting)
    for key in await keys(former):
        await former.delete(key)
    client_at(s3_server).remove_bucket(former.bucket)
    gone = digesting.bucket.beside(former.bucket)
    assert await gone.delete("anything") is None
    with pytest.raises(BackhaulError, match=former.bucket) as refused:
        await gone.stat("anything")
    assert refused.value.code is Code.FAILED_PRECONDITION
    with pytest.raises(BackhaulError, match="not one that S3 can have"):
        digesting.bucket.beside("no bucket")
    await digesting.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    await digesting.tenant_data().purge("acme", acme.registration)
    assert await keys(digesting.bucket) == []
