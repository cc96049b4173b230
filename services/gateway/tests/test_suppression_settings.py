"""A tenant's settings of suppression through /admin: what is kept, from when on, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from gateway_rig import Running

TENANTS = "/admin/v1/tenants"
DEFAULTS = {"revocation_scope": "all", "topic_since": None, "whatsapp": "apart"}


async def change(gateway: Running, **suppression: Any) -> dict[str, Any]:
    body = {"suppression": suppression}
    answer = await gateway.client.patch(f"{TENANTS}/acme", headers=gateway.admin, json=body)
    assert answer.status_code == 200, answer.text
    shown = await gateway.client.get(f"{TENANTS}/acme", headers=gateway.admin)
    assert shown.json() == answer.json()
    found: dict[str, Any] = answer.json()["suppression"]
    return found


async def test_a_tenant_that_says_nothing_has_the_defaults(gateway: Running) -> None:
    await gateway.tenant()
    assert await change(gateway) == DEFAULTS
    # As before the settings were there.
    gateway.tenants.update_one({"_id": "acme"}, {"$unset": {"suppression": ""}})
    assert await change(gateway, whatsapp="phone") == {**DEFAULTS, "whatsapp": "phone"}
    assert await change(gateway) == {**DEFAULTS, "whatsapp": "phone"}


async def test_a_new_tenant_may_say_it_at_once(gateway: Running) -> None:
    given = {"revocation_scope": "topic", "topic_since": "2027-02-01T00:00:00+01:00", "whatsapp": "phone"}
    body = {"id": "acme", "name": "Acme", "queue_path": "acme", "suppression": given}
    made = await gateway.client.post(TENANTS, headers=gateway.admin, json=body)
    assert made.status_code == 201
    kept = {**given, "topic_since": "2027-01-31T23:00:00Z"}
    assert made.json()["suppression"] == kept
    assert await change(gateway) == kept


async def test_topic_without_a_date_holds_from_now_on_and_is_not_moved_by_being_repeated(gateway: Running) -> None:
    await gateway.tenant()
    earliest = datetime.now(UTC) - timedelta(milliseconds=1)
    found = await change(gateway, revocation_scope="topic")
    since = datetime.fromisoformat(found["topic_since"])
    assert earliest <= since <= datetime.now(UTC)
    assert await change(gateway, revocation_scope="topic", whatsapp="phone") == {**found, "whatsapp": "phone"}
    moved = await change(gateway, topic_since="2026-01-01T00:00:00.123456Z")
    assert moved == {"revocation_scope": "topic", "topic_since": "2026-01-01T00:00:00.123000Z", "whatsapp": "phone"}
    assert await change(gateway, revocation_scope="all") == {**DEFAULTS, "whatsapp": "phone"}
    # Begun once more, it does not go back to the old date.
    assert (await change(gateway, revocation_scope="topic"))["topic_since"] >= found["topic_since"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"topic_since": "2027-02-01T00:00:00Z"}, "suppression.topic_since"),
    ({"revocation_scope": "all", "topic_since": "2027-02-01T00:00:00Z"}, "suppression.topic_since"),
    ({"revocation_scope": "topic", "topic_since": "2027-02-01T00:00:00"}, "suppression.topic_since"),
    ({"revocation_scope": "topic", "topic_since": "0001-01-01T00:00:00+14:00"}, "suppression.topic_since"),
    ({"revocation_scope": "topic", "topic_since": "9999-12-31T23:59:59-14:00"}, "suppression.topic_since"),
    ({"revocation_scope": "sender"}, "suppression.revocation_scope"),
    ({"whatsapp": "email"}, "suppression.whatsapp"),
    ({"whats_app": "phone"}, "suppression.whats_app"),
]


async def test_what_does_not_fit_is_refused_by_its_name(gateway: Running, subtests: pytest.Subtests) -> None:
    await gateway.tenant()
    for suppression, field in REFUSED:
        with subtests.test(suppression=suppression):
            body: dict[str, Any] = {"suppression": suppression}
            patched = await gateway.client.patch(f"{TENANTS}/acme", headers=gateway.admin, json=body)
            gateway.problem(patched, 422, field)
            body |= {"id": "other", "name": "Other", "queue_path": "other"}
            gateway.problem(await gateway.client.post(TENANTS, headers=gateway.admin, json=body), 422, field)
    assert await change(gateway) == DEFAULTS


async def test_a_date_alone_is_refused_with_what_to_send(gateway: Running) -> None:
    await gateway.tenant()
    body = {"suppression": {"topic_since": "2027-02-01T00:00:00Z"}}
    answer = await gateway.client.patch(f"{TENANTS}/acme", headers=gateway.admin, json=body)
    (error,) = gateway.problem(answer, 422)["errors"]
    assert '"revocation_scope": "topic"' in error["fix"]
