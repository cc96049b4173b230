"""A tenant's channels under /admin/v1, on real servers: what is put, kept, shown and refused."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from gateway_rig import Running

TENANTS = "/admin/v1/tenants"


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
    ("twilio", {"settings": {"reconcile": {"senders": "+1500"}}}, "settings.reconcile.senders", "brackets"),
    ("twilio", {"pull_credentials": "SK"}, "pull_credentials", "braces"),
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
            for words in ("Extra inputs", "tuple", "dictionary"):
                assert words not in answer.text, "a library's own words"
