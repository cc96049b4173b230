"""The token of the platform, keys of tenants, secrets of channels: who is let in, and what is never shown."""

from __future__ import annotations

import json

from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory, Running

TENANTS = "/admin/v1/tenants"


async def test_admin_token(gateway: Running) -> None:
    tenant = await gateway.tenant()
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": gateway.admin["Authorization"] + "x"},
        {"Authorization": gateway.admin["Authorization"].replace("Bearer", "Basic")},
        {"Authorization": f"Bearer {tenant.api_key}"},
        {"X-Api-Key": tenant.api_key},
        {b"Authorization": "Bearer ä".encode()},
    ):
        for method, path in (("GET", ""), ("GET", "/acme"), ("DELETE", "/acme"), ("POST", "")):
            gateway.problem(await gateway.client.request(method, TENANTS + path, headers=headers), 401)


async def test_keys_rotate_at_once(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    assert (await gateway.post(tenant)).status_code == 200
    added = await gateway.client.post(f"{TENANTS}/acme/keys", headers=gateway.admin)
    assert added.status_code == 201
    new = added.json()
    assert new["kind"] == "api"
    both = [tenant.api_key, new["key"]]
    for key in both:
        assert (await gateway.post(None, headers={"X-Api-Key": key})).status_code == 200
    old_id = tenant.api_key.split("_")[1]
    revoked = await gateway.client.delete(f"{TENANTS}/acme/keys/{old_id}", headers=gateway.admin)
    assert (revoked.status_code, revoked.content) == (204, b"")
    gateway.problem(await gateway.post(tenant), 401)
    assert (await gateway.post(None, headers={"X-Api-Key": new["key"]})).status_code == 200
    again = await gateway.client.delete(f"{TENANTS}/acme/keys/{old_id}", headers=gateway.admin)
    gateway.problem(again, 404, "key_id")
    token = (await gateway.client.post(f"{TENANTS}/acme/keys", headers=gateway.admin, json={"kind": "ingest"})).json()
    path = f"/in/{token['key']}/api/postevents?channelLabel=Twilio"
    assert (await gateway.post(None, path)).status_code == 200
    gateway.problem(await gateway.client.get("/v1/messages", headers={"X-Api-Key": token["key"]}), 401)
    bad = await gateway.client.post(f"{TENANTS}/acme/keys", headers=gateway.admin, json={"kind": "other"})
    gateway.problem(bad, 422, "kind")


async def test_a_key_of_one_tenant_is_not_deleted_through_another(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.tenant("other")
    key_id = tenant.api_key.split("_")[1]
    answer = await gateway.client.delete(f"{TENANTS}/other/keys/{key_id}", headers=gateway.admin)
    gateway.problem(answer, 404, "key_id")


async def test_changes_reach_another_gateway(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri) as one, gateway_factory(fresh_nats.uri) as two:
        tenant = await one.tenant()
        headers = {"X-Api-Key": tenant.api_key}
        await two.until_status("/api/status", lambda status: status != 401, headers)
        await one.client.delete(f"{TENANTS}/acme/keys/{tenant.api_key.split('_')[1]}", headers=one.admin)
        await two.until_status("/api/status", lambda status: status == 401, headers)


async def test_secrets_are_encrypted_and_never_shown(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    stored = json.dumps(gateway.tenants.find_one({}), default=str)
    shown = "".join(
        [
            (await gateway.client.get(path, headers=gateway.admin)).text
            for path in (TENANTS, f"{TENANTS}/acme", f"{TENANTS}/acme/channels", f"{TENANTS}/acme/channels/Twilio")
        ]
    )
    for secret in (gateway.secret, tenant.api_key, tenant.ingest_token, tenant.api_key.split("_")[2]):
        assert secret not in stored
        assert secret not in shown
    assert "digest" not in shown
    channel = (await gateway.client.get(f"{TENANTS}/acme/channels/twilio", headers=gateway.admin)).json()
    assert channel["secret_count"] == 1
    assert "secrets" not in channel


async def test_a_refused_secret_is_not_repeated(gateway: Running) -> None:
    await gateway.tenant()
    answer = await gateway.client.put(
        f"{TENANTS}/acme/channels/Twilio", headers=gateway.admin, json={"secrets": ["hidden", 5, {"x": "hidden"}]}
    )
    gateway.problem(answer, 422, "secrets[1]")
    assert "hidden" not in answer.text


async def test_a_key_ring_that_lost_its_key_refuses(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
    async with gateway_factory(fresh_nats.uri) as other:  # With a key of its own.
        other.problem(await other.post(tenant), 403)
