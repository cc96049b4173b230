"""Tenants are deleted whole, and nobody else is with them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import pytest
from backhaul_client import LimitsIn
from backhaul_common import mongo
from backhaul_common.names import TENANTS_COLLECTION
from backhaul_common.sizes import MAX_COUNTED
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenants import Tenant
from backhaul_gateway.admin.store import MongoTenantStore
from backhaul_gateway.admin.tenantdata import ServicesData
from backhaul_gateway.admin.updates import utc_now
from backhaul_gateway.broker import Broker
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from gateway_rig import GatewayFactory, Running

TENANTS = "/admin/v1/tenants"
ACME = f"{TENANTS}/acme"


@pytest.fixture
def purged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Services that have nothing; the registrations that they were told to purge."""
    registrations: list[str] = []

    async def purge(_: ServicesData, tenant: Tenant) -> None:
        registrations.append(tenant.registration)

    async def usage(_: ServicesData, __: Tenant) -> Mapping[str, int]:
        return {}

    monkeypatch.setattr(ServicesData, "purge", purge)
    monkeypatch.setattr(ServicesData, "usage", usage)
    return registrations


async def delete(gateway: Running, **params: str) -> Any:
    return await gateway.client.delete(ACME, headers=gateway.admin, params=params)


async def gone(gateway: Running) -> None:
    await gateway.until_status(ACME, lambda status: status == 404, gateway.admin)


def registration(gateway: Running) -> str:
    found: str = gateway.tenants.find_one({"_id": "acme"})["registration"]
    return found


async def test_a_deletion_that_names_its_registration_spares_who_has_the_id_by_now(gateway: Running) -> None:
    await gateway.tenant()
    own = registration(gateway)
    assert (await gateway.client.get(ACME, headers=gateway.admin)).json()["registration"] == own
    for purge in ("true", "false"):
        gateway.problem(await delete(gateway, purge=purge, registration="acme.0123456789abcdef"), 404)
    assert gateway.tenants.find_one({"_id": "acme"})["status"] == "active"
    assert (await delete(gateway, purge="true", registration=own)).status_code == 202


@pytest.mark.usefixtures("quick_deletions")
async def test_a_purge_is_accepted_and_comes_to_its_end_by_itself(gateway: Running, purged: list[str]) -> None:
    async def deleting() -> float:
        metrics = (await gateway.client.get("/metrics")).text
        (value,) = re.findall(r"^backhaul_gateway_tenants_deleting\{.*\} (\S+)$", metrics, re.MULTILINE)
        return float(value)

    tenant = await gateway.tenant()
    await gateway.channel()
    assert (await gateway.post(tenant)).status_code == 200
    own = registration(gateway)

    accepted = await delete(gateway, purge="true")
    assert accepted.status_code == 202
    assert accepted.headers["content-type"] == "application/json"
    shown = accepted.json()
    assert (shown["id"], shown["status"]) == ("acme", "deleting")
    assert shown["updated_at"] == shown["deleting_since"]
    # While it lasts it is shown, refused, and its names are taken; asked for again, nothing changes.
    assert (await gateway.client.get(ACME, headers=gateway.admin)).json() == shown
    again = await delete(gateway, purge="true")
    assert (again.status_code, again.json()) == (202, shown)
    assert (await delete(gateway)).json() == shown
    gateway.problem(await gateway.post(tenant), 403)
    taken = {"id": "acme", "name": "New", "queue_path": "other"}
    gateway.problem(await gateway.client.post(TENANTS, headers=gateway.admin, json=taken), 409, "id")
    taken = {"id": "other", "name": "New", "queue_path": "ACME"}
    gateway.problem(await gateway.client.post(TENANTS, headers=gateway.admin, json=taken), 409, "queue_path")
    change = await gateway.client.patch(ACME, headers=gateway.admin, json={"status": "active"})
    assert "404" in gateway.problem(change, 409, "status")["errors"][0]["fix"]
    put = await gateway.client.put(f"{ACME}/channels/twilio", headers=gateway.admin, json={})
    gateway.problem(put, 409, "status")
    assert not purged
    assert await deleting() == 1

    await gone(gateway)
    assert purged == [own]
    assert await gateway.stored() == []
    assert gateway.tenants.count_documents({}) == 0
    gateway.problem(await gateway.post(tenant), 401)
    gateway.problem(await delete(gateway, purge="true"), 404, "id")
    assert await deleting() == 0


@pytest.mark.usefixtures("quick_deletions")
async def test_a_purge_takes_the_streams_up_to_where_they_were_and_no_further(
    gateway: Running, purged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()
    whole = Broker.ends

    async def slow(broker: Broker) -> Mapping[str, int]:
        ends = await whole(broker)
        if not asked.is_set():
            asked.set()
            await go_on.wait()
        return ends

    monkeypatch.setattr(Broker, "ends", slow)
    neighbour = await gateway.tenant("globex")
    await gateway.channel("globex")
    tenant = await gateway.tenant()
    await gateway.channel()
    for one in (neighbour, tenant, tenant):
        assert (await gateway.post(one)).status_code == 200
    assert (await delete(gateway, purge="true")).status_code == 202
    await asked.wait()
    # Something that a copy of the gateway had under way, under the same queue path.
    client = await broker.connect(gateway.settings.nats_url)
    try:
        js = client.jetstream()
        await js.publish("callbacks.acme.twilio", b"late")
        go_on.set()
        await gone(gateway)
        subjects = (await js.stream_info("CALLBACKS", subjects_filter="callbacks.>")).state.subjects
        assert subjects == {"callbacks.globex.twilio": 1, "callbacks.acme.twilio": 1}
        assert (await js.get_last_msg("CALLBACKS", "callbacks.acme.twilio")).data == b"late"
    finally:
        await client.close()
    assert len(purged) == 1


@pytest.mark.usefixtures("quick_deletions")
async def test_another_copy_takes_up_what_one_began(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, purged: list[str]
) -> None:
    async with gateway_factory(fresh_nats.uri) as first:
        await first.tenant()
        assert (await delete(first, purge="true")).status_code == 202
    assert not purged
    async with gateway_factory(fresh_nats.uri) as second:
        await gone(second)
    assert len(purged) == 1


@pytest.mark.usefixtures("quick_deletions")
async def test_a_normalizer_that_is_away_delays_a_purge(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = asyncio.Event()
    whole = ServicesData.purge

    async def purge(data: ServicesData, tenant: Tenant) -> None:
        try:
            await whole(data, tenant)
        finally:
            tried.set()

    monkeypatch.setattr(ServicesData, "purge", purge)
    tenant = await gateway.tenant()
    await gateway.channel()
    assert (await gateway.post(tenant)).status_code == 200
    assert (await delete(gateway, purge="true")).status_code == 202
    await asyncio.wait_for(tried.wait(), 20)
    assert (await gateway.client.get(ACME, headers=gateway.admin)).json()["status"] == "deleting"
    reads = gateway.client.get("/v1/messages", headers={"X-Api-Key": tenant.api_key})
    for answer in (await gateway.post(tenant), await reads):
        problem = gateway.problem(answer, 403, "")
        assert problem["detail"] == "The tenant is being deleted."
        assert "activate" not in problem["errors"][0]["fix"], "nobody can take it back"

    async def back(_: ServicesData, __: Tenant) -> None:
        pass

    monkeypatch.setattr(ServicesData, "purge", back)
    await gone(gateway)


async def test_a_tenant_without_data_is_gone_at_once(gateway: Running, purged: list[str]) -> None:
    await gateway.tenant()
    assert (await delete(gateway)).status_code == 204
    gateway.problem(await gateway.client.get(ACME, headers=gateway.admin), 404)
    await gateway.tenant()
    assert not purged


async def test_a_deletion_that_is_refused_changes_nothing(
    gateway: Running, purged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    assert (await gateway.post(tenant)).status_code == 200
    before = gateway.tenants.find_one({})
    refused = gateway.problem(await delete(gateway), 409, "purge")
    assert "stored callbacks" in refused["detail"]
    assert gateway.tenants.find_one({}) == before

    async def usage(_: ServicesData, __: Tenant) -> Mapping[str, int]:
        return {"events": MAX_COUNTED, "messages": 3, "counts": 0, "dead_letters": 1}

    monkeypatch.setattr(ServicesData, "usage", usage)
    detail = gateway.problem(await delete(gateway), 409, "purge")["detail"]
    assert "10000 or more events, 3 messages, 1 dead letters" in detail
    assert (await gateway.post(tenant)).status_code == 200


async def test_without_the_normalizer_only_a_purge_is_accepted(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    gateway.problem(await delete(gateway), 503)
    assert gateway.tenants.find_one({})["status"] == "active"
    assert (await gateway.post(tenant)).status_code == 200
    assert (await delete(gateway, purge="true")).status_code == 202


@pytest.mark.parametrize("status", ["active", "suspended"])
async def test_what_arrives_while_it_is_looked_for_gives_the_status_back(
    gateway: Running, purged: list[str], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    looks = 0
    seen: list[str] = []

    async def usage(_: ServicesData, __: Tenant) -> Mapping[str, int]:
        nonlocal looks
        looks += 1
        seen.append(gateway.tenants.find_one({})["status"])
        return {"events": looks - 1}

    monkeypatch.setattr(ServicesData, "usage", usage)
    await gateway.tenant()
    changed = await gateway.client.patch(ACME, headers=gateway.admin, json={"status": status})
    assert changed.status_code == 200
    gateway.problem(await delete(gateway), 409, "purge")
    # Suspended, and not "deleting": the normalizer must not drop what it turns out to have.
    assert seen == [status, "suspended"]
    assert gateway.tenants.find_one({})["status"] == status
    assert not purged


@pytest.mark.usefixtures("quick_deletions")
async def test_a_refused_deletion_does_not_keep_a_purge_from_its_end(
    gateway: Running, purged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    looking, marked = asyncio.Event(), asyncio.Event()

    async def usage(_: ServicesData, __: Tenant) -> Mapping[str, int]:
        nonlocal looks
        looks += 1
        if looks == 1:
            return {}
        looking.set()
        await marked.wait()
        return {"events": 1}

    monkeypatch.setattr(ServicesData, "usage", usage)
    await gateway.tenant()
    without = asyncio.create_task(delete(gateway))
    await looking.wait()
    assert (await delete(gateway, purge="true")).status_code == 202
    marked.set()
    gateway.problem(await without, 409, "purge")
    assert gateway.tenants.find_one({})["status"] == "deleting"
    await gone(gateway)
    assert len(purged) == 1


@pytest.mark.parametrize("meanwhile", ["gone", "registered anew", "marked", "changed"])
async def test_a_slow_deletion_spares_what_changed_meanwhile(
    gateway: Running, purged: list[str], monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    looks = 0
    looking, go_on = asyncio.Event(), asyncio.Event()

    async def usage(_: ServicesData, __: Tenant) -> Mapping[str, int]:
        nonlocal looks
        looks += 1
        if looks == 2:
            looking.set()
            await go_on.wait()
        return {}

    monkeypatch.setattr(ServicesData, "usage", usage)
    await gateway.tenant()
    slow = asyncio.create_task(delete(gateway))
    await looking.wait()
    if meanwhile in ("gone", "registered anew"):
        assert (await delete(gateway)).status_code == 204
    if meanwhile == "registered anew":
        await gateway.tenant()
    elif meanwhile == "marked":
        assert (await delete(gateway, purge="true")).status_code == 202
    elif meanwhile == "changed":
        changed = await gateway.client.patch(ACME, headers=gateway.admin, json={"status": "active"})
        assert changed.status_code == 200
    before = gateway.tenants.find_one({})
    go_on.set()
    wanted = {"gone": 204, "registered anew": 204, "marked": 202, "changed": 409}[meanwhile]
    assert (await slow).status_code == wanted
    assert gateway.tenants.find_one({}) == before


async def test_a_registration_begins_with_no_refusals_and_a_full_bucket(gateway: Running, purged: list[str]) -> None:
    limits: LimitsIn = {"requests_per_second": 0.001, "burst": 1}
    tenant = await gateway.tenant(limits=limits)
    await gateway.channel()
    gateway.problem(await gateway.post(tenant, signature="wrong"), 403)
    gateway.problem(await gateway.post(tenant), 429)
    status = "/api/status?channelLabel=twilio"
    assert (await delete(gateway)).status_code == 204
    tenant = await gateway.tenant(limits=limits)
    await gateway.channel()
    shown = (await gateway.client.get(status, headers={"X-Api-Key": tenant.api_key})).json()
    assert shown["parts"]["verification"]["refused"] == 0
    assert (await gateway.post(tenant)).status_code == 200


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
        assert await store.find("acme") == new
        # Nor is one removed that changed since it was read.
        doomed = new.model_copy(update={"status": "deleting", "revision": 2})
        assert await store.replace(doomed, 1)
        assert not await store.delete(new)
        assert await store.find("acme") == doomed
        assert await store.delete(doomed)
        assert await store.find("acme") is None
    finally:
        client.close()
