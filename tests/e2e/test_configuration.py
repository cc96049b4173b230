"""Configuration as data, with subscriptions: what one installation exports makes another, and applied again changes
nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_client import InvalidArgumentError

if TYPE_CHECKING:
    from simulators.people import Tenant, Town

SECRETS = ("a-password", "a-bearer-token", "a-header-value", "a-client-secret")
URL = "https://example.com/told"


async def _subscribe(tenant: Tenant) -> None:
    """Subscriptions of every kind, two without a name of their own among them."""
    make = tenant.client.subscriptions.create
    kinds: list[Any] = [
        {"basic": {"username": "us", "password": "a-password"}},
        {"bearer_token": "a-bearer-token"},
        {"header": {"name": "x-key", "value": "a-header-value"}},
        {"oauth": {"token_url": "https://example.com/token", "client_id": "us", "client_secret": "a-client-secret"}},
    ]
    for number, credentials in enumerate(kinds):
        await make(["message.*"], name=f"Told {number}", http={"url": URL, "credentials": credentials})
    for types in (["message.sent"], ["message.read", "reply.*"]):
        await make(types, http={"url": URL + "?member=${memberId}"})
    custom: Any = {"kind": "custom", "retry_after_s": [1, 2], "timeout_s": 9}
    await make(["*"], name="Orders", http={"url": URL}, policy=custom, payload={"form": "thin", "max_events": 5})
    digest = await make(["reply.*"], name="Digest", mail={"addresses": ["ops@example.com"], "every_minutes": 30})
    await tenant.client.subscriptions.pause(digest.id)


async def _all(tenant: Tenant) -> dict[str, tuple[int, str]]:
    return {one.id: (one.revision, one.state) async for one in tenant.client.subscriptions.list()}


async def test_subscriptions_are_configuration_too(town: Town) -> None:
    team = town.platform.client
    tenant, other = await town.platform.register(), await town.platform.register()
    await _subscribe(tenant)
    before = await _all(tenant)
    document: Any = await team.export(tenant=tenant.id)
    assert not any(secret in json.dumps(document) for secret in SECRETS)
    for dry_run in (True, False):
        (same,) = await team.apply(document, dry_run=dry_run)
        assert (same.change, {one.change for one in same.channels}) == ("unchanged", {"unchanged"})
        assert [(one.change, one.fields) for one in same.subscriptions] == [("unchanged", ())] * 8
        assert same.only_here.subscriptions == ()
    assert await _all(tenant) == before

    # Into one that has none of it: without values what needs one is named, and nothing is done.
    (wanted,) = document["tenants"]
    theirs = wanted | {"id": other.id, "name": "Other", "queue_path": other.queue_path, "channels": []}
    moved = document | {"tenants": [theirs]}
    with pytest.raises(InvalidArgumentError) as refused:
        await team.apply(moved)
    assert refused.value.errors[0].field == "tenants[0].subscriptions[0].http.credentials.basic.password"
    assert await _all(other) == {}
    values = dict(zip(_refs(theirs), SECRETS, strict=True))
    (planned,) = await team.apply(moved, secrets=values, dry_run=True)
    assert {one.change for one in planned.subscriptions} == {"created"}
    assert await _all(other) == {}
    (made,) = await team.apply(moved, secrets=values)
    assert {one.change for one in made.subscriptions} == {"created"}
    assert all(one.secret is not None and one.secret.startswith("whsec_") for one in made.subscriptions)
    assert [state for _, state in (await _all(other)).values()] == ["active"] * 7 + ["paused"]
    # Each is in the log by itself, and its tenant sees it.
    logged = [one async for one in other.client.changes() if one.kind == "subscription"]
    assert sorted(one.target["subscription_id"] for one in logged) == sorted(await _all(other))
    assert len({one.application for one in logged}) == 1
    assert {(one.outcome, one.before is None, (one.after or {}).get("name") is None) for one in logged} == {
        ("done", True, False)
    }
    assert not any(secret in str(logged) for secret in SECRETS)
    assert not [one async for one in tenant.client.changes() if one.kind == "subscription" and one.application]
    # By ids that are another installation's it is found by its name, or by what it says.
    after = await _all(other)
    (again,) = await team.apply(moved)
    assert [(one.change, one.fields) for one in again.subscriptions] == [("unchanged", ())] * 8
    assert await _all(other) == after
    exported: Any = await team.export(tenant=other.id)
    assert [_bare(one) for one in exported["tenants"][0]["subscriptions"]] == [
        _bare(one) for one in theirs["subscriptions"]
    ]

    # What differs is told, and done; a secret that is given is written, and not told.
    changed = exported["tenants"][0]
    changed["subscriptions"][6]["policy"]["timeout_s"] = 12
    del changed["subscriptions"][4]
    rotated = {changed["subscriptions"][1]["http"]["credentials"]["bearer_token"]["secret_ref"]: "another-token"}
    (planned,) = await team.apply(exported, secrets=rotated, dry_run=True)
    assert await _all(other) == after
    (done,) = await team.apply(exported, secrets=rotated)
    assert planned == done
    fields = {
        one.name: [(field.field, field.before, field.after) for field in one.fields] for one in done.subscriptions
    }
    assert {name: found for name, found in fields.items() if found} == {
        "Told 1": [("http.credentials", "(secret)", "(changed)")],
        "Orders": [("policy.timeout_s", 9, 12)],
    }
    assert len(done.only_here.subscriptions) == 1
    assert (await _all(other)).keys() == after.keys()
    assert await _all(tenant) == before


async def test_what_the_notifier_refuses_is_refused_before_anything_is_done(town: Town) -> None:
    team, tenant = town.platform.client, await town.platform.register()
    document: Any = await team.export(tenant=tenant.id)
    document["tenants"][0] |= {"name": "Renamed", "subscriptions": [{"types": ["message.snet"], "http": {"url": URL}}]}
    for dry_run in (True, False):
        with pytest.raises(InvalidArgumentError) as refused:
            await team.apply(document, dry_run=dry_run)
        assert [error.field for error in refused.value.errors] == ["tenants[0].subscriptions[0].types[0]"]
    assert (await team.tenant(tenant.id)).name != "Renamed"


async def test_a_tenant_is_made_with_its_subscriptions(town: Town) -> None:
    team, model = town.platform.client, await town.platform.register()
    await _subscribe(model)
    document: Any = await team.export(tenant=model.id)
    document["tenants"][0] |= {"id": f"{model.id}-2", "queue_path": f"{model.queue_path}-2", "channels": []}
    values = dict(zip(_refs(document["tenants"][0]), SECRETS, strict=True))
    (planned,) = await team.apply(document, secrets=values, dry_run=True)
    assert (planned.change, len(planned.subscriptions), planned.api_key) == ("created", 8, None)
    (made,) = await team.apply(document, secrets=values)
    assert made.api_key is not None
    assert "bhk_" not in repr(made)
    again: Any = await team.export(tenant=made.id)
    assert [_bare(one) for one in again["tenants"][0]["subscriptions"]] == [
        _bare(one) for one in document["tenants"][0]["subscriptions"]
    ]


def _refs(tenant: Any) -> list[str]:
    """The references of a tenant's subscriptions, in their order."""
    found: list[str] = []

    def walk(value: Any) -> None:
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if name == "secret_ref":
                found.append(inner)
            elif isinstance(inner, dict | list):
                walk(inner)

    walk(tenant["subscriptions"])
    return found


def _bare(subscription: Any) -> Any:
    """What is of no installation: neither its id nor its references."""
    text = json.dumps({name: value for name, value in subscription.items() if name != "id"})
    for ref in _refs({"subscriptions": [subscription]}):
        text = text.replace(ref, "ref")
    return json.loads(text)
