"""Tenants under /admin/v1, on real servers: their lives, their limits, and bodies that say none."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

import pytest
from gateway_rig import Running

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
        "overdraft_callbacks": None,
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
