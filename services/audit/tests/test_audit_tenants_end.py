"""The end of a tenant: objects first, then the documents that know of them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from backhaul_audit import books
from backhaul_audit.digests import store
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import AUDIT_FILES_COLLECTION, TENANTS_COLLECTION
from digests_rig import DAY_US, Here, Locking, Rig


async def test_a_tenants_end_takes_its_objects_and_documents_and_nobody_elses(digesting: Rig) -> None:
    acme, globex = await digesting.register("acme"), await digesting.register("globex")
    for tenant in (acme, globex):
        for _ in range(20):
            await digesting.seal(tenant)
    await digesting.hour()
    data = digesting.tenant_data()
    assert (await data.usage(acme.registration))[AUDIT_FILES_COLLECTION] == 20
    with pytest.raises(BackhaulError, match="lives"):
        await data.purge("acme", acme.registration)
    assert (await digesting.verified(acme))[0] == []

    await digesting.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    # Documents of files, the digest, the chain and a notice.
    assert await data.purge("acme", acme.registration) == 23
    assert await data.purge("acme", acme.registration) == 0
    assert [key async for key in digesting.bucket.keys(f"tenants/{acme.registration}/")] == []
    assert [key async for key in digesting.bucket.keys(f"digests/{acme.registration}/")] == []
    for name in (*books.INDEXES, *store.INDEXES):
        assert await digesting.database[name].count_documents({"registration": acme.registration}) == 0
    findings, told = await digesting.verified(globex)
    assert findings == []
    assert (told.digests, told.files) == (1, 20)


async def test_a_tenants_end_waits_for_locks_and_says_until_when(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    await digesting.seal(acme)
    await digesting.hour()
    await digesting.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    locking = Locking(digesting.bucket, digesting, digesting.now_us + DAY_US)
    until = datetime.fromtimestamp((digesting.now_us + DAY_US) / 1e6, UTC)
    with pytest.raises(BackhaulError, match=re.escape(until.isoformat(timespec="seconds"))) as refused:
        await digesting.tenant_data(Here(locking)).purge("acme", acme.registration)
    assert refused.value.code is Code.FAILED_PRECONDITION
    assert len(await digesting.rows(acme)) == 1
    digesting.now_us += DAY_US
    assert await digesting.tenant_data(Here(locking)).purge("acme", acme.registration) == 4


async def test_a_tenant_without_objects_ends_where_no_bucket_is_set_up(digesting: Rig) -> None:
    assert await digesting.tenant_data(Here(None)).purge("acme", "acme.1") == 0
