"""/admin/v1: tenants, keys and channels, on real servers."""

from __future__ import annotations

import asyncio
import json
from itertools import product
from typing import Any

import httpx
import pytest
from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory, Running

TENANTS = "/admin/v1/tenants"
ACME = {"id": "acme", "name": "Acme", "queue_path": "Acme-Prod"}


async def test_a_tenants_life(gateway: Running) -> None:
    created = await gateway.client.post(TENANTS, headers=gateway.admin, json=ACME)
    assert created.status_code == 201
    body = created.json()
    assert body["api_key"].startswith("bhk_")
    assert body["ingest_token"].startswith("bhi_")
    assert body["status"] == "active"
    assert body["limits"] == {
        "requests_per_second": 5000,
        "burst": 10_000,
        "max_body_bytes": 1_048_576,
        "reads_per_second": 50,
        "read_burst": 200,
        "concurrent_reads": 8,
    }
    shown = (await gateway.client.get(f"{TENANTS}/acme", headers=gateway.admin)).json()
    assert shown == {key: value for key, value in body.items() if key not in ("api_key", "ingest_token")}
    listed = (await gateway.client.get(TENANTS, headers=gateway.admin)).json()
    assert listed == {"tenants": [shown], "next_cursor": None}
    patch = {"name": "New", "limits": {"burst": 5}, "status": "suspended"}
    changed = (await gateway.client.patch(f"{TENANTS}/acme", headers=gateway.admin, json=patch)).json()
    assert (changed["name"], changed["limits"]["burst"], changed["status"]) == ("New", 5, "suspended")
    assert changed["limits"]["requests_per_second"] == 5000
    assert changed["revision"] == 2
    assert changed == (await gateway.client.get(f"{TENANTS}/acme", headers=gateway.admin)).json()
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/keys"), ("DELETE", "/keys/x")):
        answer = await gateway.client.request(
            method, f"{TENANTS}/nobody{path}", headers=gateway.admin, json={} if method == "PATCH" else None
        )
        gateway.problem(answer, 404, "id")


async def test_pages(gateway: Running) -> None:
    for tenant_id in ("c", "a", "b"):
        await gateway.tenant(tenant_id)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await gateway.client.get(f"{TENANTS}?limit=2&cursor={cursor}", headers=gateway.admin)).json()
        seen += [tenant["id"] for tenant in page["tenants"]]
        cursor = page["next_cursor"]
    assert seen == ["a", "b", "c"]
    gateway.problem(await gateway.client.get(f"{TENANTS}?limit=0", headers=gateway.admin), 422, "limit")


async def test_conflicts_name_the_field(gateway: Running) -> None:
    await gateway.client.post(TENANTS, headers=gateway.admin, json=ACME)
    same_id = await gateway.client.post(TENANTS, headers=gateway.admin, json={**ACME, "queue_path": "other"})
    gateway.problem(same_id, 409, "id")
    for path in ("Acme-Prod", "acme-prod", "ACME-PROD"):
        same_path = await gateway.client.post(
            TENANTS, headers=gateway.admin, json={**ACME, "id": "other", "queue_path": path}
        )
        gateway.problem(same_path, 409, "queue_path")


@pytest.mark.parametrize("same", ["queue_path", "id"])
async def test_fifty_registrations_one_wins(gateway: Running, same: str) -> None:
    async def register(number: int) -> int:
        body = {**ACME, "id": f"tenant-{number}", "queue_path": f"path-{number}"}
        body[same] = "Same" if same == "queue_path" and number % 2 else "same"
        answer = await gateway.client.post(TENANTS, headers=gateway.admin, json=body)
        if answer.status_code == 409:
            gateway.problem(answer, 409, same)
        return answer.status_code

    statuses = await asyncio.gather(*(register(number) for number in range(50)))
    assert sorted(statuses) == [201] + [409] * 49
    assert gateway.tenants.count_documents({}) == 1


async def test_concurrent_changes_are_not_lost(gateway: Running) -> None:
    await gateway.tenant()
    answers = await asyncio.gather(
        *(gateway.client.post(f"{TENANTS}/acme/keys", headers=gateway.admin, json={}) for _ in range(15))
    )
    assert [answer.status_code for answer in answers] == [201] * 15
    made = {answer.json()["id"] for answer in answers}
    shown = (await gateway.client.get(f"{TENANTS}/acme", headers=gateway.admin)).json()
    assert made <= {key["id"] for key in shown["keys"]}
    assert len(shown["keys"]) == 2 + len(made)


async def test_a_limit_that_is_no_sensible_number_is_refused(gateway: Running, subtests: pytest.Subtests) -> None:
    headers = {**gateway.admin, "Content-Type": "application/json"}
    numbers = [
        "0",
        "-1",
        "1e-320",
        "0.0009",
        "1e300",
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        "9" * 400,
        '"nan"',
        '"inf"',
    ]
    for limit, number in product(("requests_per_second", "burst", "max_body_bytes"), numbers):
        with subtests.test(limit=limit, number=number):
            body = f'{{"id": "acme", "name": "Acme", "queue_path": "acme", "limits": {{"{limit}": {number}}}}}'
            gateway.problem(await gateway.client.post(TENANTS, headers=headers, content=body), 422, f"limits.{limit}")


async def test_the_slowest_rate_that_is_allowed_is_kept(gateway: Running) -> None:
    tenant = await gateway.tenant(limits={"requests_per_second": 0.001, "burst": 1})
    await gateway.channel()
    assert (await gateway.post(tenant)).status_code == 200
    refused = await gateway.post(tenant)
    gateway.problem(refused, 429)
    assert 900 < int(refused.headers["retry-after"]) <= 1000


INVALID_TENANTS: list[tuple[dict[str, Any], str]] = [
    ({"id": "Acme"}, "id"),
    ({"id": ""}, "id"),
    ({"id": "a" * 65}, "id"),
    ({"id": "a\n"}, "id"),
    ({"queue_path": "a.b"}, "queue_path"),
    ({"queue_path": "*"}, "queue_path"),
    ({"queue_path": ">"}, "queue_path"),
    ({"queue_path": "a b"}, "queue_path"),
    ({"queue_path": "ä"}, "queue_path"),
    ({"queue_path": None}, "queue_path"),
    ({"queue_path": "x\n"}, "queue_path"),
    ({"name": ""}, "name"),
    ({"name": "a\x00b"}, "name"),
    ({"limits": {"burst": 0}}, "limits.burst"),
    ({"limits": {"max_body_bytes": 10**9}}, "limits.max_body_bytes"),
    ({"limits": {"requests_per_second": "NaN"}}, "limits.requests_per_second"),
    ({"limits": {"other": 1}}, "limits.other"),
    ({"other": 1}, "other"),
]


async def test_invalid_tenants(gateway: Running, subtests: pytest.Subtests) -> None:
    for change, field in INVALID_TENANTS:
        with subtests.test(change=change):
            answer = await gateway.client.post(TENANTS, headers=gateway.admin, json={**ACME, **change})
            problem = gateway.problem(answer, 422, field)
            if "pattern" in problem["errors"][0]["message"]:
                # Nobody should have to read a regular expression to choose a name.
                assert "letters" in problem["errors"][0]["fix"]


async def test_id_and_queue_path_cannot_be_changed(gateway: Running) -> None:
    await gateway.tenant()
    for field in ("id", "queue_path"):
        answer = await gateway.client.patch(f"{TENANTS}/acme", headers=gateway.admin, json={field: "other"})
        gateway.problem(answer, 422, field)


HOSTILE_BODIES = [
    b"",
    b"{",
    b'{"id": NaN}',
    b"[" * 50_000,
    b'{"id":"\\ud800"}',
    b"\xff\xfe",
    b"[]",
    b"null",
    b'"x"',
    b"1e999",
]


async def test_hostile_bodies(gateway: Running, subtests: pytest.Subtests) -> None:
    for body in HOSTILE_BODIES:
        with subtests.test(body=body[:20]):
            answer = await gateway.client.post(
                TENANTS, headers={**gateway.admin, "Content-Type": "application/json"}, content=body
            )
            assert answer.status_code in (400, 422), answer.text
            gateway.problem(answer, answer.status_code)


async def test_large_bodies(gateway: Running) -> None:
    headers = {**gateway.admin, "Content-Type": "application/json"}
    gateway.problem(await gateway.client.post(TENANTS, headers=headers, content=b"x" * 300_000), 413, "body")


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


async def test_channels(gateway: Running) -> None:
    await gateway.tenant()
    url = f"{TENANTS}/acme/channels"
    created = await gateway.channel()
    assert created.status_code == 201
    replaced = await gateway.client.put(f"{url}/TWILIO", headers=gateway.admin, json={"verification": "observe"})
    assert replaced.status_code == 200
    body = replaced.json()
    assert (body["label"], body["key"], body["provider"]) == ("TWILIO", "twilio", "twilio")
    # Secrets that are left out stay.
    assert (body["secret_count"], body["verification"]) == (1, "observe")
    await gateway.channel(label="Outbound%20Delivery", provider="sendgrid", secrets=[])
    listed = (await gateway.client.get(url, headers=gateway.admin)).json()["channels"]
    assert [channel["key"] for channel in listed] == ["outbound-delivery", "twilio"]
    found = await gateway.client.get(f"{url}/outbound%20DELIVERY", headers=gateway.admin)
    assert found.json()["label"] == "Outbound Delivery"
    assert (await gateway.client.delete(f"{url}/twilio", headers=gateway.admin)).status_code == 204
    gateway.problem(await gateway.client.delete(f"{url}/twilio", headers=gateway.admin), 404, "label")
    gateway.problem(await gateway.client.get(f"{url}/twilio", headers=gateway.admin), 404, "label")


async def test_every_channel_shows_what_to_paste_at_its_provider(gateway: Running) -> None:
    await gateway.tenant()
    url = f"{TENANTS}/acme/channels"
    base = f"{gateway.url}/in/{{ingest_token}}"
    put = [
        (await gateway.channel()).json(),
        (await gateway.channel(label="Our%20Mail", provider="sendgrid", secrets=[])).json(),
    ]
    expected = {
        "Twilio": (f"{base}/api/postevents?channelLabel=Twilio#rc=5&rp=all", None),
        "Our Mail": (
            f"{base}/api/postevents?channelLabel=Our%20Mail",
            f"{base}/oauth/token?channelLabel=Our%20Mail",
        ),
    }
    tenant = (await gateway.client.get(f"{TENANTS}/acme", headers=gateway.admin)).json()
    listed = (await gateway.client.get(url, headers=gateway.admin)).json()
    found = (await gateway.client.get(f"{url}/twilio", headers=gateway.admin)).json()
    for channels in (put, tenant["channels"], listed["channels"]):
        assert {one["label"]: (one["callback_url"], one["token_url"]) for one in channels} == expected
    assert found == put[0]
    # Where the token is known, it stands in them; an API key has no place there.
    issued = (await gateway.client.post(f"{TENANTS}/acme/keys", headers=gateway.admin, json={"kind": "ingest"})).json()
    whole = {one["label"]: (one["callback_url"], one["token_url"]) for one in issued["addresses"]}
    assert whole == {
        label: tuple(one and one.replace("{ingest_token}", issued["key"]) for one in addresses)
        for label, addresses in expected.items()
    }
    address = whole["Twilio"][0].partition("#")[0].removeprefix(gateway.url)
    assert (await gateway.post(None, address)).status_code == 200
    assert (await gateway.client.post(f"{TENANTS}/acme/keys", headers=gateway.admin)).json()["addresses"] == []


async def test_what_a_put_leaves_out_stays(gateway: Running) -> None:
    await gateway.tenant()

    async def put(body: dict[str, Any], label: str = "Twilio") -> tuple[str, int, dict[str, Any], str]:
        answer = await gateway.client.put(f"{TENANTS}/acme/channels/{label}", headers=gateway.admin, json=body)
        assert answer.status_code in (200, 201), answer.text
        shown = answer.json()
        return shown["provider"], shown["secret_count"], shown["settings"], shown["verification"]

    assert await put({}) == ("twilio", 0, {}, "enforce")
    settings = {"communication_keys": ["job"]}
    await put({"settings": settings, "secrets": ["one"], "verification": "observe"})
    for nothing in ({}, {"settings": None, "secrets": None, "verification": None, "provider": None}):
        assert await put(nothing) == ("twilio", 1, settings, "observe")
    assert await put({"verification": "enforce"}) == ("twilio", 1, settings, "enforce")
    assert await put({"secrets": ["one", "two"]}) == ("twilio", 2, settings, "enforce")
    assert await put({"settings": {}}) == ("twilio", 2, {}, "enforce")
    assert await put({"secrets": []}) == ("twilio", 0, {}, "enforce")
    # A label need not tell the provider; secrets and settings of one are nothing to another.
    await put({"provider": "twilio", "secrets": ["one"], "settings": settings, "verification": "off"}, "News")
    assert await put({}, "news") == ("twilio", 1, settings, "off")
    assert await put({"provider": "sendgrid"}, "News") == ("sendgrid", 0, {}, "off")


async def test_settings_by_which_the_kept_secrets_prove_nothing_are_refused(gateway: Running) -> None:
    """Nobody would notice before every callback is refused."""
    tenant = await gateway.tenant()

    async def put(**body: Any) -> httpx.Response:
        return await gateway.client.put(f"{TENANTS}/acme/channels/Hook", headers=gateway.admin, json=body)

    signed = {"proof": {"type": "hmac", "signature_header": "X-Signature"}}
    created = await put(provider="generic", settings=signed, secrets=["a-signing-key"])
    assert created.status_code == 201, created.text
    for proof in ("credential", "basic", "standard_webhooks"):
        answer = await put(settings={"proof": {"type": proof}})
        gateway.problem(answer, 422, "secrets")
        assert "a-signing-key" not in answer.text
    assert (await put(settings={"proof": {**signed["proof"], "algorithm": "sha1"}})).json()["secret_count"] == 1
    assert (await put(settings={"proof": {"type": "credential"}}, secrets=[])).status_code == 200
    url = f"/in/{tenant.ingest_token}/api/postevents?channelLabel=Hook"
    assert (await gateway.client.post(url, json={"id": 1, "status": "sent"})).status_code == 200


INVALID_CHANNELS = [
    ("Twilio", {"provider": "nobody"}, "provider"),
    ("Something", {}, "provider"),
    ("Twilio", {"settings": {"unknown": 1}}, "settings.unknown"),
    ("Twilio", {"settings": {"communication_keys": 5}}, "settings.communication_keys"),
    ("Twilio", {"settings": []}, "settings"),
    ("Twilio", {"secrets": "x"}, "secrets"),
    ("Twilio", {"secrets": ["fine", "not visible ascii ä"]}, "secrets[1]"),
    ("SendGrid", {"secrets": ["no key"]}, "secrets[0]"),
    ("SendGrid", {"settings": {"communication_keys": ["campaign", "type"]}}, "settings.communication_keys"),
    ("SendGrid", {"settings": {"message_id_from": ["status", "smtp-id"]}}, "settings.message_id_from"),
    ("Twilio", {"verification": "maybe"}, "verification"),
    ("Twilio", {"unknown": 1}, "unknown"),
    ("a.b", {"provider": "twilio"}, "label"),
    ("*", {"provider": "twilio"}, "label"),
    ("%00", {"provider": "twilio"}, "label"),
    ("a" * 65, {"provider": "twilio"}, "label"),
]


async def test_invalid_channels(gateway: Running, subtests: pytest.Subtests) -> None:
    await gateway.tenant()
    for label, body, field in INVALID_CHANNELS:
        with subtests.test(label=label, body=body):
            answer = await gateway.client.put(f"{TENANTS}/acme/channels/{label}", headers=gateway.admin, json=body)
            problem = gateway.problem(answer, 422, field)
            if field == "provider":
                assert "twilio" in problem["errors"][0]["fix"]
            assert not problem["errors"][0]["message"].startswith("Value error"), "a library's own words"


UNFIT_FIELDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("twilio", {"secret": ["x"]}, "secret", "Did you mean secrets?"),
    ("twilio", {"settings": {"reply": {}}}, "settings.reply", "Did you mean replies?"),
    ("twilio", {"settings": {"replies": {"added": {"stopp": ["halt"]}}}}, "settings.replies.added.stopp", "stop?"),
    ("twilio", {"settings": {"parameters": [{"nme": "id"}]}}, "settings.parameters[0].nme", "Did you mean name?"),
    ("twilio", {"settings": {"parameters": ["id"]}}, "settings.parameters[0]", "braces"),
    ("generic", {"settings": {"mapping": {"mesage_id": "a"}}}, "settings.mapping.mesage_id", "message_id?"),
    ("generic", {"settings": {"mapping": {"zzz": "a"}}}, "settings.mapping.zzz", "Use one of: event_id, message_id"),
    ("generic", {"settings": {"proof": {"type": "hmac"}}}, "settings.proof.signature_header", "Add it."),
    ("generic", {"settings": {"proof": {"type": "hmacc"}}}, "settings.proof.type", "message asks"),
    ("generic", {"settings": {"proof": {"headers": "svix"}}}, "settings.proof.type", "Add it."),
    (
        "generic",
        {"settings": {"proof": {"type": "hmac", "signature_header": "X", "algorith": "sha1"}}},
        "settings.proof.algorith",
        "Did you mean algorithm?",
    ),
    ("mpulse", {"secrets": [{"username": "a", "passwort": "b"}]}, "secrets[0].passwort", "Did you mean password?"),
]


async def test_a_field_that_does_not_fit_is_named_as_it_was_written_with_the_fix(
    gateway: Running, subtests: pytest.Subtests
) -> None:
    await gateway.tenant()
    for provider, body, field, fix in UNFIT_FIELDS:
        with subtests.test(provider=provider, body=body):
            asked = {"provider": provider, **body}
            answer = await gateway.client.put(f"{TENANTS}/acme/channels/Some", headers=gateway.admin, json=asked)
            problem = gateway.problem(answer, 422, field)
            (fixed,) = [error["fix"] for error in problem["errors"] if error["field"] == field]
            assert fix in fixed
            assert "Extra inputs" not in answer.text, "a library's own words"


async def test_a_key_ring_that_lost_its_key_refuses(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
    async with gateway_factory(fresh_nats.uri) as other:  # With a key of its own.
        other.problem(await other.post(tenant), 403)
