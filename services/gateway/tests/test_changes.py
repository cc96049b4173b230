"""The log of changes: every change has its entry, with whoever made it and what it did, and no secret."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from alone import started
from backhaul_common import changestore
from backhaul_common.changelog import MAX_SIDE_BYTES
from backhaul_common.errors import BackhaulError, Code
from backhaul_gateway.admin.changestore import MongoChangeStore
from backhaul_gateway.admin.tenantdata import ServicesData
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_testing.proxy import SilentProxy
from changes_rig import changes, stored
from gateway_rig import GatewayFactory, Running
from suppression_rig import Rig, suppressing


async def test_keys_are_seen_to_come_and_to_go(gateway: Running) -> None:
    tenant = await gateway.tenant()
    key = {"X-Api-Key": tenant.api_key}
    made = (await gateway.client.post("/v1/keys", headers=key, json={"scopes": ["read"]})).json()
    # An address in which somebody pasted the key itself.
    gateway.problem(await gateway.client.delete(f"/v1/keys/{made['key']}", headers=key), 404)
    assert (await gateway.client.delete(f"/v1/keys/{made['id']}", headers=key)).status_code == 204
    gone, pasted, came, born = await changes(gateway, key)
    assert (came["before"], came["after"]["scopes"], came["target"]) == (None, ["read"], {"id": made["id"]})
    assert (gone["before"], gone["after"]) == (came["after"], None)
    assert (pasted["outcome"], pasted["status"], pasted["target"]) == ("refused", 404, {"key_id": "***"})
    assert (pasted["before"], pasted["after"]) == (None, None)
    assert (born["action"], born["author"]) == ("POST /admin/v1/tenants", "admin:admin")
    assert made["key"].split("_")[2] not in str(stored(gateway))
    # From where the platform team asks is told to the platform team.
    assert (came["client"], born["client"]) == ("127.0.0.1", None)
    assert (await changes(gateway, gateway.admin, "/admin/v1"))[-1]["client"] == "127.0.0.1"


async def test_of_many_changes_at_once_each_has_what_it_changed(gateway: Running) -> None:
    await gateway.tenant()
    names = [f"Name {number}" for number in range(8)]
    where = "/admin/v1/tenants/acme"
    answers = await asyncio.gather(
        *(gateway.client.patch(where, headers=gateway.admin, json={"name": name}) for name in names)
    )
    assert {answer.status_code for answer in answers} == {200}
    entries = await changes(gateway, gateway.admin, "/admin/v1", action="PATCH /admin/v1/tenants/{tenant_id}")
    steps = sorted((one["before"]["revision"], one["before"]["name"], one["after"]["name"]) for one in entries)
    assert [revision for revision, _, _ in steps] == [*range(1, 9)]
    # Each begins where the one before it ended.
    assert [before for _, before, _ in steps] == ["acme", *(after for _, _, after in steps[:-1])]
    assert sorted(after for _, _, after in steps) == names


async def test_tenants_see_what_was_changed_of_them_and_of_nobody_else(gateway: Running) -> None:
    tenants = [await gateway.tenant(name) for name in ("acme", "other")]
    for tenant in tenants:
        await gateway.channel(tenant.id)
        await gateway.client.post("/v1/keys", headers={"X-Api-Key": tenant.api_key}, json={"scopes": ["read"]})
    for tenant in tenants:
        own = await changes(gateway, {"X-Api-Key": tenant.api_key})
        assert [one["action"].split("/")[-1] for one in own] == ["keys", "{label}", "tenants"]
        assert {one["registration"] for one in own} == {tenant.registration}
        assert await changes(gateway, {"X-Api-Key": tenant.api_key}, author="admin:admin") == own[1:]
    everything = await changes(gateway, gateway.admin, "/admin/v1")
    assert len(everything) == 6
    of_one = await changes(gateway, gateway.admin, "/admin/v1", tenant="other")
    assert [one["tenant_id"] for one in of_one] == ["other"] * 3
    # Another's cursor leads to one's own, or to nothing.
    page = await gateway.client.get("/v1/changes", headers={"X-Api-Key": tenants[1].api_key}, params={"limit": 1})
    behind = await changes(gateway, {"X-Api-Key": tenants[0].api_key}, cursor=page.json()["next_cursor"])
    assert {one["tenant_id"] for one in behind} == {"acme"}


async def test_pages_have_each_entry_once_and_times_bound_them(gateway: Running) -> None:
    tenant = await gateway.tenant()
    key = {"X-Api-Key": tenant.api_key}
    for number in range(6):
        await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json={"name": f"Name {number}"})
    whole = await changes(gateway, key)
    found, cursor = [], ""
    while True:
        page = (await gateway.client.get("/v1/changes", headers=key, params={"limit": 3, "cursor": cursor})).json()
        found += page["changes"]
        # What comes meanwhile is on none of the pages that follow.
        await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json={"name": f"At {len(found)}"})
        if not (cursor := page["next_cursor"]):
            break
    assert found == whole
    assert [one["id"] for one in found] == sorted((one["id"] for one in found), reverse=True)
    middle = whole[3]["at"]
    assert await changes(gateway, key, to=middle) == [one for one in whole if one["at"] < middle]
    assert (await changes(gateway, key, **{"from": middle}))[-1]["at"] == middle
    for field, wrong in (("cursor", "x"), ("limit", "0"), ("from", "yesterday"), ("tenant", "other")):
        gateway.problem(await gateway.client.get("/v1/changes", headers=key, params={field: wrong}), 422, field)


async def test_who_may_not_is_logged_once_a_minute(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await gateway.tenant()
    keys = "/admin/v1/tenants/acme/keys"
    reads = (await gateway.client.post(keys, headers=gateway.admin, json={"scopes": ["read"]})).json()
    header = {"X-Api-Key": reads["key"]}
    for _ in range(3):
        gateway.problem(await gateway.client.post("/v1/keys", headers=header), 403)
    gateway.problem(await gateway.client.delete("/v1/keys/x", headers=header), 403)
    refused = await changes(gateway, gateway.admin, "/admin/v1", author=f"key:{reads['id']}")
    assert [(one["action"], one["outcome"]) for one in refused] == [
        ("DELETE /v1/keys/{key_id}", "refused"), ("POST /v1/keys", "refused"),
    ]  # fmt: skip

    async def away(*_: object) -> None:
        raise BackhaulError(Code.UNAVAILABLE, "away")

    # That it cannot be logged opens nothing.
    monkeypatch.setattr(MongoChangeStore, "begin", away)
    gateway.problem(await gateway.client.put("/v1/channels/x", headers=header, json={}), 403)


async def test_over_its_rate_a_tenant_writes_nothing(gateway: Running) -> None:
    tenant = await gateway.tenant(limits={"reads_per_second": 0.01, "read_burst": 2})
    key = {"X-Api-Key": tenant.api_key}
    answers = [await gateway.client.post("/v1/keys", headers=key, json={"scopes": ["read"]}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201, 201, 429, 429, 429]
    assert len(stored(gateway)) == 3


async def test_nothing_is_done_where_it_cannot_be_logged(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, mongo_server: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SilentProxy(mongo_server.port) as proxy:
        uri = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
        async with suppressing(gateway_factory, fresh_nats.uri, mongo_uri=uri) as rig:
            await _refused_while_away(rig, proxy, monkeypatch)


async def _refused_while_away(rig: Rig, proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"address": "+15005550042", "kind": "manual"}
    operator = f"/admin/v1/tenants/{rig.tenant.id}/suppressions"

    async def both() -> list[httpx.Response]:
        client, admin = rig.gateway.client, rig.gateway.admin
        return [await rig.post("", body), await client.post(operator, json=body, headers=admin)]

    rig.suppression.answers["Add"] = pb.AddResponse(changed=True)
    assert [answer.status_code for answer in await both()] == [201, 201]
    asked, known = len(rig.suppression.asked), len(stored(rig.gateway))
    proxy.go_silent()
    with monkeypatch.context() as patient:
        patient.setattr(changestore, "BEGIN_S", 0.5)
        for answer in await both():
            rig.gateway.problem(answer, 503)
    assert len(rig.suppression.asked) == asked
    proxy.speak_to_newcomers()
    assert len(stored(rig.gateway)) == known


@pytest.mark.timed
async def test_a_change_while_mongodb_hangs_is_refused_as_soon_as_any_answer_is_given_up(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, mongo_server: MongoServer
) -> None:
    async with SilentProxy(mongo_server.port) as proxy:
        uri = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
        async with gateway_factory(fresh_nats.uri, mongo_uri=uri) as gateway:
            tenant = await gateway.tenant()
            proxy.go_silent()
            began = time.monotonic()
            answers = await asyncio.gather(
                gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json={"name": "New"}),
                gateway.client.post("/v1/keys", headers={"X-Api-Key": tenant.api_key}, json={"scopes": ["read"]}),
            )
            assert time.monotonic() - began < changestore.BEGIN_S + 2
            for answer in answers:
                assert "nothing is changed" in gateway.problem(answer, 503)["detail"]
            proxy.speak_to_newcomers()


async def test_a_change_whose_end_cannot_be_logged_is_answered_as_done(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await gateway.tenant()
    monkeypatch.setattr(changestore, "COMPLETE_S", -1.0)  # Over before it begins.
    answer = await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json={"name": "New"})
    assert answer.json()["name"] == "New"
    latest, _ = await changes(gateway, {"X-Api-Key": tenant.api_key})
    assert (latest["outcome"], latest["status"], latest["after"]) == ("unknown", None, None)
    assert latest["action"] == "PATCH /admin/v1/tenants/{tenant_id}"


async def test_a_change_in_the_middle_of_which_the_gateway_is_killed_is_there(gateway: Running, tmp_path: Path) -> None:
    tenant = await gateway.tenant()
    reached, stopped = asyncio.Event(), asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await stopped.wait()
        writer.close()

    hanging = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = hanging.sockets[0].getsockname()[1]
    environ = {
        "BACKHAUL_MONGO_URI": gateway.settings.mongo_uri.get_secret_value(),
        "BACKHAUL_MONGO_DATABASE": gateway.settings.mongo_database,
        "BACKHAUL_NATS_URL": gateway.settings.nats_url,
    }
    async with (
        started(tmp_path, environ=environ, suppression_target=f"127.0.0.1:{port}") as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{process.port}", timeout=60) as client,
    ):
        async with asyncio.timeout(60):
            while (await client.get("/readyz")).status_code != 200:  # of another process, which has no event
                await asyncio.sleep(0.05)
        body = {"address": "+15005550042", "kind": "manual"}
        asking = asyncio.create_task(client.post("/v1/suppressions", json=body, headers={"X-Api-Key": tenant.api_key}))
        await reached.wait()
        process.kill()
        with pytest.raises(httpx.TransportError):
            await asking
    stopped.set()
    hanging.close()
    latest, _ = await changes(gateway, {"X-Api-Key": tenant.api_key})
    assert (latest["action"], latest["outcome"], latest["kind"]) == ("POST /v1/suppressions", "unknown", "suppression")


@pytest.mark.usefixtures("quick_deletions")
@pytest.mark.parametrize("purge", ["true", "false"])
async def test_what_a_tenant_changed_goes_with_it_and_what_was_done_to_it_stays(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, purge: str
) -> None:
    async def nothing(*_: object) -> Mapping[str, int]:
        return {}

    monkeypatch.setattr(ServicesData, "purge", nothing)
    monkeypatch.setattr(ServicesData, "usage", nothing)
    tenant = await gateway.tenant()
    key = {"X-Api-Key": tenant.api_key}
    await gateway.client.post("/v1/keys", headers=key, json={"scopes": ["read"]})
    assert len(await changes(gateway, key)) == 2
    deleted = await gateway.client.delete("/admin/v1/tenants/acme", params={"purge": purge}, headers=gateway.admin)
    assert deleted.status_code == (202 if purge == "true" else 204)
    await gateway.until_status("/admin/v1/tenants/acme", lambda status: status == 404, gateway.admin)
    left = await changes(gateway, gateway.admin, "/admin/v1")
    assert [one["action"] for one in left] == ["DELETE /admin/v1/tenants/{tenant_id}", "POST /admin/v1/tenants"]
    assert {one["registration"] for one in left} == {tenant.registration}
    assert (left[0]["before"]["status"], (left[0]["after"] or {}).get("status")) == (
        "active", "deleting" if purge == "true" else None,
    )  # fmt: skip
    # Whoever has the id next is somebody else.
    again = await gateway.tenant()
    (born,) = await changes(gateway, {"X-Api-Key": again.api_key})
    assert born["registration"] == again.registration


async def test_who_slept_while_its_tenant_was_deleted_writes_nothing(gateway: Running) -> None:
    tenant = await gateway.tenant()
    gateway.tenants.update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    answer = await gateway.client.post("/v1/keys", headers={"X-Api-Key": tenant.api_key}, json={"scopes": ["read"]})
    gateway.problem(answer, 403)
    assert len(stored(gateway)) == 1


async def test_entries_end_with_their_retention_and_are_bounded(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_change_retention_days=30) as gateway:
        tenant = await gateway.tenant()
        key = {"X-Api-Key": tenant.api_key}
        large = {"name": "x" * 200_000, "mode": "live", "channel": "Twilio"}
        await gateway.client.put("/v1/communications/spring", headers=key, json=large)
        latest, born = await changes(gateway, key)
        assert (latest["cut"], latest["after"]) == (True, {"mode": "live", "channel": "Twilio"})
        assert not born["cut"]
        collection = gateway.mongo[gateway.settings.mongo_database]["changes"]
        (ends,) = [one for one in collection.index_information().values() if "expireAfterSeconds" in one]
        assert (ends["key"], ends["expireAfterSeconds"]) == ([("ends_at", 1)], 0)
        for entry in stored(gateway):
            at = entry["at"].replace(tzinfo=UTC)
            assert entry["ends_at"].replace(tzinfo=UTC) == at + timedelta(days=30)
            assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)
            assert len(entry["before"]) + len(entry["after"]) <= MAX_SIDE_BYTES
