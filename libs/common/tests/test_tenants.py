"""What the tenant directory knows, over a real MongoDB."""

from __future__ import annotations

import pytest
from backhaul_common import mongo
from backhaul_common.directory import TenantDirectory, TenantDocuments
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Channel, Credential, Tenant
from structlog.testing import capture_logs
from tenants_rig import NOW, Moving, store, tenant


async def test_a_tenant_comes_back_as_it_was_stored(collection: mongo.Collection) -> None:
    full = tenant(
        queue_path="ACME-Corp",
        credentials=(Credential(id="0" * 12, kind="api", digest="d", created_at=NOW),),
        channels={
            "outbound-delivery": Channel(
                label="Outbound Delivery",
                key="outbound-delivery",
                provider="twilio",
                secrets=("gAAA",),
                settings={"vars": ["a"], "n": 1},
                updated_at=NOW,
            )
        },
    )
    await store(collection, full)
    # What a newer copy of a service wrote besides does not disturb.
    await collection.update_one({"_id": "acme"}, {"$set": {"new_field": 1, "channels.outbound-delivery.new": 2}})
    stored = await collection.find_one({"_id": "acme"})
    assert stored is not None
    assert stored["queue_path_key"] == "acme-corp"
    known = Tenant.from_document(stored)
    assert known.channels["outbound-delivery"].model_extra == {"new": 2}
    without = known.channels["outbound-delivery"].model_dump(exclude={"new"})
    assert {**known.model_dump(), "channels": {"outbound-delivery": without}} == full.model_dump()


async def test_a_refresh_brings_changes_and_takes_away_what_is_gone(collection: mongo.Collection) -> None:
    directory = TenantDirectory(TenantDocuments(collection))
    with pytest.raises(BackhaulError) as caught:
        await directory.check()
    assert caught.value.code is Code.UNAVAILABLE
    await directory.refresh()
    await directory.check()
    assert directory.tenants == {}

    await store(collection, tenant())
    await store(collection, tenant("globex"))
    await directory.refresh()
    assert set(directory.tenants) == {"acme", "globex"}
    await store(collection, tenant(revision=2, status="suspended"))
    await collection.delete_one({"_id": "globex"})
    await directory.refresh()
    assert set(directory.tenants) == {"acme"}
    assert directory.tenants["acme"].status == "suspended"
    assert directory.get("globex") is None
    with pytest.raises(TypeError):
        directory.tenants["x"] = tenant()  # type: ignore[index]  # that it is refused is the point


async def test_listeners_hear_of_those_that_are_there_and_of_each_change_once(collection: mongo.Collection) -> None:
    directory = TenantDirectory(TenantDocuments(collection))
    await store(collection, tenant())
    await directory.refresh()
    heard: list[tuple[str, int | None]] = []
    directory.listen(lambda tenant_id, value: heard.append((tenant_id, value.revision if value else None)))
    assert heard == [("acme", 1)]
    await directory.refresh()
    await directory.reload("acme")
    await directory.reload("nobody")
    assert heard == [("acme", 1)]
    await store(collection, tenant(revision=2))
    assert (await directory.reload("acme")) == tenant(revision=2)
    await collection.delete_one({"_id": "acme"})
    assert await directory.reload("acme") is None
    await directory.refresh()
    assert heard == [("acme", 1), ("acme", 2), ("acme", None)]


async def test_while_the_database_is_away_the_last_known_tenants_stay(
    collection: mongo.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = TenantDirectory(documents := Moving(collection))
    await store(collection, tenant())
    await directory.refresh()
    away = mongo.connect("mongodb://127.0.0.1:9/?replicaSet=rs0")
    monkeypatch.setattr(mongo, "OPERATION_S", 0.3)  # It is this that ends the search for a server.
    documents.move(mongo.database(away, "x")["tenants"])
    for attempt in (directory.refresh(), directory.reload("acme")):
        with pytest.raises(BackhaulError) as caught:
            await attempt
        assert caught.value.code is Code.UNAVAILABLE
    assert set(directory.tenants) == {"acme"}
    await directory.check()
    away.close()


async def test_one_unreadable_tenant_keeps_no_other_from_being_served(collection: mongo.Collection) -> None:
    directory = TenantDirectory(TenantDocuments(collection))
    await store(collection, tenant())
    await directory.refresh()
    await collection.update_one({"_id": "acme"}, {"$set": {"status": "of-a-later-version", "revision": 2}})
    await collection.insert_one({"_id": "broken", "name": "hunter2", "queue_path": ["hunter2"]})
    await store(collection, tenant("globex"))
    with capture_logs() as lines:
        await directory.refresh()
    await directory.check()
    assert set(directory.tenants) == {"acme", "globex"}
    assert directory.tenants["acme"].revision == 1
    assert {line["tenant"] for line in lines} == {"acme", "broken"}
    assert "hunter2" not in str(lines)


async def test_what_is_remembered_of_the_dead_is_forgotten(collection: mongo.Collection) -> None:
    directory = TenantDirectory(TenantDocuments(collection))
    for number in range(5):
        await directory.reload(f"never-was-{number}")
    await directory.refresh()
    assert directory._believed == {}


async def test_a_full_read_knows_that_nobody_has_a_queue_path(collection: mongo.Collection) -> None:
    directory = TenantDirectory(TenantDocuments(collection))
    await store(collection, tenant("acme", queue_path="Acme-Corp"))
    # A tenant that this copy cannot read has its path all the same.
    await store(collection, tenant("newer", queue_path="newer"))
    await collection.update_one({"_id": "newer"}, {"$set": {"status": "of a newer version"}})
    assert not directory.nobody_has("gone", 0)
    since = directory.reads_begun
    await directory.reload("acme")  # Reading one tenant tells nothing of the others.
    assert not directory.nobody_has("gone", since)
    await directory.refresh()
    assert directory.nobody_has("gone", since)
    assert not directory.nobody_has("acme-corp", since)
    assert not directory.nobody_has("newer", since)
    # Only reads that began later count.
    assert not directory.nobody_has("gone", directory.reads_begun)
    await collection.delete_one({"_id": "acme"})
    since = directory.reads_begun
    await directory.refresh()
    assert directory.nobody_has("acme-corp", since)
