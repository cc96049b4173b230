"""An installation without suppression, audit, the reconciler or the notifier: it says so, and waits for nobody."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory, Running
from reading_rig import headers
from test_openapi import BODIES, PART, QUERIES

OF: dict[str, tuple[str, ...]] = {
    "suppression": ("/v1/suppressions", "/admin/v1/tenants/{tenant_id}/suppressions"),
    "audit": ("/v1/audits", "/admin/v1/audit-keys", "/.well-known/backhaul-audit-keys"),
    "reconciler": ("/v1/reconciliation",),
    "notifier": ("/v1/subscriptions", "/v1/deliveries", "/v1/event-types"),
}
"""What the routes of each begin with."""


@pytest.mark.parametrize("service", OF)
async def test_what_is_not_installed_says_so_and_the_rest_is_there(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, service: str
) -> None:
    async with gateway_factory(fresh_nats.uri, **{f"gateway_{service}_target": ""}) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel(pull_credentials={"auth_token": "x" * 32, "account_sid": "AC" + "0" * 32})
        schema = (await gateway.client.get("/openapi.json")).json()
        asked = 0
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                if not path.startswith(OF[service]):
                    assert "501" not in operation["responses"] or path.startswith(sum(OF.values(), ())), path
                    continue
                asked += 1
                assert "501" in operation["responses"], (method, path)
                answer = await _ask(gateway, tenant.api_key, method, path, operation)
                problem = gateway.problem(answer, 501)
                assert problem["code"] == "not_installed"
                assert "is not installed" in problem["detail"]
                assert f"BACKHAUL_GATEWAY_{service.upper()}_TARGET" in str(problem["errors"])
                assert "Retry-After" not in answer.headers
        assert asked >= 6
        # Callbacks are taken, and nothing is wrong with the channel for it; unless it asks for files.
        assert (await gateway.post(tenant)).status_code == 200
        part = {"audit": "audit", "reconciler": "reconciliation", "notifier": "subscriptions"}.get(service)
        if part is not None:
            status = (await gateway.client.get("/api/status?channelLabel=Twilio", headers=headers(tenant))).json()
            assert status["parts"][part]["state"] == "OK", status
        await gateway.channel(settings={"audit": {"enabled": True}})
        overview = (await gateway.client.get("/admin/v1/overview", headers=gateway.admin)).json()
        states = {one["name"]: one["state"] for one in overview["installation"]["services"]}
        assert states == dict.fromkeys(states, "away") | {service: "not_installed"}
        own = (await gateway.client.get("/v1/overview", headers=headers(tenant))).json()
        assert service not in own["away"]
        if service == "audit":
            status = (await gateway.client.get("/api/status?channelLabel=Twilio", headers=headers(tenant))).json()
            assert status["parts"]["audit"]["state"] == "Error"
            assert "not installed" in status["parts"]["audit"]["detail"]
            assert any("not installed" in one["text"] for one in own["problems"])


async def _ask(gateway: Running, key: str, method: str, path: str, operation: dict[str, Any]) -> Any:
    ids = dict.fromkeys(("file_id", "report_id", "delivery_id"), "0" * 32)
    parts = {"tenant_id": "acme", **ids, "chain": "events", "number": "1", "day": "2026-11-25"}
    parts["subscription_id"] = "sub_" + "0" * 24
    return await gateway.client.request(
        method.upper(),
        PART.sub(lambda part: parts.get(part[1], part[1]), path),
        headers={
            "X-Api-Key": key,
            **(gateway.admin if path.startswith("/admin") else {}),
            "Content-Type": "text/csv" if path.endswith("/import") else "application/json",
        },
        params=QUERIES.get(path),
        content=json.dumps(BODIES.get(path, {"address": "+15005550001"})) if "requestBody" in operation else None,
    )
