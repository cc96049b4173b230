"""An application in the log of changes: each thing that it changes has an entry of its own, and its tenant sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_common.errors import unavailable
from backhaul_gateway.admin.changestore import MongoChangeStore
from backhaul_gateway.admin.store import MongoTenantStore
from backhaul_local.nats_server import NatsServer
from changes_rig import Json, changes, stored
from gateway_rig import TWILIO_TOKEN, GatewayFactory, Running

APPLY = "/admin/v1/apply"
OTHER_TOKEN = "another-token-of-the-providers-account"  # of a test


@pytest.fixture
async def gateway(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[Running]:
    async with gateway_factory(fresh_nats.uri, gateway_notifier_target="") as running:
        yield running


def document(*tenants: Json) -> Json:
    return {"version": 1, "tenants": [{"name": "Acme", "queue_path": one["id"], **one} for one in tenants]}


async def applied(gateway: Running, body: Json, **params: str) -> Json:
    answer = await gateway.client.post(APPLY, headers=gateway.admin, params=params, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def seen(entries: list[Json]) -> list[tuple[str, str, str]]:
    return [(one["kind"], one["tenant_id"], one["outcome"]) for one in entries]


async def test_each_change_of_an_application_has_an_entry_that_its_tenant_sees(gateway: Running) -> None:
    tenants = [await gateway.tenant(name) for name in ("acme", "other")]
    await gateway.channel("acme")
    twilio = {"label": "Twilio", "provider": "twilio", "secrets": [{"secret_ref": "theirs"}]}
    body = document(
        {"id": "acme", "channels": [twilio, {"label": "My Hook", "provider": "generic", "verification": "off"}]},
        {"id": "other", "name": "other"},
        {"id": "new", "status": "suspended"},
    ) | {"secrets": {"theirs": OTHER_TOKEN}}
    known = len(stored(gateway))
    await applied(gateway, body, dry_run="true")
    assert len(stored(gateway)) == known + 1  # Of a dry run there is the request alone.
    made = await applied(gateway, body)
    whole = await changes(gateway, gateway.admin, "/admin/v1", action=f"POST {APPLY}")
    *parts, outer, _ = whole
    assert (outer["kind"], outer["tenant_id"], outer["application"]) == ("configuration", None, None)
    assert {one["application"] for one in parts} == {outer["id"]}
    assert await changes(gateway, gateway.admin, "/admin/v1", application=outer["id"]) == parts
    assert seen(parts) == [
        ("tenant", "new", "done"), ("channel", "acme", "done"), ("channel", "acme", "done"), ("tenant", "acme", "done"),
    ]  # fmt: skip
    born, came, replaced, renamed = parts
    assert {one["author"] for one in parts} == {"admin:admin"}
    assert {one["trace_id"] for one in parts} == {outer["trace_id"]}
    assert (renamed["before"]["name"], renamed["after"]["name"]) == ("acme", "Acme")
    assert (came["before"], came["after"]["label"], came["target"]["label"]) == (None, "My Hook", "My Hook")
    assert (replaced["before"]["label"], replaced["after"]["secrets"]) == ("Twilio", "***")
    assert (born["before"], born["after"]["status"]) == (None, "suspended")
    text = str(stored(gateway))
    assert OTHER_TOKEN not in text
    assert TWILIO_TOKEN not in text
    assert made["tenants"][2]["api_key"].split("_")[2] not in text

    # Each tenant sees its own, the one that the application has made as well, and the request's own entry nobody.
    acme, other = [await changes(gateway, {"X-Api-Key": one.api_key}) for one in tenants]
    assert [one["id"] for one in acme[:3]] == [came["id"], replaced["id"], renamed["id"]]
    assert {one["tenant_id"] for one in acme} == {"acme"}
    assert acme[0]["client"] is None
    assert [one["action"] for one in other] == ["POST /admin/v1/tenants"]
    assert born["registration"] == gateway.tenants.find_one({"_id": "new"})["registration"]
    key = {"X-Api-Key": tenants[1].api_key}
    assert await changes(gateway, key, application=outer["id"]) == []

    # What is so already is no change.
    known = len(stored(gateway))
    await applied(gateway, body)
    assert len(stored(gateway)) == known + 1


async def test_what_fails_on_the_way_is_told_of_each(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("acme", "other"):
        await gateway.tenant(name)
    replace = MongoTenantStore.replace

    async def failing(self: MongoTenantStore, value: Any, revision: int) -> bool:
        if value.id == "other":
            raise unavailable("MongoDB")
        return await replace(self, value, revision)

    with monkeypatch.context() as broken:
        broken.setattr(MongoTenantStore, "replace", failing)
        body = document({"id": "acme"}, {"id": "other"})
        gateway.problem(await gateway.client.post(APPLY, headers=gateway.admin, json=body), 503)
    parts = await changes(gateway, gateway.admin, "/admin/v1", action=f"POST {APPLY}")
    assert [(one["kind"], one["tenant_id"], one["status"]) for one in parts] == [
        ("tenant", "other", 503), ("tenant", "acme", 200), ("configuration", None, 503),
    ]  # fmt: skip


async def test_what_cannot_be_logged_is_not_done(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await gateway.tenant("acme")
    begin = MongoChangeStore.begin

    async def failing(self: MongoChangeStore, begun: Any, outcome: Any = None) -> None:
        if begun.application:
            raise unavailable("MongoDB")
        await begin(self, begun, outcome)

    with monkeypatch.context() as broken:
        broken.setattr(MongoChangeStore, "begin", failing)
        answer = await gateway.client.post(APPLY, headers=gateway.admin, json=document({"id": "acme"}, {"id": "new"}))
        gateway.problem(answer, 503)
    assert [(one["_id"], one["name"]) for one in gateway.tenants.find({})] == [("acme", "acme")]
