"""/admin/v1/services: who may call services over gRPC, on real servers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import grpc
import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import TENANT_CHANGED_SUBJECT
from backhaul_common.service import Service
from backhaul_common.settings import CallersSettings
from backhaul_local.nats_server import NatsServer
from backhaul_proto.tenantdata.v1 import tenantdata_pb2 as pb
from backhaul_proto.tenantdata.v1 import tenantdata_pb2_grpc as pb_grpc
from backhaul_testing import broker
from gateway_rig import GatewayFactory, Running
from pydantic import SecretStr

SERVICES = "/admin/v1/services"
CRM: dict[str, Any] = {"id": "crm", "name": "CRM", "tenants": ["*"], "verbs": ["check", "add"]}
NOW = datetime.now(UTC)
LATER = (NOW + timedelta(days=30)).isoformat()


async def create(gateway: Running, **values: Any) -> dict[str, Any]:
    answer = await gateway.client.post(SERVICES, headers=gateway.admin, json={**CRM, **values})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def shown(gateway: Running, service_id: str = "crm") -> dict[str, Any]:
    answer = await gateway.client.get(f"{SERVICES}/{service_id}", headers=gateway.admin)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_services_life(gateway: Running) -> None:
    await gateway.tenant("acme")
    created = await create(
        gateway, tenants=["acme"], certificates=["CRM.example.com", "spiffe://example/crm"], token_expires_at=LATER
    )
    assert created["token"].startswith("bhs_")
    assert (created["disabled"], created["revision"], created["purposes"]) == (False, 1, [])
    assert created["certificates"] == ["crm.example.com", "spiffe://example/crm"]
    assert created["limits"]["checks_per_second"] == 5000
    assert created["tokens"][0]["id"] == created["token"][4:16]
    known = await shown(gateway)
    # The token is in the first answer alone.
    assert known == {key: value for key, value in created.items() if key != "token"}
    listed = (await gateway.client.get(SERVICES, headers=gateway.admin)).json()
    assert listed == {"services": [known], "next_cursor": None}
    patch = {"name": "New", "disabled": True, "verbs": ["read"], "limits": {"burst": 5}, "certificates": []}
    changed = (await gateway.client.patch(f"{SERVICES}/crm", headers=gateway.admin, json=patch)).json()
    assert (changed["name"], changed["disabled"], changed["verbs"], changed["certificates"]) == (
        "New",
        True,
        ["read"],
        [],
    )
    assert (changed["limits"]["burst"], changed["limits"]["requests_per_second"]) == (5, 100)
    assert (changed["tenants"], changed["revision"]) == (["acme"], 2)
    assert (await gateway.client.delete(f"{SERVICES}/crm", headers=gateway.admin)).status_code == 204
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/tokens"), ("DELETE", "/tokens/x")):
        answer = await gateway.client.request(
            method, f"{SERVICES}/crm{path}", headers=gateway.admin, json={} if method == "PATCH" else None
        )
        gateway.problem(answer, 404, "id")


async def test_nothing_secret_is_stored_or_shown(gateway: Running) -> None:
    token = (await create(gateway))["token"]
    stored = str(gateway.mongo[gateway.settings.mongo_database]["services"].find_one({}))
    for text in (stored, str(await shown(gateway))):
        assert token[17:] not in text
    assert "digest" not in str(await shown(gateway))


async def test_tokens_rotate(gateway: Running) -> None:
    first = (await create(gateway))["tokens"][0]["id"]
    tokens = f"{SERVICES}/crm/tokens"
    soon = datetime.now(UTC) + timedelta(hours=1)
    body = {"expires_at": LATER, "others_expire_at": soon.isoformat()}
    issued = (await gateway.client.post(tokens, headers=gateway.admin, json=body)).json()
    assert issued["token"].startswith(f"bhs_{issued['id']}_")
    by_id = {token["id"]: token["expires_at"] for token in (await shown(gateway))["tokens"]}
    assert datetime.fromisoformat(by_id[first]) == soon.replace(microsecond=soon.microsecond // 1000 * 1000)
    assert datetime.fromisoformat(by_id[issued["id"]]) > soon
    # What is to end sooner still does.
    sooner = {"others_expire_at": LATER}
    await gateway.client.post(tokens, headers=gateway.admin, json=sooner)
    assert (await shown(gateway))["tokens"][0]["expires_at"] == by_id[first]
    assert (await gateway.client.delete(f"{tokens}/{first}", headers=gateway.admin)).status_code == 204
    gateway.problem(await gateway.client.delete(f"{tokens}/{first}", headers=gateway.admin), 404, "token_id")
    assert first not in [token["id"] for token in (await shown(gateway))["tokens"]]
    for _ in range(8):
        assert (await gateway.client.post(tokens, headers=gateway.admin)).status_code == 201
    gateway.problem(await gateway.client.post(tokens, headers=gateway.admin), 409)


async def test_an_expired_token_makes_room(gateway: Running) -> None:
    await create(gateway)
    tokens = f"{SERVICES}/crm/tokens"
    for _ in range(9):
        await gateway.client.post(tokens, headers=gateway.admin)
    accounts = gateway.mongo[gateway.settings.mongo_database]["services"]
    accounts.update_one({}, {"$set": {"tokens.0.expires_at": NOW - timedelta(hours=1)}, "$inc": {"revision": 1}})
    assert (await gateway.client.post(tokens, headers=gateway.admin)).status_code == 201


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("id", "Not An Id", "id"),
        ("name", "\x00", "name"),
        ("name", "", "name"),
        ("verbs", ["check", "purge"], "verbs[1]"),
        ("verbs", [], "verbs"),
        ("verbs", "check", "verbs"),
        ("tenants", [], "tenants"),
        ("tenants", ["acme", "*"], "tenants"),
        ("tenants", ["acme", "No Id"], "tenants[1]"),
        ("tenants", ["acme", "nobody"], "tenants[1]"),
        ("tenants", [f"t{number}" for number in range(501)], "tenants"),
        ("purposes", ["spam"], "purposes[0]"),
        ("certificates", ["*.example.com"], "certificates[0]"),
        ("certificates", ["crm.example.com", "spiffe:// x"], "certificates[1]"),
        ("certificates", ["x" * 256], "certificates[0]"),
        ("certificates", ["crm..example"], "certificates[0]"),
        ("limits", {"checks_per_second": 0}, "limits.checks_per_second"),
        ("limits", {"burst": 10**9}, "limits.burst"),
        ("limits", {"check_per_second": 5}, "limits.check_per_second"),
        ("token_expires_at", "2020-01-01T00:00:00Z", "token_expires_at"),
        ("token_expires_at", "2030-01-01T00:00:00", "token_expires_at"),
        ("token_expires_at", "soon", "token_expires_at"),
        ("disabled", True, "disabled"),
        ("verb", ["check"], "verb"),
    ],
)
async def test_what_does_not_fit_is_named_with_the_fix(gateway: Running, field: str, value: Any, named: str) -> None:
    await gateway.tenant("acme")
    answer = await gateway.client.post(SERVICES, headers=gateway.admin, json={**CRM, field: value})
    gateway.problem(answer, 422, named)
    if field not in ("id", "token_expires_at", "disabled"):
        await create(gateway)
        before = await shown(gateway)
        answer = await gateway.client.patch(f"{SERVICES}/crm", headers=gateway.admin, json={field: value})
        gateway.problem(answer, 422, named)
        assert await shown(gateway) == before


async def test_a_tenant_that_is_gone_does_not_hinder_other_changes(gateway: Running) -> None:
    await gateway.tenant("acme")
    await create(gateway, tenants=["acme"])
    gateway.tenants.delete_one({"_id": "acme"})
    answer = await gateway.client.patch(
        f"{SERVICES}/crm", headers=gateway.admin, json={"tenants": ["acme"], "name": "New"}
    )
    assert answer.status_code == 200


async def test_a_tenant_that_is_being_deleted_is_not_named_anew(gateway: Running) -> None:
    await gateway.tenant("acme")
    gateway.tenants.update_one({"_id": "acme"}, {"$set": {"status": "deleting"}, "$inc": {"revision": 1}})
    nats = await broker.connect(gateway.settings.nats_url)
    await nats.publish(TENANT_CHANGED_SUBJECT, b"acme")
    await nats.close()
    async with asyncio.timeout(60):
        body = {**CRM, "tenants": ["acme"]}
        while (answer := await gateway.client.post(SERVICES, headers=gateway.admin, json=body)).status_code == 201:
            # Until it has heard, the tenant is one like any other.
            await gateway.client.delete(f"{SERVICES}/crm", headers=gateway.admin)
    gateway.problem(answer, 422, "tenants[0]")


async def test_conflicts_name_the_field(gateway: Running) -> None:
    await create(gateway, certificates=["crm.example.com"])
    again = await gateway.client.post(SERVICES, headers=gateway.admin, json=CRM)
    gateway.problem(again, 409, "id")
    body = {**CRM, "id": "shop", "certificates": ["shop.example.com", "crm.example.com"]}
    gateway.problem(await gateway.client.post(SERVICES, headers=gateway.admin, json=body), 409, "certificates")
    await create(gateway, id="shop")
    await create(gateway, id="third")  # Two without any name do not conflict.
    taken = {"certificates": ["crm.example.com"]}
    answer = await gateway.client.patch(f"{SERVICES}/shop", headers=gateway.admin, json=taken)
    gateway.problem(answer, 409, "certificates")


async def test_pages(gateway: Running) -> None:
    for service_id in ("c", "a", "b"):
        await create(gateway, id=service_id)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await gateway.client.get(f"{SERVICES}?limit=2&cursor={cursor}", headers=gateway.admin)).json()
        seen += [account["id"] for account in page["services"]]
        cursor = page["next_cursor"]
    assert seen == ["a", "b", "c"]


async def test_the_admin_token_is_needed(gateway: Running) -> None:
    tenant = await gateway.tenant()
    token = (await create(gateway))["token"]
    for headers in ({}, {"X-Api-Key": tenant.api_key}, {"Authorization": f"Bearer {token}"}):
        gateway.problem(await gateway.client.get(SERVICES, headers=headers), 401)
        gateway.problem(await gateway.client.post(SERVICES, headers=headers, json=CRM), 401)


async def test_two_copies_of_the_gateway_lose_no_change(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri) as first, gateway_factory(fresh_nats.uri) as second:
        await create(first)
        answers = await asyncio.gather(
            *(
                copy.client.post(f"{SERVICES}/crm/tokens", headers=copy.admin)
                for _ in range(4)
                for copy in (first, second)
            ),
            first.client.patch(f"{SERVICES}/crm", headers=first.admin, json={"verbs": ["read"]}),
            second.client.patch(f"{SERVICES}/crm", headers=second.admin, json={"disabled": True}),
        )
        assert [answer.status_code for answer in answers] == [201] * 8 + [200] * 2
        known = await shown(second)
        assert {answer.json()["id"] for answer in answers[:8]} <= {token["id"] for token in known["tokens"]}
        assert (known["verbs"], known["disabled"], known["revision"]) == (["read"], True, 11)


async def test_what_a_newer_copy_stored_is_kept(gateway: Running) -> None:
    await create(gateway)
    accounts = gateway.mongo[gateway.settings.mongo_database]["services"]
    newer = {"verbs": ["check", "dance"], "limits.newer": 7, "tokens.0.newer": "x", "newer": 1}
    accounts.update_one({}, {"$set": newer})
    assert (await shown(gateway))["verbs"] == ["check", "dance"]
    await gateway.client.patch(f"{SERVICES}/crm", headers=gateway.admin, json={"name": "New", "limits": {"burst": 3}})
    await gateway.client.post(f"{SERVICES}/crm/tokens", headers=gateway.admin, json={"others_expire_at": LATER})
    stored = accounts.find_one({})
    assert stored is not None
    assert (stored["newer"], stored["limits"]["newer"], stored["tokens"][0]["newer"]) == (1, 7, "x")


class Data(pb_grpc.TenantDataServiceServicer):
    """Answers whoever is let in."""

    async def GetUsage(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC dictates the name
        return pb.GetUsageResponse(usage=[pb.Usage(kind=rpc.caller().author or "internal", count=1)])

    async def PurgeTenant(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC dictates the name
        return pb.PurgeTenantResponse()

    async def EraseRecipient(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC dictates the name
        return pb.EraseRecipientResponse()


async def test_a_token_opens_a_service_at_once_and_until_it_is_revoked(
    gateway: Running, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the administration of one process to the door of another, over NATS alone."""
    monkeypatch.setattr("backhaul_common.revisioned.Directory.run", _never)
    internal = "internal-token-0123456789abcdefghij"
    settings = CallersSettings(
        nats_url=fresh_nats.uri,
        mongo_uri=gateway.settings.mongo_uri,
        mongo_database=gateway.settings.mongo_database,
        internal_token=SecretStr(internal),
        log_level="warning",
    )
    name = pb.DESCRIPTOR.services_by_name["TenantDataService"].full_name
    async with Service("guarded", settings) as service, AsyncExitStack() as stack:
        add = partial(pb_grpc.add_TenantDataServiceServicer_to_server, Data())
        server = await service.serve("127.0.0.1:0", {name: add}, verbs={f"{name}.GetUsage": "read"})
        service.start()
        channel: grpc.aio.Channel = rpc.connect(f"127.0.0.1:{server.port}", settings)
        stack.push_async_callback(channel.close)
        stub: Any = pb_grpc.TenantDataServiceStub(channel)

        async def ask(method: str, token: str) -> Any:
            request = pb.GetUsageRequest if method == "GetUsage" else pb.PurgeTenantRequest
            shows = (("authorization", f"Bearer {token}"),)
            try:
                return await getattr(stub, method)(request(tenant_id="acme"), metadata=shows)
            except BackhaulError as exc:
                return exc.code

        async with asyncio.timeout(60):
            while await ask("GetUsage", "bhs_x") is Code.UNAVAILABLE:  # seen from outside, nothing else tells
                await asyncio.sleep(0.02)
            created = await create(gateway, tenants=["*"], verbs=["read"])
            while await ask("GetUsage", created["token"]) is Code.UNAUTHENTICATED:  # a message is on its way
                await asyncio.sleep(0.005)
            answer = await ask("GetUsage", created["token"])
            assert answer.usage[0].kind == "service:crm"
            # Purging is for Backhaul's own services, whatever the verbs.
            assert await ask("PurgeTenant", created["token"]) is Code.FORBIDDEN
            assert isinstance(await ask("PurgeTenant", internal), pb.PurgeTenantResponse)
            token_id = created["tokens"][0]["id"]
            await gateway.client.delete(f"{SERVICES}/crm/tokens/{token_id}", headers=gateway.admin)
            while await ask("GetUsage", created["token"]) is not Code.UNAUTHENTICATED:  # as above
                await asyncio.sleep(0.005)


async def _never(_: Any) -> None:
    await asyncio.Event().wait()
