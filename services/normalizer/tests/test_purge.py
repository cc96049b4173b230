"""What is left of a registration that was purged, and what of all others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import EVENTS_COLLECTION
from backhaul_common.sizes import MAX_COUNTED
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import MongoTenantData
from backhaul_normalizer.store import COUNTED, INDEXES, SEVERAL
from normalizer_rig import Rig, RigFactory


def tenant_data(rig: Rig, *, purge_s: float = 15.0, slice_documents: int = 2000) -> MongoTenantData:
    return MongoTenantData(
        rig.database,
        StoreFormat(rig.database),
        collections=INDEXES,
        counted=COUNTED,
        several=SEVERAL,
        purge_s=purge_s,
        slice_documents=slice_documents,
    )


async def fill(rig: Rig, registration: str, names: Iterable[str], number: int) -> None:
    for name in names:
        # Where a document holds several, each has one that is left of two.
        held: Document = {SEVERAL[name]: [None, {"id": b""}]} if name in SEVERAL else {}
        documents = [{"_id": f"{registration} {n}", "registration": registration, **held} for n in range(number)]
        await rig.database[name].insert_many(documents)


async def left(rig: Rig, registration: str) -> int:
    return sum([await rig.database[name].count_documents({"registration": registration}) for name in INDEXES])


async def test_a_purge_takes_one_registration_out_of_every_collection(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        data = tenant_data(rig)
        # Another life of the same id, and an id that begins alike.
        others = ("acme.2", "acme.10", "acme-2.1", "globex.1")
        for registration in ("acme.1", *others):
            await fill(rig, registration, INDEXES, 3)
        assert set((await data.usage("acme.1")).values()) == {3}
        assert await data.purge("acme", "acme.1") == 3 * len(INDEXES)
        assert set((await data.usage("acme.1")).values()) == {0}
        for name in INDEXES:
            rows = await rig.database[name].find().to_list(None)
            assert sorted(row["registration"] for row in rows) == sorted(3 * others), name
        # Once more, as a gateway does that was interrupted.
        assert await data.purge("acme", "acme.1") == 0


async def test_what_one_call_cannot_purge_the_next_ones_do(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        purge_s = 0.1
        for registration in ("acme.1", "acme.2"):
            await fill(rig, registration, INDEXES, 100)
        lefts = [await left(rig, "acme.1")]
        async with asyncio.timeout(60):
            while True:
                data = tenant_data(rig, purge_s=purge_s, slice_documents=1)
                purge_s *= 1.1  # Each call looks at every collection first, which a busy machine takes long for.
                try:
                    deleted = await data.purge("acme", "acme.1")
                except BackhaulError as exc:
                    assert (exc.code, exc.retry_after_s) == (Code.UNAVAILABLE, 1)  # noqa: PT017  # most calls raise it
                    lefts.append(await left(rig, "acme.1"))
                else:
                    break
        assert len(lefts) > 1
        assert lefts == sorted(lefts, reverse=True)
        assert deleted == lefts[-1] > 0
        assert await left(rig, "acme.1") == 0
        assert await left(rig, "acme.2") == 100 * len(INDEXES)


async def test_a_purge_that_is_cancelled_leaves_no_more_than_one_deletion_behind(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        await fill(rig, "acme.1", INDEXES, 200)
        purge = asyncio.create_task(tenant_data(rig, slice_documents=10).purge("acme", "acme.1"))
        async with asyncio.timeout(60):
            while await left(rig, "acme.1") == 200 * len(INDEXES):  # nothing tells of a slice's end
                await asyncio.sleep(0)
        purge.cancel()
        with pytest.raises(asyncio.CancelledError):
            await purge
        at_once = await left(rig, "acme.1")
        await asyncio.sleep(0.5)
        later = await left(rig, "acme.1")
        assert 0 < at_once - 10 <= later


async def test_usage_counts_no_further_than_the_contract_says(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        await fill(rig, "acme.1", COUNTED[:2], MAX_COUNTED + 1)
        await fill(rig, "acme.1", COUNTED[2:], 2)
        usage = await tenant_data(rig).usage("acme.1")
        assert usage == {**dict.fromkeys(COUNTED, 2), **dict.fromkeys(COUNTED[:2], MAX_COUNTED)}


async def test_usage_counts_each_of_those_that_one_document_holds(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        held = [{"id": b""}, None, {"id": b""}, {"id": b""}]
        buckets = [{"_id": f"{n}", "registration": "acme.1", "events": held} for n in range(400)]
        await rig.database[EVENTS_COLLECTION].insert_many(buckets)
        await fill(rig, "globex.1", COUNTED, 5)
        data = tenant_data(rig)
        assert (await data.usage("acme.1"))["events"] == 3 * 400
        await rig.database[EVENTS_COLLECTION].update_many(
            {"registration": "acme.1"}, {"$set": {"events": 32 * [{"id": b""}]}}
        )
        assert (await data.usage("acme.1"))["events"] == MAX_COUNTED < 32 * 400
