"""Tenants that keep things for a while, and the end of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from backhaul_common.directory import TenantDirectory, TenantDocuments
from backhaul_common.metering import Metrics
from backhaul_common.names import TENANTS_COLLECTION
from backhaul_common.tenants import Retention as Kept
from backhaul_common.tenants import Tenant
from backhaul_normalizer.model import DAY_US
from backhaul_normalizer.retained import Retained
from backhaul_normalizer.retention import Retention
from backhaul_testing import make
from normalizer_rig import Rig


def keeping(name: str = "acme", **days: int) -> Tenant:
    """A tenant with these days of retention: ``event``, ``message``, ``address``."""
    kept = Kept(**{f"{what}_retention_days": number for what, number in days.items()})
    return make.tenant(name).model_copy(update={"queue_path": name, "retention": kept})


@dataclass
class Copy:
    """One copy's retention, at a time of its own."""

    retention: Retention
    retained: Retained
    tenants: TenantDirectory

    async def look(self) -> None:
        for name in list(self.tenants.tenants) or ["acme", "globex"]:
            await self.tenants.reload(name)
        await self.retention.look()


def copy_of(rig: Rig, *, in_days: float = 0.0) -> Copy:
    """A copy whose clock is so many days ahead."""

    def clock_us() -> int:
        return time.time_ns() // 1000 + round(in_days * DAY_US)

    tenants = TenantDirectory(TenantDocuments(rig.database[TENANTS_COLLECTION]))
    retained = Retained(rig.database, clock_us)
    return Copy(
        Retention(rig.database, tenants, retained, Metrics("test"), clock_us),
        retained,
        tenants,
    )


async def end_all(rig: Rig, *, in_days: float) -> Copy:
    """What is due in so many days is ended."""
    copy = copy_of(rig, in_days=in_days)
    await copy.look()
    return copy


async def number(rig: Rig, collection: str, **query: Any) -> int:
    return await rig.database[collection].count_documents(query)
