"""Reads of the tenant directory that others overtake: what was known later stays."""

from __future__ import annotations

from datetime import timedelta

from backhaul_common import mongo
from backhaul_common.directory import TenantDirectory
from tenants_rig import NOW, Held, store, tenant


async def test_a_slow_read_never_brings_back_an_older_revision(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)
    await store(collection, tenant())
    await directory.refresh()

    for revision, slow in ((2, directory.refresh), (3, lambda: directory.reload("acme"))):

        async def suspend(revision: int = revision) -> None:
            await store(collection, tenant(revision=revision))
            await directory.reload("acme")

        await documents.overtake(slow, suspend)
        assert directory.tenants["acme"].revision == revision


async def test_a_refresh_does_not_drop_a_tenant_that_appeared_meanwhile(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)

    async def register() -> None:
        await store(collection, tenant("new"))
        await directory.reload("new")

    await documents.overtake(directory.refresh, register)
    assert set(directory.tenants) == {"new"}


async def test_a_slow_read_does_not_bring_back_the_dead(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)

    async def delete() -> None:
        await collection.delete_one({"_id": "acme"})
        await directory.reload("acme")

    for slow in (directory.refresh, lambda: directory.reload("acme")):
        await store(collection, tenant())
        await directory.refresh()
        await documents.overtake(slow, delete)
        assert directory.tenants == {}


async def test_a_registration_anew_wins_over_its_predecessor(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)
    later = NOW + timedelta(seconds=5)
    await store(collection, tenant(revision=7))
    await directory.refresh()

    async def register_anew() -> None:
        await store(collection, tenant(revision=1, created=later))
        await directory.reload("acme")

    await documents.overtake(directory.refresh, register_anew)
    assert (directory.tenants["acme"].revision, directory.tenants["acme"].created_at) == (1, later)

    # And one that the slow read saw as gone.
    await collection.delete_one({"_id": "acme"})
    await documents.overtake(directory.refresh, register_anew)
    assert directory.tenants["acme"].created_at == later


async def test_of_two_full_reads_the_one_that_began_later_counts(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)

    async def register() -> None:
        await store(collection, tenant("acme"))
        await directory.refresh()

    await documents.overtake(directory.refresh, register)
    assert not directory.nobody_has("acme", 0)
    assert set(directory.tenants) == {"acme"}


async def test_a_read_that_began_before_a_look_at_all_does_not_take_away_what_that_saw(
    collection: mongo.Collection,
) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)
    await store(collection, tenant())
    await directory.refresh()
    await collection.delete_one({"_id": "acme"})

    async def restore_and_look() -> None:
        await store(collection, tenant())
        await directory.refresh()

    # What the look at all believed of a tenant counts, although it had no need to read it.
    await documents.overtake(lambda: directory.reload("acme"), restore_and_look)
    assert set(directory.tenants) == {"acme"}


async def test_a_tenant_that_is_gone_between_the_look_and_the_reading_is_gone(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)
    await store(collection, tenant())
    await directory.refresh()
    await store(collection, tenant(revision=2))

    async def delete() -> None:
        await collection.delete_one({"_id": "acme"})

    await documents.overtake(directory.refresh, delete)
    assert directory.tenants == {}
