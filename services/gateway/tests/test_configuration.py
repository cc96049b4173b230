"""Configuration as data: an export applied changes nothing, and what a document says becomes true, or nothing does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from backhaul_common.errors import unavailable
from backhaul_gateway.admin.store import MongoTenantStore
from backhaul_local.nats_server import NatsServer
from gateway_rig import TWILIO_TOKEN, GatewayFactory, Running
from structlog.testing import capture_logs

EXPORT, APPLY = "/admin/v1/export", "/admin/v1/apply"
PULL = {"auth_token": "pull-auth-token-0123456789012345", "account_sid": "AC" + "0" * 32}
BUCKET = {"endpoint": "http://127.0.0.1:9", "bucket": "acme-audit"}
KEYS = {"access_key": "an-access-key", "secret_key": "the-buckets-secret-key"}
DEEP: list[Any] = []
for _ in range(400):
    DEEP = [DEEP]
SECRETS = (TWILIO_TOKEN, *PULL.values(), *KEYS.values(), "gAAAA")


@pytest.fixture
async def gateway(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[Running]:
    async with gateway_factory(fresh_nats.uri, gateway_notifier_target="") as running:
        yield running


async def exported(gateway: Running, **params: Any) -> dict[str, Any]:
    answer = await gateway.client.get(EXPORT, headers=gateway.admin, params=params)
    assert answer.status_code == 200, answer.text
    assert not any(secret in answer.text for secret in SECRETS)
    found: dict[str, Any] = answer.json()
    return found


async def post(gateway: Running, document: dict[str, Any], **params: str) -> httpx.Response:
    return await gateway.client.post(APPLY, headers=gateway.admin, params=params, json=document, timeout=60)


async def applied(gateway: Running, document: dict[str, Any], **params: str) -> list[dict[str, Any]]:
    answer = await post(gateway, document, **params)
    assert answer.status_code == 200, answer.text
    assert not any(secret in answer.text for secret in SECRETS)
    found: list[dict[str, Any]] = answer.json()["tenants"]
    return found


def stored(gateway: Running) -> list[dict[str, Any]]:
    return list(gateway.tenants.find({}).sort("_id", 1))


async def patch(gateway: Running, tenant_id: str, body: dict[str, Any]) -> None:
    answer = await gateway.client.patch(f"/admin/v1/tenants/{tenant_id}", headers=gateway.admin, json=body)
    assert answer.status_code == 200, answer.text


async def set_up(gateway: Running) -> None:
    """Tenants of every kind: plain, with everything, suspended, and with names that look like something else."""
    await gateway.tenant("plain")
    await gateway.tenant("acme", queue_path="Acme-PROD")
    await gateway.channel(
        "acme",
        pull_credentials=PULL,
        settings={"audit": {"enabled": True, "bucket": BUCKET}},
        audit_credentials=KEYS,
        processing="held",
    )
    await gateway.channel("acme", "My Hook", provider="generic", secrets=[], verification="observe")
    await gateway.channel("acme", "SendGrid", secrets=[], verification="off")
    body: dict[str, Any] = {
        "name": '{"secret_ref": "é"} … ',
        "limits": {"requests_per_second": 0.5, "burst": 7},
        "suppression": {"revocation_scope": "topic", "topic_since": "2027-02-01T00:00:00.123Z", "whatsapp": "phone"},
        "audit": {"retention_days": 90},
        "retention": {"event_retention_days": 30, "message_retention_days": 365},
    }
    await patch(gateway, "acme", body)
    await gateway.tenant("suspended")
    await patch(gateway, "suspended", {"status": "suspended"})


async def test_an_export_applied_changes_nothing(gateway: Running) -> None:
    await set_up(gateway)
    before, document = stored(gateway), await exported(gateway)
    assert [one["id"] for one in document["tenants"]] == ["acme", "plain", "suspended"]
    for params in ({"dry_run": "true"}, {}):
        for one in await applied(gateway, document, **params):
            assert (one["change"], one["fields"]) == ("unchanged", [])
            assert {part["change"] for part in one["channels"]} <= {"unchanged"}
            assert one["only_here"] == {"channels": [], "subscriptions": []}
        assert stored(gateway) == before
    # With the same values beside it, nothing changes either.
    values = {
        "acme/twilio/secrets/0": TWILIO_TOKEN,
        "acme/twilio/pull_credentials": PULL,
        "acme/twilio/audit_credentials": KEYS,
    }
    found = await applied(gateway, document | {"secrets": values})
    assert {part["change"] for one in found for part in one["channels"]} == {"unchanged"}
    assert stored(gateway) == before
    # In pages, and of one tenant.
    first = await exported(gateway, limit=2)
    assert first["next_cursor"] == "plain"
    assert (await exported(gateway, cursor="plain"))["tenants"] == document["tenants"][2:]
    assert (await exported(gateway, tenant="plain"))["tenants"] == document["tenants"][1:2]
    gateway.problem(await gateway.client.get(EXPORT, headers=gateway.admin, params={"tenant": "nobody"}), 404)


async def test_it_makes_an_installation_that_is_empty_what_another_one_is(gateway: Running) -> None:
    await set_up(gateway)
    document = await exported(gateway)
    gateway.tenants.delete_many({})
    refused = gateway.problem(await post(gateway, document), 422, "tenants[0].channels[2].secrets")
    assert "'acme/twilio/secrets/0'" in refused["detail"]
    assert stored(gateway) == []
    values: dict[str, Any] = {"acme/twilio/secrets/0": TWILIO_TOKEN, "acme/twilio/pull_credentials": PULL}
    complete = document | {"secrets": values | {"acme/twilio/audit_credentials": KEYS}}
    planned = await applied(gateway, complete, dry_run="true")
    assert stored(gateway) == []
    with capture_logs() as lines:
        found = await applied(gateway, complete)
    assert not any(secret in repr(lines) for secret in SECRETS)
    for plan, one in zip(planned, found, strict=True):
        assert plan["api_key"] is None
        assert one["api_key"].startswith("bhk_")
        assert one["ingest_token"].startswith("bhi_")
        assert plan == one | {"api_key": None, "ingest_token": None}
        assert one["change"] == "created"
    assert await exported(gateway) == document
    # Whoever has the key that was told posts with it, and what proves a callback is what it was.
    await patch(gateway, "acme", {"limits": {"requests_per_second": 100}})
    posted = await gateway.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": found[0]["api_key"]})
    assert posted.status_code == 200, posted.text
    assert {one["change"] for one in await applied(gateway, await exported(gateway))} == {"unchanged"}


async def test_what_differs_is_told_and_done_and_nothing_is_deleted(gateway: Running) -> None:
    await set_up(gateway)
    document = await exported(gateway, tenant="acme")
    wanted = document["tenants"][0]
    wanted["limits"]["burst"] = 9
    wanted["status"] = "suspended"
    wanted["retention"] = dict.fromkeys(wanted["retention"], 0)
    wanted["channels"] = [one for one in wanted["channels"] if one["label"] != "SendGrid"]
    twilio = next(one for one in wanted["channels"] if one["label"] == "Twilio")
    twilio |= {"processing": "on", "pull_credentials": {}}
    document["secrets"] = {"acme/twilio/secrets/0": "another-secret-of-twilio"}
    before = stored(gateway)
    planned = await applied(gateway, document, dry_run="true")
    assert stored(gateway) == before
    (done,) = await applied(gateway, document)
    assert planned == [done]
    assert {(one["field"], str(one["before"]), str(one["after"])) for one in done["fields"]} == {
        ("limits.burst", "7", "9"),
        ("status", "active", "suspended"),
        ("retention.event_retention_days", "30", "0"),
        ("retention.message_retention_days", "365", "0"),
    }
    changed = {one["name"]: one for one in done["channels"]}
    assert changed["My Hook"]["change"] == "unchanged"
    assert {(one["field"], one["before"], one["after"]) for one in changed["Twilio"]["fields"]} == {
        ("processing", "held", "on"),
        ("secrets", "(secret)", "(changed)"),
        ("pull_credentials", "(secret)", "(changed)"),
    }
    assert done["only_here"] == {"channels": ["sendgrid"], "subscriptions": []}
    after = await exported(gateway, tenant="acme")
    assert [one["label"] for one in after["tenants"][0]["channels"]] == ["My Hook", "SendGrid", "Twilio"]
    (again,) = await applied(gateway, document)
    assert (again["change"], {one["change"] for one in again["channels"]}) == ("unchanged", {"unchanged"})


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"queue_path": "other"}, 422, "tenants[1].queue_path"),
        ({"id": "new", "queue_path": "acme-prod"}, 409, "tenants[1].queue_path"),
        ({"id": "acme"}, 422, "tenants[1].id"),
        ({"limits": {"burst": 0}}, 422, "tenants[1].limits.burst"),
        ({"limits": {"bursts": 1}}, 422, "tenants[1].limits.bursts"),
        ({"retention": {"message_retention_days": 5}}, 422, "tenants[1].retention.message_retention_days"),
        ({"channels": [{"label": "My Hook"}, {"label": "my-hook"}]}, 422, "tenants[1].channels[1]"),
        ({"channels": [{}]}, 422, "tenants[1].channels[0].label"),
        ({"channels": [{"label": "X", "provider": "nobody"}]}, 422, "tenants[1].channels[0].provider"),
        ({"channels": [{"label": "Twilio", "setings": {}}]}, 422, "tenants[1].channels[0].setings"),
        ({"channels": [{"label": "Twilio", "settings": {"x": 1}}]}, 422, "tenants[1].channels[0].settings.x"),
        ({"channels": [{"label": "Twilio", "secrets": ["plain-text"]}]}, 422, "tenants[1].channels[0].secrets"),
        ({"channels": [{"label": "Twilio", "secrets": {"secret_ref": "a"}}]}, 422, "tenants[1].channels[0].secrets"),
        ({"subscriptions": [{"types": ["*"], "x": DEEP}]}, 422, "tenants[1].subscriptions[0].x"),
        ({"subscriptions": [{"types": ["*"]}]}, 409, "tenants[1].subscriptions[0]"),
    ],
)
async def test_what_is_refused_is_named_by_its_place_and_nothing_is_changed(
    gateway: Running, change: dict[str, Any], status: int, field: str
) -> None:
    await set_up(gateway)
    document = await exported(gateway)
    document["tenants"][0]["limits"]["burst"] = 11
    document["tenants"][1] |= change
    before = stored(gateway)
    for params in ({"dry_run": "true"}, {}):
        refused = gateway.problem(await post(gateway, document, **params), status, field)
        assert "plain-text" not in json.dumps(refused)
    assert stored(gateway) == before


async def test_what_a_document_leaves_out_stays(gateway: Running) -> None:
    await set_up(gateway)
    before = stored(gateway)
    found = [{name: one[name] for name in ("id", "name", "queue_path")} for one in (await exported(gateway))["tenants"]]
    done = await applied(gateway, {"version": 1, "tenants": found})
    assert {one["change"] for one in done} == {"unchanged"}
    assert done[0]["only_here"]["channels"] == ["my-hook", "sendgrid", "twilio"]
    assert stored(gateway) == before


async def test_two_new_tenants_with_one_path_are_refused(gateway: Running) -> None:
    document = {
        "version": 1,
        "tenants": [{"id": name, "name": name, "queue_path": path} for name, path in (("a", "Path"), ("b", "pAth"))],
    }
    gateway.problem(await post(gateway, document), 409, "tenants[1].queue_path")
    assert stored(gateway) == []


@pytest.mark.parametrize("body", [{}, {"version": 2, "tenants": []}, {"version": 1, "tenants": [{"id": "a"}] * 101}])
async def test_another_version_and_too_many_are_refused(gateway: Running, body: dict[str, Any]) -> None:
    gateway.problem(await post(gateway, body), 422)


async def test_a_document_may_be_large_and_not_larger(gateway: Running) -> None:
    document: dict[str, Any] = {"version": 1, "tenants": [], "secrets": {"a": "x" * (2 << 20)}}
    assert await applied(gateway, document) == []
    gateway.problem(await post(gateway, document | {"secrets": {"a": "x" * (4 << 20)}}), 413)


async def test_what_fails_on_the_way_says_what_is_done(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await set_up(gateway)
    document = await exported(gateway)
    for one in document["tenants"]:
        one["limits"]["burst"] = 13
    replace = MongoTenantStore.replace

    async def failing(self: MongoTenantStore, value: Any, revision: int) -> bool:
        if value.id == "plain":
            raise unavailable("MongoDB")
        return await replace(self, value, revision)

    with monkeypatch.context() as broken:
        broken.setattr(MongoTenantStore, "replace", failing)
        refused = gateway.problem(await post(gateway, document), 503)
    assert "tenants[1]" in refused["detail"]
    assert "Applied before: acme; of plain perhaps a part. Apply the document again." in refused["detail"]
    found = await applied(gateway, document)
    assert [one["change"] for one in found] == ["unchanged", "changed", "changed"]
