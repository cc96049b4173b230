"""Tenants are deleted whole, and nobody else is with them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from backhaul_common import mongo
from backhaul_common.names import TENANTS_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenants import Tenant
from backhaul_gateway.normalizer import NormalizerData
from backhaul_gateway.store import MongoTenantStore
from backhaul_gateway.updates import utc_now

if TYPE_CHECKING:
    from conftest import Running

TENANTS = "/admin/v1/tenants"


async def test_deletion_needs_the_normalizer(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    gateway.problem(await gateway.client.delete(f"{TENANTS}/acme", headers=gateway.admin), 503)
    assert (await gateway.post(tenant)).status_code == 200
    # A purge that cannot be finished leaves a tenant whose callbacks are refused, and that can be purged again.
    gateway.problem(await gateway.client.delete(f"{TENANTS}/acme?purge=true", headers=gateway.admin), 503)
    assert (await gateway.client.get(f"{TENANTS}/acme", headers=gateway.admin)).json()["status"] == "deleting"
    gateway.problem(await gateway.post(tenant), 403)
    assert await gateway.stored() == []
    gateway.problem(await gateway.client.patch(f"{TENANTS}/acme", headers=gateway.admin, json={"name": "x"}), 409)


async def test_a_slow_deletion_spares_who_was_registered_meanwhile(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    purging, go_on = asyncio.Event(), asyncio.Event()

    async def purge(_: NormalizerData, __: str) -> None:
        if not purging.is_set():
            purging.set()
            await go_on.wait()

    monkeypatch.setattr(NormalizerData, "purge", purge)
    await gateway.tenant()

    async def delete() -> int:
        return (await gateway.client.delete(f"{TENANTS}/acme?purge=true", headers=gateway.admin)).status_code

    first = asyncio.create_task(delete())
    await purging.wait()
    assert await delete() == 204
    tenant = await gateway.tenant()
    await gateway.channel()
    assert (await gateway.post(tenant)).status_code == 200
    go_on.set()
    assert await first == 204
    assert (await gateway.post(tenant)).status_code == 200
    assert sum(len(batch) for batch in await gateway.stored()) == 2


async def test_a_refused_deletion_does_not_keep_a_purge_from_its_end(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    looking, purging, refused = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def usage(_: NormalizerData, __: str) -> dict[str, int]:
        nonlocal looks
        looks += 1
        if looks == 1:
            return {}
        looking.set()
        await purging.wait()
        return {"events": 1}

    async def purge(_: NormalizerData, __: str) -> None:
        purging.set()
        await refused.wait()

    monkeypatch.setattr(NormalizerData, "usage", usage)
    monkeypatch.setattr(NormalizerData, "purge", purge)
    await gateway.tenant()
    without = asyncio.create_task(gateway.client.delete(f"{TENANTS}/acme", headers=gateway.admin))
    await looking.wait()
    purge_all = asyncio.create_task(gateway.client.delete(f"{TENANTS}/acme?purge=true", headers=gateway.admin))
    gateway.problem(await without, 409, "purge")
    assert gateway.tenants.find_one({})["status"] == "active"
    refused.set()
    assert (await purge_all).status_code == 204
    assert gateway.tenants.count_documents({}) == 0


async def test_nothing_is_written_to_another_registration(gateway: Running) -> None:
    client = mongo.connect(gateway.settings.mongo_uri.get_secret_value())
    try:
        database = mongo.database(client, gateway.settings.mongo_database)
        store = MongoTenantStore(database[TENANTS_COLLECTION], StoreFormat(database))
        now = utc_now()
        new = Tenant(id="acme", registration="acme.2", name="New", queue_path="acme", created_at=now, updated_at=now)
        old = new.model_copy(update={"name": "Old", "status": "deleting", "registration": "acme.1"})
        await store.insert(new)
        assert not await store.replace(old, new.revision)
        assert not await store.delete(old)
        # Nor is one removed that is not being deleted.
        assert not await store.delete(new)
        assert await store.find("acme") == new
        doomed = new.model_copy(update={"status": "deleting", "revision": 2})
        assert await store.replace(doomed, 1)
        assert await store.delete(doomed)
        assert await store.find("acme") is None
    finally:
        client.close()
