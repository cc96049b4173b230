"""The table of routes: it names every route, and each opens to those whom it names, and to nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.secrets import new_credential
from backhaul_common.tenants import SCOPES, Credential, Tenant
from backhaul_gateway.admin.models import KeyOut
from backhaul_gateway.admission.access import ROUTES
from backhaul_gateway.admission.auth import CredentialIndex
from backhaul_gateway.admission.principal import ALL_SCOPES, ROLES, Principal, names_of, scope_bits
from backhaul_gateway.web.guard import Guard
from gateway_rig import FORM, Running

KEYS = "/admin/v1/tenants/acme/keys"
BY_EDGE = {"POST /api/postevents", "POST /in/{token}/api/postevents"}
"""What ``Edge`` answers without FastAPI."""

PART = re.compile(r"\{\w+\}")


async def key_of(gateway: Running, scopes: Iterable[str] | None, **more: Any) -> dict[str, Any]:
    body = {"scopes": [*scopes] if scopes is not None else None, **more}
    answer = await gateway.client.post(KEYS, headers=gateway.admin, json=body)
    assert answer.status_code == 201, answer.text
    issued: dict[str, Any] = answer.json()
    return issued


async def ask(gateway: Running, route: str, headers: dict[str, str]) -> httpx.Response:
    """A request that gets as far as its route, and no further than it must: its parts lead to nothing."""
    method, path = route.split()
    # An answer may last: what is in it is read only where it is a refusal.
    async with gateway.client.stream(method, PART.sub("x", path), headers=headers) as answer:
        if answer.status_code in (401, 403):
            await answer.aread()
        return answer


async def test_every_route_is_in_the_table_and_opens_to_the_scopes_that_it_names(gateway: Running) -> None:
    """A route that somebody adds needs a row in ``ROUTES`` of admission/access.py."""
    found = {f"{method} {route.path_format}" for route in gateway.routes for method in route.methods or ()}
    assert found | BY_EDGE == set(ROUTES)
    await gateway.tenant()
    keys = {scope: await key_of(gateway, [scope]) for scope in SCOPES}
    for route in found:
        rule = ROUTES[route]
        assert (rule.by == "admin") == route.split()[1].startswith("/admin")
        if rule.by in ("nothing", "token"):
            continue
        # Without a credential, and with one that opens other doors.
        gateway.problem(await ask(gateway, route, {}), 401)
        for scope, issued in keys.items():
            answer = await ask(gateway, route, {"X-Api-Key": issued["key"]})
            if rule.by == "admin":
                gateway.problem(answer, 401)
                continue
            missing = [name for name in names_of(rule.bits) if name != scope]
            if missing:
                refused = gateway.problem(answer, 403, "Authorization")
                assert refused["detail"] == f"The API key lacks the scope {' and '.join(missing)}.", route
            else:
                # Whatever it says, it has been let in. What stands behind the routes is away here, or was not named.
                assert answer.status_code not in (401, 403), route
        if rule.by == "key":
            gateway.problem(await ask(gateway, route, gateway.admin), 401)
        if rule.by == "key" and rule.bits:
            needed = await key_of(gateway, names_of(rule.bits))
            assert (await ask(gateway, route, {"X-Api-Key": needed["key"]})).status_code not in (401, 403), route
            await gateway.client.delete(f"{KEYS}/{needed['id']}", headers=gateway.admin)


async def test_a_route_without_a_row_is_closed_to_everybody(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = await gateway.tenant()
    (status,) = [route for route in gateway.routes if route.path_format == "/api/status"]
    monkeypatch.setattr(status, "path_format", "/api/status/of/nobody")
    monkeypatch.setattr(status, "app", status.app)
    nobody: Any = None
    Guard(CredentialIndex(lambda: True), nobody, nobody).protect([status])
    for headers in ({}, gateway.admin, {"X-Api-Key": tenant.api_key}):
        refused = gateway.problem(await gateway.client.get("/api/status", headers=headers), 403)
        assert "table" in refused["detail"]


async def test_a_key_for_a_provider_brings_callbacks_and_reads_nothing(gateway: Running) -> None:
    await gateway.tenant()
    await gateway.channel()
    brings, reads = await key_of(gateway, ["ingest"]), await key_of(gateway, ["read", "send", "check", "manage"])
    assert (await gateway.post(None, headers={"X-Api-Key": brings["key"]})).status_code == 200
    refused = gateway.problem(await gateway.post(None, headers={"X-Api-Key": reads["key"]}), 403, "Authorization")
    assert "ingest" in refused["detail"]
    # However it is shown.
    for auth in (("acme", reads["key"]), ("acme", brings["key"])):
        answer = await gateway.client.post("/api/postevents?channelLabel=Twilio", data=FORM, auth=auth)
        assert answer.status_code == 403
        assert ("scope" in answer.text) == (auth[1] == reads["key"])
    assert len([one for many in await gateway.stored() for one in many]) == 1


async def test_keys_tell_what_they_open_and_until_when(gateway: Running) -> None:
    tenant = await gateway.tenant()
    end = datetime.now(UTC) + timedelta(days=1)
    issued = await key_of(gateway, ["send", "check", "send"], expires_at=end.isoformat())
    assert issued["scopes"] == ["check", "send"]
    assert abs(datetime.fromisoformat(issued["expires_at"]) - end) < timedelta(milliseconds=1)
    shown = (await gateway.client.get("/admin/v1/tenants/acme", headers=gateway.admin)).json()["keys"]
    by_id = {one["id"]: one for one in shown}
    assert by_id[issued["id"]] == {name: issued[name] for name in [*KeyOut.model_fields]}
    first = by_id[tenant.api_key.split("_")[1]]
    assert (first["scopes"], first["expires_at"]) == ([*SCOPES], None)
    assert by_id[tenant.ingest_token.split("_")[1]]["scopes"] == ["ingest"]
    for field, body in (
        ("scopes[0]", {"scopes": ["write"]}),
        ("scopes", {"scopes": []}),
        ("expires_at", {"expires_at": "2020-01-01T00:00:00Z"}),
        ("expires_at", {"expires_at": "2099-01-01T00:00:00"}),
        ("scopes", {"kind": "ingest", "scopes": ["read"]}),
        ("expires_at", {"kind": "ingest", "expires_at": "2099-01-01T00:00:00Z"}),
    ):
        gateway.problem(await gateway.client.post(KEYS, headers=gateway.admin, json=body), 422, field)


async def test_a_key_of_before_there_were_scopes_opens_what_it_did(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    gateway.tenants.update_one(
        {"_id": "acme"},
        {"$unset": {f"credentials.{n}.{name}": "" for n in range(2) for name in ("scopes", "expires_at")}},
    )
    # Any change has it read anew.
    renamed = await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json={"name": "Acme"})
    assert renamed.json()["keys"][0]["scopes"] == [*SCOPES]
    assert (await gateway.post(tenant)).status_code == 200
    status = "/api/status?channelLabel=Twilio"
    assert (await gateway.client.get(status, headers={"X-Api-Key": tenant.api_key})).status_code == 200


async def test_the_documentation_says_what_opens_a_route(gateway: Running) -> None:
    paths = (await gateway.client.get("/openapi.json")).json()["paths"]
    assert paths["/v1/messages"]["get"]["description"].endswith("Needs the scope `read`.")
    assert paths["/v1/subscriptions"]["post"]["description"].endswith("Needs the scopes `read` and `manage`.")
    assert paths["/admin/v1/tenants"]["post"]["description"].endswith("Needs the role `operator`.")
    assert "Needs" not in paths["/healthz"]["get"]["description"]


def test_what_has_expired_opens_nothing_and_says_so_to_who_has_all_of_it() -> None:
    now = 1_800_000_000.0
    index = CredentialIndex(lambda: True, lambda: now)
    credential_id, text, digest = new_credential("api")
    made = datetime.fromtimestamp(now, UTC)
    key = Credential(
        id=credential_id, kind="api", digest=digest, created_at=made, expires_at=made + timedelta(seconds=10)
    )
    tenant = Tenant(
        id="acme", registration="r", name="a", queue_path="q", credentials=(key,), created_at=made, updated_at=made
    )
    index.changed("acme", tenant)
    for moment, opens in ((0.0, True), (9.99, True), (10.0, False), (11.0, False)):
        now = made.timestamp() + moment
        if opens:
            found = index.from_values(text.encode(), None)
            assert found == Principal("key", credential_id, ALL_SCOPES, "acme", expires_at=made.timestamp() + 10)
            assert found.author == f"key:{credential_id}"
        else:
            with pytest.raises(BackhaulError, match="expired") as caught:
                index.from_values(text.encode(), None)
            assert caught.value.code is Code.UNAUTHENTICATED
    assert index.from_values(text[:-1].encode() + b"x", None) is None


def test_a_scope_of_a_newer_version_opens_nothing_here() -> None:
    assert scope_bits(["read", "newer", "read"]) == scope_bits(["read"])
    assert names_of(scope_bits([])) == ()
    assert names_of(scope_bits(None)) == SCOPES
    assert len({Principal.admin("x", role).bits for role in ROLES}) == len(ROLES)
