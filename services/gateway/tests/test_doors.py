"""Who may come to which path, with which credentials, and what answers say to browsers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from backhaul_gateway.settings import GatewaySettings
from backhaul_local.nats_server import NatsServer
from backhaul_local.ports import Hold
from cryptography.fernet import Fernet
from gateway_rig import GatewayFactory, Running
from pydantic import SecretStr, ValidationError

INGEST = "/api/postevents?channelLabel=Twilio"


async def _status(gateway: Running, target: str, *fields: str, method: str = "GET") -> int:
    """Of a request whose path is sent exactly as it stands here, which clients do not do."""
    head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *fields, "Content-Length: 0", "", ""])
    return int((await gateway.raw(head.encode(), one=True))[9:12])


ESCAPED = [
    "/%61dmin/v1/tenants",
    "/admi%6E/v1/tenants",
    "/admin%2fv1/tenants",
    "/admin/%761/tenants",
    "/admin/v1/t%65nants",
    "/%6detrics",
    "/metric%73",
    "/%64ocs",
    "/docs%2f",
    "/docs/%73tart.js",
    "/openapi%2ejson",
    "/%68ealthz",
    "/readyz%00",
    "/%2fmetrics",
    "/%2e/metrics",
    "/./metrics",
    "//metrics",
    "/x/../metrics",
    "/x%2f..%2fmetrics",
    "/metrics;a",
    "/%ffmetrics",
    "http://x/%61dmin/v1/tenants",
    "/api/%74est",
    "/v1/%6dessages",
]


@pytest.mark.parametrize("target", ESCAPED)
async def test_a_path_that_a_proxy_would_not_know_is_not_there(gateway: Running, target: str) -> None:
    """Even to who has the token: a rule in front that keeps a path from the outside sees what is sent."""
    assert await _status(gateway, target, f"Authorization: {gateway.admin['Authorization']}") in (400, 404)


async def test_escapes_are_fine_where_names_stand(gateway: Running) -> None:
    await gateway.tenant()
    await gateway.channel(label="Outbound%20Delivery", provider="twilio", verification="off")
    admin = f"Authorization: {gateway.admin['Authorization']}"
    assert await _status(gateway, "/admin/v1/tenants/acme/channels/Outbound%20Delivery", admin) == 200
    assert await _status(gateway, "/admin/v1/tenants/%61cme", admin) == 200
    for plain in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/api/test", "/API/Test"):
        assert await _status(gateway, plain) == 200


@pytest.fixture
def free_port() -> Iterator[int]:
    with Hold() as hold:
        yield hold.choose(1)[0]


APART = ["/metrics", "/docs", "/openapi.json", "/admin/v1/tenants", "/docs/nothing", "/METRICS", "/admin"]


async def test_the_platform_teams_paths_can_listen_apart(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, free_port: int
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_admin_port=free_port) as gateway:
        for path in APART:
            # Nobody learns from outside whether there is such a thing, token or not.
            for headers in ({}, gateway.admin, {"Host": f"127.0.0.1:{free_port}"}):
                gateway.problem(await gateway.client.get(path, headers=headers), 404)
        there = f"http://127.0.0.1:{free_port}"
        for path in ("/metrics", "/docs", "/openapi.json"):
            assert (await gateway.client.get(there + path)).status_code == 200
        assert (await gateway.client.get(f"{there}/admin/v1/tenants")).status_code == 401
        body = {"id": "acme", "name": "Acme", "queue_path": "acme"}
        made = await gateway.client.post(f"{there}/admin/v1/tenants", json=body, headers=gateway.admin)
        assert made.status_code == 201
        key = {"X-Api-Key": made.json()["api_key"]}
        channel = f"{there}/admin/v1/tenants/acme/channels/Twilio"
        put = await gateway.client.put(channel, json={"verification": "off"}, headers=gateway.admin)
        assert put.status_code == 201
        # What is for everybody is where it was, and both ports tell how the process is.
        for path in ("/healthz", "/readyz", "/api/test"):
            assert (await gateway.client.get(path)).status_code == 200
        assert (await gateway.client.get(f"{there}/readyz")).status_code == 200
        assert (await gateway.client.post(INGEST, headers=key)).status_code == 200
        [[callback]] = await gateway.stored()
        assert callback.url == gateway.url + INGEST


def test_two_names_of_one_port_are_refused() -> None:
    keys = SecretStr(Fernet.generate_key().decode())
    with pytest.raises(ValidationError, match="BACKHAUL_GATEWAY_ADMIN_PORT"):
        GatewaySettings(
            gateway_admin_token=SecretStr("0123456789abcdef"),
            secret_keys=keys,
            gateway_port=8080,
            gateway_admin_port=8080,
        )


async def test_a_credential_that_is_sent_twice_is_none(gateway: Running, subtests: pytest.Subtests) -> None:
    tenant, other = await gateway.tenant(), await gateway.tenant("other")
    for tenant_id in ("acme", "other"):
        await gateway.channel(tenant_id, verification="off")
    key, bearer = f"X-Api-Key: {tenant.api_key}", f"Authorization: Bearer {tenant.api_key}"
    others_key, others_bearer = f"X-Api-Key: {other.api_key}", f"Authorization: Bearer {other.api_key}"
    admin = f"Authorization: {gateway.admin['Authorization']}"
    by_token = f"/in/{tenant.ingest_token}{INGEST}"
    messages = "/v1/messages"
    cases: list[tuple[str, str, list[str], int]] = []
    for method, path in (("POST", INGEST), ("GET", "/api/status?channelLabel=Nothing"), ("GET", messages)):
        cases += [
            (method, path, [key, key], 401),
            (method, path, [key, others_key], 401),
            (method, path, [others_key, key], 401),
            (method, path, [key, "X-API-KEY: x"], 401),
            (method, path, [bearer, bearer], 401),
            (method, path, [bearer, others_bearer], 401),
            (method, path, [bearer, "Authorization: Basic eDp5"], 401),
            (method, path, [key, bearer, "authorization: x"], 401),
            # Two kinds that name two tenants.
            (method, path, [key, others_bearer], 401),
            (method, path, [others_bearer, key], 401),
        ]
    accepted = [[key], [bearer], [key, bearer], [key, "Authorization: Basic eDp5"], [key, "X-A: 1", "X-A: 2"]]
    # A proxy's own, which nobody here has to understand.
    accepted += [
        [key, f"Authorization: {value}"] for value in ("Basic ?", "Basic /w==", "Basic eA==", "Negotiate a b", "x")
    ]
    cases += [("POST", INGEST, fields, 200) for fields in accepted]
    cases += [("GET", "/api/status?channelLabel=Nothing", fields, 404) for fields in accepted]
    cases += [("POST", by_token, ["X-A: 1", "X-A: 2"], 200), ("POST", by_token, [bearer, bearer], 401)]
    tenants = "/admin/v1/tenants"
    cases += [("GET", tenants, fields, 401) for fields in ([admin, admin], [admin, bearer], [bearer, admin])]
    cases += [("GET", tenants, [admin], 200), ("GET", tenants, [admin, key], 200)]
    for method, path, fields, status in cases:
        with subtests.test(path=path, fields=fields):
            assert await _status(gateway, path, *fields, method=method) == status
    assert sum(map(len, await gateway.stored())) == len(accepted) + 1


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/events?recipient=" + "a" * 8200, []),
        ("/v1/messages/twilio/" + "%61" * 2800, []),
        ("/" + "a" * 60_000, []),
        ("/in/" + "%62" * 20_000, []),
        ("/healthz?" + "&" * 60_000, []),
        ("/v1/events", ["Cookie: " + "a=b; " * 4000]),
        ("/api/test", [f"X-{number}: {'a' * 200}" for number in range(100)]),
    ],
    ids=["query", "path", "unknown path", "escapes", "separators", "cookies", "headers"],
)
async def test_what_would_take_long_to_look_at_is_too_large(gateway: Running, path: str, fields: list[str]) -> None:
    assert await _status(gateway, path, *fields) == 413


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("&".join(f"a{number:03}=" for number in range(90)), "a000"),
        ("&".join(f"recip{number:03}=" for number in range(99)), "recip000"),
        ("&" * 5000, "query"),
        ("limit=1&" * 900, "query"),
    ],
)
async def test_a_query_of_many_parameters_costs_little(gateway: Running, query: str, field: str) -> None:
    """Neither do as many as one likes nor do all of their names have to be compared."""
    tenant = await gateway.tenant()
    key = {"X-Api-Key": tenant.api_key}
    started = time.process_time()
    for _ in range(20):
        answer = await gateway.client.get(f"/v1/events?{query}", headers=key)
        assert len(gateway.problem(answer, 422, field)["errors"]) <= 10
    # Client included. Without the bounds it was 10 ms to half a second each.
    assert time.process_time() - started < 20 * 0.02


async def test_every_path_of_the_platform_team_asks_for_the_token_first(
    gateway: Running, subtests: pytest.Subtests
) -> None:
    """Whatever the body is, and before it is there."""
    paths: dict[str, dict[str, Any]] = (await gateway.client.get("/openapi.json")).json()["paths"]
    routes = [
        (method.upper(), re.sub(r"\{.*?\}", "x", path))
        for path, methods in paths.items()
        if path.startswith("/admin")
        for method in methods
    ]
    assert len(routes) > 10
    bodies = {
        "no JSON": ("Content-Type: application/json", "Content-Length: 3"),
        "another type": ("Content-Type: text/xml", "Content-Length: 1000000"),
        "huge": ("Content-Type: application/json", "Content-Length: 9999999999"),
        "chunked": ("Content-Type: application/json", "Transfer-Encoding: chunked"),
        "no type": ("Content-Length: 20",),
    }
    for method, path in [*routes, ("GET", "/admin"), ("POST", "/admin/nothing"), ("PATCH", "/admin/v1/tenants")]:
        for what, fields in bodies.items():
            with subtests.test(route=f"{method} {path}", body=what):
                head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *fields, "", ""])
                reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                writer.write(head.encode())
                async with asyncio.timeout(60):
                    assert (await reader.readline())[9:12] == b"401"
                writer.close()


async def test_what_answers_say_to_browsers(gateway: Running) -> None:
    await gateway.tenant()
    for path, headers in (
        ("/docs", {}),
        ("/openapi.json", {}),
        ("/metrics", {}),
        ("/healthz", {}),
        ("/nothing", {}),
        ("/admin/v1/tenants", {}),
        ("/admin/v1/tenants", gateway.admin),
        ("/v1/messages", {}),
    ):
        answer = await gateway.client.get(path, headers=headers)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers.get_list("cache-control") == ["no-store"], path
