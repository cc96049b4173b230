"""POST /api/postevents: every rule of the contract, on real servers."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from backhaul_local.nats_server import NatsServer
from backhaul_proto.callback.v1.callback_pb2 import (
    SOURCE_CALLBACK,
    VERIFICATION_OBSERVED_INVALID,
    VERIFICATION_OFF,
    VERIFICATION_VERIFIED,
)
from gateway_rig import GatewayFactory, Running, outcomes


async def test_a_callback_is_stored_verbatim(gateway: Running) -> None:
    tenant = await gateway.tenant(queue_path="Acme-Prod")
    await gateway.channel()
    path = "/api/postevents?channelLabel=Twilio&communicationId=offer-17&x=a%20b"
    before = time.time_ns() // 1000
    answer = await gateway.post(tenant, path, headers={"Authorization": "Bearer x", "Cookie": "c=1", "X-Other": "1"})
    assert answer.status_code == 200
    # Twilio reads the answer to an inbound message: only an empty Response means nothing to it.
    assert answer.content == b"<Response/>"
    assert answer.headers["content-type"] == "text/xml"
    assert answer.headers["content-length"] == "11"
    [[callback]] = await gateway.stored()
    assert answer.headers["backhaul-callback-id"] == callback.id
    assert re.fullmatch("[0-9a-f]{32}", callback.id)
    assert (callback.tenant_id, callback.channel, callback.provider) == ("acme", "twilio", "twilio")
    assert (callback.method, callback.url) == ("POST", gateway.url + path)
    assert callback.body == urlencode(gateway.form).encode()
    assert before <= callback.received_at_us <= time.time_ns() // 1000
    assert (callback.source, callback.verification) == (SOURCE_CALLBACK, VERIFICATION_VERIFIED)
    headers = callback.headers.decode("latin-1").lower()
    assert "x-other: 1\r\n" in headers
    assert headers.endswith("\r\n")
    for hidden in ("x-api-key", "authorization", "cookie", "signature", tenant.api_key):
        assert hidden not in headers


PATHS = [
    "/api/postevents?channelLabel=Twilio",
    "/api/PostEvents?ChannelLabel=tWILIO",
    "/API/POSTEVENTS?CHANNELLABEL=TWILIO",
    "/api/postevents?a=1&b=&&=c&%63hannelLabel=%54wilio",
    "/api/postevents?channelLabel=+Twilio+",
]


async def test_path_and_label_in_any_case(gateway: Running, subtests: pytest.Subtests) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    for path in PATHS:
        with subtests.test(path=path):
            assert (await gateway.post(tenant, path)).status_code == 200
            token_path = f"/IN/{tenant.ingest_token}{path}"
            assert (await gateway.post(None, token_path)).status_code == 200
            *_, [by_token] = await gateway.stored()
            assert by_token.url == f"{gateway.url}/IN/***{path}"


async def test_labels_with_blanks(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(label="Outbound%20Delivery", provider="twilio", verification="off")
    for label in ("Outbound%20Delivery", "outbound+delivery", "outbound-delivery"):
        assert (await gateway.post(tenant, f"/api/postevents?channelLabel={label}")).status_code == 200


async def test_credentials(gateway: Running) -> None:
    tenant = await gateway.tenant()
    other = await gateway.tenant("other")
    await gateway.channel()

    def basic(user: str, password: str) -> str:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    async def status(headers: dict[str, str], path: str = "/api/postevents?channelLabel=Twilio") -> int:
        return (await gateway.post(None, path, headers=headers)).status_code

    assert await status({"X-Api-Key": tenant.api_key}) == 200
    assert await status({"Authorization": f"Bearer {tenant.api_key}"}) == 200
    assert await status({"Authorization": f"bearer {tenant.api_key}"}) == 200
    assert await status({"Authorization": basic("acme", tenant.api_key)}) == 200
    for headers in (
        {},
        {"X-Api-Key": ""},
        {"X-Api-Key": tenant.api_key[:-1]},
        {"X-Api-Key": tenant.api_key[:-1] + ("0" if tenant.api_key[-1] != "0" else "1")},
        {"X-Api-Key": tenant.ingest_token},
        {"X-Api-Key": "x" * 5000},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic !!!"},
        {"Authorization": basic("other", tenant.api_key)},
        {"Authorization": basic("acme", other.api_key)},
        {"Authorization": basic("acme", tenant.ingest_token)},
        {"Authorization": f"Bearer {gateway.admin['Authorization']}"},
    ):
        answer = await gateway.post(None, headers=headers)
        gateway.problem(answer, 401, "Authorization")
        assert answer.headers["www-authenticate"].startswith("Basic ")
    for token in ("nothing", tenant.api_key, tenant.ingest_token + "0"):
        answer = await gateway.post(None, f"/in/{token}/api/postevents?channelLabel=Twilio")
        gateway.problem(answer, 401, "token")


async def test_methods_other_than_post(gateway: Running) -> None:
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = await gateway.client.request(method, "/api/postevents?channelLabel=Twilio")
        gateway.problem(answer, 405)
        assert answer.headers["allow"] == "POST"


async def test_unknown_and_missing_channels(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    problem = gateway.problem(await gateway.post(tenant, "/api/postevents?channelLabel=SendGrid"), 404, "channelLabel")
    assert "Twilio" in problem["detail"]
    for query in ("", "?channelLabel=", "?channelLabel", "?x=channelLabel"):
        gateway.problem(await gateway.post(tenant, f"/api/postevents{query}"), 422, "channelLabel")


async def test_another_tenants_channel_is_unknown(gateway: Running) -> None:
    await gateway.tenant()
    await gateway.channel()
    other = await gateway.tenant("other")
    problem = gateway.problem(await gateway.post(other), 404, "channelLabel")
    assert "none yet" in problem["detail"]


async def test_verification_modes(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    problem = gateway.problem(await gateway.post(tenant, signature="bad"), 403)
    assert problem["code"] == "forbidden"
    assert gateway.problem(await gateway.post(tenant, signature=""), 403)
    await gateway.channel(verification="observe")
    assert (await gateway.post(tenant, signature="bad")).status_code == 200
    await gateway.channel(verification="off")
    assert (await gateway.post(tenant, signature="bad")).status_code == 200
    [observed], [off] = await gateway.stored()
    assert (observed.verification, off.verification) == (VERIFICATION_OBSERVED_INVALID, VERIFICATION_OFF)
    metrics = (await gateway.client.get("/metrics")).text
    assert re.search(r'callbacks_unverified_total\{[^}]*mode="observe"[^}]*\} 1\.0', metrics)
    enforced = re.findall(r'callbacks_unverified_total\{[^}]*mode="enforce"[^}]*\} (\d+)\.0', metrics)
    assert sum(map(int, enforced)) == 2  # The bad one and the missing one, whether of one reason or of two.


@pytest.mark.parametrize("secrets", [[], [""], ["  "], None])
async def test_without_a_secret_everything_is_refused(gateway: Running, secrets: list[str] | None) -> None:
    tenant = await gateway.tenant()
    body: dict[str, Any] = {"verification": "enforce"} | ({} if secrets is None else {"secrets": secrets})
    answer = await gateway.client.put("/admin/v1/tenants/acme/channels/Twilio", headers=gateway.admin, json=body)
    assert answer.status_code == 201
    assert answer.json()["secret_count"] == 0
    for token in ("", " ", gateway.secret):
        signature = gateway.sign(gateway.url + "/api/postevents?channelLabel=Twilio", gateway.form, token)
        gateway.problem(await gateway.post(tenant, signature=signature), 403)
    assert await gateway.stored() == []


async def test_secrets_rotate(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(secrets=["new-token", gateway.secret])
    url = gateway.url + "/api/postevents?channelLabel=Twilio"
    assert (await gateway.post(tenant)).status_code == 200
    assert (await gateway.post(tenant, signature=gateway.sign(url, gateway.form, "new-token"))).status_code == 200
    await gateway.channel(secrets=["new-token"])
    assert (await gateway.post(tenant)).status_code == 403
    assert (await gateway.post(tenant, signature=gateway.sign(url, gateway.form, "new-token"))).status_code == 200


async def test_the_verified_url_is_the_configured_one(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    base = "https://callbacks.example.com"
    async with gateway_factory(
        fresh_nats.uri, gateway_public_base_url=base + "/", gateway_trusted_proxies="127.0.0.0/8"
    ) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        path = "/api/postevents?channelLabel=Twilio"
        assert (await gateway.post(tenant, signature=gateway.sign(base + path, gateway.form))).status_code == 200
        evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
        signature = gateway.sign("https://evil.example" + path, gateway.form)
        answer = await gateway.post(tenant, signature=signature, headers=evil)
        gateway.problem(answer, 403)
        [[callback]] = await gateway.stored()
        assert callback.url == base + path


async def test_every_request_is_counted_under_one_outcome(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    await gateway.channel(label="Watched", provider="twilio", verification="observe")
    assert (await gateway.post(tenant)).status_code == 200
    unsigned = await gateway.post(tenant, "/api/postevents?channelLabel=Watched", signature="x")
    assert unsigned.status_code == 200
    gateway.problem(await gateway.post(tenant, signature="x"), 403, "signature")
    gateway.problem(await gateway.post(None), 401)
    gateway.problem(await gateway.post(tenant, "/api/postevents?channelLabel=none"), 404, "channelLabel")
    wrong_method = await gateway.client.get("/api/postevents?channelLabel=Twilio")
    assert gateway.problem(wrong_method, 405)["code"] == "method_not_allowed"
    assert wrong_method.headers["allow"] == "POST"
    assert await outcomes(gateway) == {
        "stored": 1,
        "stored_unverified": 1,
        "signature_invalid": 1,
        "unauthenticated": 1,
        "not_found": 1,
        "method_not_allowed": 1,
    }


async def test_rate_limit(gateway: Running) -> None:
    tenant = await gateway.tenant(limits={"requests_per_second": 0.5, "burst": 3})
    other = await gateway.tenant("other")
    await gateway.channel()
    await gateway.channel("other")
    answers = [await gateway.post(tenant) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    gateway.problem(answers[3], 429)
    assert answers[3].headers["retry-after"] in ("1", "2")
    assert (await gateway.post(other)).status_code == 200
    # A change of anything else does not fill the bucket again.
    await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json={"name": "New"})
    assert (await gateway.post(tenant)).status_code == 429


async def test_suspended_tenants(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    url = "/admin/v1/tenants/acme"
    await gateway.client.patch(url, headers=gateway.admin, json={"status": "suspended"})
    gateway.problem(await gateway.post(tenant), 403)
    gateway.problem(await gateway.client.get("/v1/messages", headers={"X-Api-Key": tenant.api_key}), 403)
    await gateway.client.patch(url, headers=gateway.admin, json={"status": "active"})
    assert (await gateway.post(tenant)).status_code == 200


async def test_traceparent(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await gateway.post(tenant, headers={"traceparent": given})
    for invalid in ("", "x", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", given.replace("4bf", "+1_")):
        await gateway.post(tenant, headers={"traceparent": invalid})
    first, *others = [callback.traceparent for [callback] in await gateway.stored()]
    assert first == given
    for other in others:
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", other)
    assert len(set(others)) == 4


async def test_hostile_queries(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(verification="off")
    for query in (
        "&".join(f"k{index}=v" for index in range(300)) + "&channelLabel=Twilio",
        "channelLabel=Twilio&x=%00%ff%zz%",
        "%FFchannelLabel=x&channelLabel=Twilio",
        "channelLabel=Twilio&channelLabel=Other",
        "channelLabel=Twilio?x=1#y",
    ):
        answer = await gateway.raw(
            f"POST /api/postevents?{query} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {tenant.api_key}\r\n"
            "Content-Length: 3\r\n\r\na=1".encode("latin-1")
        )
        assert answer.split(b" ", 2)[1] in (b"200", b"404"), (query[:80], answer)
    for label in ("%00", "..", "%2F", "*", ">", "a" * 4000, "Twilio%0d%0aX-Injected:1"):
        gateway.problem(await gateway.post(tenant, f"/api/postevents?channelLabel={label}"), 404, "channelLabel")


async def test_canonical_lines(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway_factory(fresh_nats.uri, log_level="info") as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        stored = await gateway.post(tenant)
        await gateway.post(tenant, signature="bad")
        await gateway.client.get(f"/in/{tenant.ingest_token}/api/mistyped")
    out = capsys.readouterr().out
    lines = [json.loads(line) for line in out.splitlines() if line.startswith('{"service":"gateway"')]
    first, second = [line for line in lines if line["event"] == "callback"]
    assert first["callback_id"] == stored.headers["backhaul-callback-id"]
    assert (first["tenant"], first["channel"], first["outcome"], first["status"]) == ("acme", "twilio", "stored", 200)
    assert (second["outcome"], second["status"]) == ("signature_invalid", 403)
    assert {"bytes", "duration_ms", "trace_id", "timestamp", "level", "client"} <= first.keys()
    for secret in (tenant.api_key, tenant.ingest_token, gateway.secret):
        assert secret not in out


async def test_no_credential_is_stored(gateway: Running) -> None:
    """Proxies put the address into headers of many names, and people put keys where they do not belong."""
    tenant = await gateway.tenant()
    await gateway.channel(verification="off")
    token, key = tenant.ingest_token, tenant.api_key
    encoded = "".join(f"%{ord(character):02X}" for character in token)
    path = (
        f"/in/{token}/api/postevents?channelLabel=Twilio&again=%2Fin%2F{token}&key={key.upper()}&{encoded}=1&x=a%20_b"
    )
    answer = await gateway.post(
        None,
        path,
        headers={
            "X-Original-URI": path,
            "X-Forwarded-Uri": f"https://callbacks.example.com{path}",
            "X-Envoy-Original-Path": path.replace("_", "%5f"),
            "Referer": f"https://callbacks.example.com/{encoded}",
            "X-Rewrite-Url": encoded.replace("%", "%25"),
            "X-Backhaul-Key": key,
            "X-Kept": "a_b %41",
            token: "as a name",
        },
    )
    assert answer.status_code == 200
    # The token is also in a path that is not the token's route, and Twilio tells in the body which address failed.
    other = await gateway.post(
        tenant,
        f"/api/postevents?channelLabel=Twilio&token={token}",
        {**gateway.form, "ErrorUrl": f"{gateway.url}/in/{token}/api/postevents?channelLabel=Twilio"},
    )
    assert other.status_code == 200
    stored = [callback for batch in await gateway.stored() for callback in batch]
    assert len(stored) == 2
    kept = b"\n".join(callback.SerializeToString() for callback in stored).lower()
    for credential in (token, key):
        for secret in credential.split("_")[1:]:
            assert secret.encode() not in kept
            assert "".join(f"{ord(character):02x}" for character in secret).encode() not in kept.replace(b"%", b"")
    assert b"x-kept: a_b %41\r\n" in stored[0].headers
    assert stored[0].url.startswith(f"{gateway.url}/in/***/api/postevents?channelLabel=Twilio&again=%2Fin%2F***&")
    assert stored[0].url.endswith("&x=a%20_b")
    assert b"%2Fin%2F***%2Fapi%2Fpostevents" in stored[1].body
