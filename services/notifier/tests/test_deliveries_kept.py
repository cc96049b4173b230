"""For how long what is over is kept: by the tenant's own retention where that is shorter than the installation's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from backhaul_common.directory import TenantDirectory
from backhaul_common.documents import Document
from backhaul_common.tenants import Retention, Tenant
from backhaul_notifier.app import _days, _shorter
from backhaul_notifier.deliveries import keeping
from backhaul_notifier.deliveries.keeping import Keeping
from backhaul_notifier.schedules import RCS, Outcome
from backhaul_testing import make
from working_rig import REGISTRATION, SECOND_US, Rig, rigged

DAY_S = 86_400


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


@dataclass
class Known:
    """The tenants in memory."""

    tenant: Tenant | None

    @property
    def tenants(self) -> dict[str, Tenant]:
        return {self.tenant.id: self.tenant} if self.tenant is not None else {}

    def get(self, id_: str) -> Tenant | None:
        return self.tenant if self.tenant is not None and self.tenant.id == id_ else None


def days(retention: Retention | None, registration: str = "acme.1", most: float = 30.0) -> float:
    tenant = None
    if retention is not None:
        tenant = make.tenant("acme").model_copy(update={"retention": retention})
    return _days(cast(TenantDirectory, Known(tenant)), most, registration)


def test_the_shortest_time_counts() -> None:
    assert days(Retention()) == 30.0
    assert days(Retention(event_retention_days=7)) == 7
    assert days(Retention(address_retention_days=3)) == 3
    assert days(Retention(event_retention_days=7, address_retention_days=3)) == 3
    assert days(Retention(event_retention_days=90)) == 30.0
    # That of messages says nothing of what was told.
    assert days(Retention(message_retention_days=1)) == 30.0
    # Another life of the tenant's id, and one that is gone.
    assert days(Retention(event_retention_days=7), "acme.2") == 30.0
    assert days(None) == 30.0


async def test_it_ends_by_its_registration_and_what_waits_does_not(rig: Rig) -> None:
    rig.calls.answer = lambda made: Outcome(200 if made.orders[0] == 1 else 500)
    await rig.subscribe(policy=RCS, concurrency=1)
    told, waits = await rig.enqueue(number=2)
    await rig.copy(days=lambda registration: 2.5 if registration.startswith("acme.") else 1.0)
    row = await rig.until_row(told, state="delivered")
    assert row["ends_at"].timestamp() == pytest.approx(row["ended_at_us"] / SECOND_US + 2.5 * DAY_S, abs=1)
    assert "ends_at" not in await rig.until_row(waits, attempts=1)


def test_who_keeps_it_for_less() -> None:
    tenant = make.tenant("acme").model_copy(update={"retention": Retention(address_retention_days=3)})
    known = cast(TenantDirectory, Known(tenant))
    assert _shorter(known, 30.0) == {tenant.registration: 3}
    assert _shorter(known, 2.0) == {}
    assert _shorter(cast(TenantDirectory, Known(make.tenant("acme"))), 30.0) == {}


async def test_who_shortens_it_keeps_nothing_of_before_for_longer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "SLICE", 2)
    now_us, day_us = rig.clock.now_us(), DAY_S * SECOND_US
    await rig.subscribe()

    def at(days_ago: float, state: str, ended_days_ago: float = 0, **more: Any) -> Document:
        ended = {"ended_at_us": now_us - round(ended_days_ago * day_us)} if ended_days_ago else {}
        return {"created_at_us": now_us - round(days_ago * day_us), "state": state, **ended, **more}

    for state in ("delivered", "failed"):
        await rig.enqueue(number=3, **at(20, state, 7.1))
    kept = [
        *await rig.enqueue(**at(20, "delivered", 6.9)),
        *await rig.enqueue(**at(6.9, "failed", 6.8)),
        *await rig.enqueue(**at(20, "waiting")),
        *await rig.enqueue(**at(20, "held")),
        *await rig.enqueue(**at(20, "delivered", 10, registration="other.1")),
    ]
    await Keeping(rig.database, lambda: {REGISTRATION: 7.0, "other.1": 12.0}, rig.clock.now_us).once()
    assert set(await rig.deliveries.distinct("_id")) == set(kept)
