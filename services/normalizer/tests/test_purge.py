"""What is left of a registration that was purged, and what of all others."""

from __future__ import annotations

from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import MongoTenantData
from backhaul_normalizer.store import COUNTED, INDEXES
from normalizer_rig import RigFactory


async def test_a_purge_takes_one_registration_out_of_every_collection(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        data = MongoTenantData(rig.database, StoreFormat(rig.database), collections=INDEXES, counted=COUNTED)
        # Another life of the same id, and an id that begins alike.
        others = ("acme.2", "acme.10", "acme-2.1", "globex.1")
        for name in INDEXES:
            for registration in ("acme.1", *others):
                documents = [{"_id": f"{registration} {n}", "registration": registration} for n in range(3)]
                await rig.database[name].insert_many(documents)
        assert set((await data.usage("acme.1")).values()) == {3}
        assert await data.purge("acme", "acme.1") == 3 * len(INDEXES)
        assert set((await data.usage("acme.1")).values()) == {0}
        for name in INDEXES:
            left = sorted(row["registration"] for row in await rig.rows(name))
            assert left == sorted(3 * others), name
        # Once more, as a gateway does that was interrupted.
        assert await data.purge("acme", "acme.1") == 0
