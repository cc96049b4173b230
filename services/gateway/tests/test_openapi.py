"""The OpenAPI document: it lists what is answered, and its page needs nothing from elsewhere."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from backhaul_common import rpc
from backhaul_common.secrets import new_credential
from backhaul_gateway.reads import audits, recipients, subscriptions
from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory, Running

ADDRESS = {"address": "+15005550001"}
QUERIES = {
    "/v1/suppressions/address": {"address": "1"},
    "/v1/audits/proof": {"event_id": "1"},
    "/v1/audits/recount": {"communication_id": "1"},
    "/v1/reconciliation/days/{day}": {"channel": "1"},
}
PLACES = ("/v1", "/admin/v1/tenants/{tenant_id}")
PART = re.compile(r"\{(\w+)\}")
BODIES: dict[str, dict[str, Any]] = {
    "/v1/channels/{label}/preview": {"body": ""},
    "/v1/suppressions": {**ADDRESS, "kind": "manual"},
    "/v1/suppressions/lift": {**ADDRESS, "kind": "manual"},
    "/v1/suppressions/check-batch": {"items": [ADDRESS]},
    "/v1/audits/erasures": ADDRESS,
    "/v1/reconciliation/runs": {"channel": "1"},
    "/v1/replays": {"channel": "1", "from": "2026-11-25T00:00:00Z"},
    **{f"{of}/dead-letters/{call}": {"channel": "1"} for of in PLACES for call in ("replay", "discard")},
    "/v1/communications/{communication_id}": {},
    "/v1/communications/{communication_id}/batches/{batch_id}": {},
    "/v1/communications/{communication_id}/disable": {},
    "/v1/communications/{communication_id}/enable": {},
    "/v1/batches/{batch_id}/members": {"members": []},
    "/v1/subscriptions": {"types": ["*"]},
    "/v1/subscriptions/{subscription_id}": {"types": ["*"]},
    "/v1/subscriptions/{subscription_id}/redeliver": {"which": "all", "from": "2026-11-25T00:00:00Z"},
    "/admin/v1/apply": {"version": 1, "tenants": [{"id": "acme", "name": "acme", "queue_path": "acme"}]},
    **{f"/v1/subscriptions/{{subscription_id}}/{call}": {} for call in ("resume", "rotate-secret", "test")},
}
"""Bodies that the routes take, where an address is none."""


async def test_every_operation_says_which_refusals_it_answers(gateway: Running) -> None:
    schema = (await gateway.client.get("/openapi.json")).json()
    assert "/api/postevents" in schema["paths"]
    assert "/in/{token}/api/postevents" in schema["paths"]
    assert "HTTPValidationError" not in str(schema)
    for path in schema["paths"].values():
        for operation in path.values():
            assert list(operation["responses"]) == sorted(operation["responses"])
            assert {"431", "500"} <= operation["responses"].keys()
            if "requestBody" in operation:
                assert {"408", "413"} <= operation["responses"].keys()


async def test_the_documentation_needs_nothing_from_elsewhere(gateway: Running) -> None:
    """Neither a script nor a style nor anything else; and the policy would refuse it."""
    page = await gateway.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert parts
    assert "<script>" not in page.text
    assert "style=" not in page.text
    for part in parts:
        assert not re.match(r"[a-z]+:|//", part)
        answer = await gateway.client.get("/" + part)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        if part.endswith(".js"):
            assert answer.headers["content-type"].startswith("text/javascript")
            # Texts of the document must not become markup.
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", answer.text)
    for gone in ("/redoc", "/docs/oauth2-redirect", "/docs/../app.py", "/docs/page.html"):
        assert (await gateway.client.get(gone)).status_code == 404


@pytest.mark.timed
async def test_openapi_lists_what_is_answered_while_the_services_hang(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc.client, "DEADLINE_S", 0.02)
    monkeypatch.setattr(audits, "MAX_PROOF_S", 0.02)
    monkeypatch.setattr(recipients, "MAX_ERASE_S", 0.02)
    monkeypatch.setattr(subscriptions, "MAX_TEST_S", 0.02)
    stopped = asyncio.Event()

    async def hang(*_: Any) -> AsyncIterator[bytes]:
        await stopped.wait()
        yield b""

    class Hanging(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.stream_stream_rpc_method_handler(hang)

    # One that speaks gRPC: a connection on which nothing is said counts as away after a while, and not as slow.
    server = grpc.aio.server(handlers=[Hanging()])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with gateway_factory(
            fresh_nats.uri,
            gateway_normalizer_target=target,
            gateway_suppression_target=target,
            gateway_audit_target=target,
            gateway_reconciler_target=target,
            gateway_notifier_target=target,
        ) as gateway:
            tenant = await gateway.tenant()
            await gateway.channel(tenant.id, "label", provider="twilio")
            schema = (await gateway.client.get("/openapi.json")).json()
            ids = dict.fromkeys(("file_id", "report_id", "delivery_id", "replay_id"), "0" * 32)
            parts = {"tenant_id": tenant.id, **ids, "chain": "events", "number": "1", "day": "2026-11-25"}
            parts["subscription_id"] = "sub_" + "0" * 24
            asked = 0
            for path, operations in schema["paths"].items():
                for method, operation in operations.items():
                    # Sends wait for the broker alone, and the log of changes for MongoDB.
                    if "504" not in operation["responses"] or path in ("/v1/sends", "/v1/changes", "/admin/v1/changes"):
                        continue
                    asked += 1
                    answer = await gateway.client.request(
                        method.upper(),
                        PART.sub(lambda part: parts.get(part[1], part[1]), path),
                        headers={
                            "X-Api-Key": tenant.api_key,
                            **gateway.admin,
                            "Content-Type": "text/csv" if path.endswith("/import") else "application/json",
                        },
                        params=QUERIES.get(path),
                        content=json.dumps(BODIES.get(path, ADDRESS)) if "requestBody" in operation else None,
                    )
                    gateway.problem(answer, 504)
            assert asked == 85
    finally:
        stopped.set()
        await server.stop(None)


async def test_openapi_lists_what_is_answered_before_the_tenants_are_known(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    _, key, _ = new_credential("api")
    uri = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=200"
    async with gateway_factory(fresh_nats.uri, wait=False, mongo_uri=uri) as gateway:
        schema = (await gateway.client.get("/openapi.json")).json()
        for path in ("/api/status", "/v1/messages"):
            answer = await gateway.client.get(path, headers={"X-Api-Key": key})
            assert str(answer.status_code) in schema["paths"][path]["get"]["responses"]
