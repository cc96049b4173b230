"""For how long a tenant's audit files are kept, through /admin."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_rig import Running

TENANTS = "/admin/v1/tenants"


async def change(gateway: Running, **audit: Any) -> Any:
    answer = await gateway.client.patch(f"{TENANTS}/acme", headers=gateway.admin, json={"audit": audit})
    assert answer.status_code == 200, answer.text
    shown = await gateway.client.get(f"{TENANTS}/acme", headers=gateway.admin)
    assert shown.json() == answer.json()
    return answer.json()["audit"]["retention_days"]


async def test_files_are_kept_for_ever_until_a_tenant_says_otherwise(gateway: Running) -> None:
    await gateway.tenant()
    assert await change(gateway) is None
    # As before the setting was there.
    gateway.tenants.update_one({"_id": "acme"}, {"$unset": {"audit": ""}})
    assert await change(gateway, retention_days=30) == 30
    assert await change(gateway) == 30
    assert await change(gateway, retention_days=None) == 30
    assert await change(gateway, retention_days=0) is None


async def test_a_new_tenant_may_say_it_at_once(gateway: Running) -> None:
    body = {"id": "acme", "name": "Acme", "queue_path": "acme", "audit": {"retention_days": 400}}
    made = await gateway.client.post(TENANTS, headers=gateway.admin, json=body)
    assert made.json()["audit"] == {"retention_days": 400}
    assert await change(gateway) == 400


async def test_what_does_not_fit_is_refused_by_its_name(gateway: Running, subtests: pytest.Subtests) -> None:
    await gateway.tenant()
    for wrong in (-1, 36_501, "a month", 1.5):
        with subtests.test(wrong=wrong):
            body = {"audit": {"retention_days": wrong}}
            patched = await gateway.client.patch(f"{TENANTS}/acme", headers=gateway.admin, json=body)
            gateway.problem(patched, 422, "audit.retention_days")
    assert await change(gateway) is None
