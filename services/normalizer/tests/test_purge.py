"""What is left of a tenant that was deleted."""

from __future__ import annotations

from typing import Any

from backhaul_channels import load_adapters
from backhaul_common.names import TENANTS_COLLECTION
from backhaul_common.tenants import TenantDirectory
from backhaul_normalizer.normalize import Normalizer
from backhaul_normalizer.purge import TenantData
from backhaul_normalizer.store import MongoEventStore


async def test_what_another_copy_commits_after_the_purge_goes_too(rig_factory: Any, make: Any) -> None:
    async with rig_factory(copies=0) as rig:
        acme, other = make.tenant("acme"), make.tenant("other")
        await rig.register(acme, other)
        directory = TenantDirectory(rig.database[TENANTS_COLLECTION])
        await directory.refresh()
        normalizer = Normalizer(load_adapters(), directory)
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        data = TenantData(rig.database, linger_s=0.5)

        def read(of: Any, sid: str) -> Any:
            callbacks = (
                make.callback(of, make.twilio(sid, "sent"), query="communicationId=spring"),
                make.callback(of, sid),
            )
            facts, refused = (list(normalizer.read(one, 1)) for one in callbacks)
            return facts, refused

        early, late, others = read(acme, "SM1"), read(acme, "SM2"), read(other, "SM1")
        for facts, refused in (early, others):
            await store.commit(facts, [], refused)
        assert await data.purge("acme.1") == 4
        # A copy that had taken it before it heard of the deletion, and somebody who has the id since.
        await store.commit(late[0], [], late[1])
        facts, refused = read(acme, "SM3")
        await store.commit(facts, [], refused)
        await data.lingered()
        assert [row["message_id"] for row in await rig.rows("messages") if row["registration"] == "acme.1"] == ["SM3"]
        whole = {"events": 1, "messages": 1, "communications": 1, "dead_letters": 1}
        assert await data.usage("other.1") == whole
        # What was counted into the communication of both went with it: it had been heard of before the deletion.
        assert await data.usage("acme.1") == {**whole, "communications": 0}
