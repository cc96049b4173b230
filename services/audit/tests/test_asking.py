"""Which channels ask for audit files."""

from __future__ import annotations

from typing import Any, cast

import pytest
from backhaul_audit import asking
from backhaul_audit.asking import Asking
from backhaul_channels import load_adapters
from backhaul_common.tenants import Tenant
from backhaul_testing import make


class Tenants:
    """Who is heard of, and how often somebody was read."""

    def __init__(self, *tenants: Tenant) -> None:
        self.tenants = {tenant.id: tenant for tenant in tenants}
        self.readings = 0

    def get(self, tenant_id: str) -> Tenant | None:
        return self.tenants.get(tenant_id)

    async def reload(self, tenant_id: str) -> Tenant | None:
        self.readings += 1
        return self.tenants.get(tenant_id)


async def test_what_is_left_of_a_removed_channel_costs_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = make.tenant("acme")
    tenants = Tenants(acme)
    asked = Asking(tenants, load_adapters(), cast(Any, None))
    for _ in range(100):
        assert await asked.of("acme", acme.registration, "removed") is None
    assert tenants.readings == 1
    # Somebody may set it up again.
    monkeypatch.setattr(asking, "MISSED_S", 0.0)
    assert await asked.of("acme", acme.registration, "another") is None
    assert await asked.of("acme", acme.registration, "another") is None
    assert tenants.readings == 3
