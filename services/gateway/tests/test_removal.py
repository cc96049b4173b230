"""The second half of a deletion, with a clock of its own: how long it waits, what it purges, what delays it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from backhaul_common.errors import unavailable
from backhaul_common.lifecycle import cancel
from backhaul_common.tenants import Tenant
from backhaul_gateway.admin import removal as removal_module
from backhaul_gateway.admin.removal import MARGIN_S, TenantRemoval, longest_transaction_s
from structlog.testing import capture_logs

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MARKED = Tenant(
    id="acme",
    registration="acme.1",
    name="Acme",
    queue_path="Acme",
    status="deleting",
    deleting_since=NOW,
    revision=2,
    created_at=NOW,
    updated_at=NOW,
)
SUCCESSOR = MARKED.model_copy(
    update={"registration": "acme.2", "status": "active", "deleting_since": None, "revision": 1}
)


@dataclass
class World:
    """Everything that a removal needs, and a clock that runs faster."""

    tenants: dict[str, Tenant] = field(default_factory=lambda: {"acme": MARKED})
    lifetime_s: float = 60.0
    away: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    purged_at: float = 0.0
    tries: int = 0
    """How often something was asked that is away."""
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    frozen_s: tuple[float, float] = (0.0, 0.0)
    """From when to when the store does not answer."""

    def clock(self) -> float:
        return (asyncio.get_running_loop().time() - self.began) * FASTER

    async def _answers(self, part: str) -> None:
        await asyncio.sleep(0)
        if part in self.away:
            self.tries += 1
            raise unavailable(part)

    # A TenantStore, as far as it is used.

    async def insert(self, tenant: Tenant) -> None:
        self.tenants[tenant.id] = tenant

    async def find(self, tenant_id: str) -> Tenant | None:
        await self._answers("store")
        while self.frozen_s[0] <= self.clock() < self.frozen_s[1]:
            await asyncio.sleep(0.001)
        return self.tenants.get(tenant_id)

    async def owner_of(self, credential_id: str) -> str | None:
        raise AssertionError

    async def page(self, after: str, limit: int) -> list[Tenant]:
        raise AssertionError

    async def replace(self, tenant: Tenant, revision: int) -> bool:
        raise AssertionError

    async def delete(self, tenant: Tenant) -> bool:
        await self._answers("store")
        if self.tenants.get(tenant.id) != tenant:
            return False
        del self.tenants[tenant.id]
        self.log.append(f"forget {tenant.registration}")
        return True

    async def transaction_lifetime_s(self) -> float:
        return self.lifetime_s

    async def tenant_changed(self, tenant_id: str) -> None:
        self.log.append(f"announce {tenant_id}")


@dataclass
class Streams:
    """TenantStreams, as far as they are used."""

    world: World

    async def ends(self) -> Mapping[str, int]:
        await self.world._answers("streams")
        return {"CALLBACKS": 7, "EVENTS": 0}

    async def purge(self, tenant: Tenant, ends: Mapping[str, int]) -> None:
        await self.world._answers("streams")
        self.world.log.append(f"purge {tenant.registration} up to {ends['CALLBACKS']}")

    async def holds_messages(self, tenant: Tenant) -> bool:
        raise AssertionError

    async def last_callback_at(self, tenant: Tenant, channel: str) -> datetime | None:
        raise AssertionError

    async def held(self, tenant: Tenant, channel: str) -> int:
        raise AssertionError

    async def check(self) -> None:
        raise AssertionError

    async def check_room(self) -> None:
        raise AssertionError


@dataclass
class Data:
    """TenantData, as far as it is used."""

    world: World

    async def usage(self, tenant: Tenant) -> Mapping[str, int]:
        raise AssertionError

    async def purge(self, tenant: Tenant) -> None:
        await self.world._answers("normalizer")
        self.world.purged_at = self.world.clock()
        self.world.log.append(f"purge {tenant.registration}")


FASTER = 200
WHOLE = ["purge acme.1 up to 7", "purge acme.1", "forget acme.1", "announce acme"]


@pytest.fixture(autouse=True)
def _faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOK_S", "_MAX_PAUSE_S"):
        monkeypatch.setattr(removal_module, name, getattr(removal_module, name) / FASTER)
    # On a busy machine this event loop stands still for longer than 15 ms now and then.
    monkeypatch.setattr(removal_module, "_STEADY_S", 0.1 * FASTER)


class Running:
    """``async with Running(world) as removal``: one copy of the gateway."""

    def __init__(self, world: World) -> None:
        self.removal = TenantRemoval(
            world, Streams(world), Data(world), world, world.transaction_lifetime_s, world.clock
        )

    async def __aenter__(self) -> TenantRemoval:
        self._task = asyncio.create_task(self.removal.run())
        return self.removal

    async def __aexit__(self, *_: object) -> None:
        await cancel(self._task)


async def gone(removal: TenantRemoval) -> None:
    async with asyncio.timeout(60):
        while removal.waiting:  # a number that tests and a metric read
            await asyncio.sleep(0.001)


async def tried(world: World, times: int) -> None:
    async with asyncio.timeout(60):
        while world.tries < times:  # a number that only tests read
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("lifetime_s", "longest_s"), [(1, 2), (2, 3), (10, 15), (60, 90), (300, 360)])
def test_how_long_a_transaction_can_last(lifetime_s: float, longest_s: float) -> None:
    assert longest_transaction_s(lifetime_s) == longest_s


@pytest.mark.parametrize("lifetime_s", [1.0, 10.0, 60.0])
async def test_a_purge_waits_for_transactions_that_began_before_the_mark(lifetime_s: float) -> None:
    world = World(lifetime_s=lifetime_s)
    async with Running(world) as removal:
        removal.changed("acme", MARKED)
        assert removal.waiting == 1
        await gone(removal)
    assert world.log == WHOLE
    assert world.purged_at >= longest_transaction_s(lifetime_s) + MARGIN_S


async def test_a_limit_that_is_lowered_meanwhile_does_not_hold_for_what_began_before() -> None:
    world = World(lifetime_s=100.0)
    async with Running(world) as removal:
        removal.changed("acme", MARKED)
        async with asyncio.timeout(60):
            while world.clock() < 20:
                await asyncio.sleep(0.001)
        world.lifetime_s = 1.0
        await gone(removal)
    assert world.purged_at >= longest_transaction_s(100.0) + MARGIN_S


async def test_a_store_that_stood_still_is_given_time_to_end_what_is_over() -> None:
    # The thread that ends transactions stood still with it: an old commit may come through as soon as it goes on.
    world = World(lifetime_s=10.0, frozen_s=(2.0, 40.0))
    async with Running(world) as removal:
        removal.changed("acme", MARKED)
        await gone(removal)
    assert world.purged_at >= 40.0 + 5.0 + MARGIN_S


async def test_only_what_is_marked_is_removed() -> None:
    world = World(tenants={"acme": SUCCESSOR})
    async with Running(world) as removal:
        removal.changed("acme", SUCCESSOR)
        removal.changed("acme", SUCCESSOR.model_copy(update={"status": "suspended"}))
        removal.changed("acme", None)
        assert not removal.waiting


async def test_whoever_has_the_id_since_keeps_everything() -> None:
    world = World(lifetime_s=1.0)
    async with Running(world) as removal:
        removal.changed("acme", MARKED)
        world.tenants["acme"] = SUCCESSOR
        await gone(removal)
    assert world.log == []
    assert world.tenants == {"acme": SUCCESSOR}


async def test_a_copy_that_slept_before_it_purged_touches_nothing_of_the_successor() -> None:
    world = World(lifetime_s=1.0)
    asked, woken = asyncio.Event(), asyncio.Event()

    class Sleeping(Streams):
        async def ends(self) -> Mapping[str, int]:
            ends = await super().ends()
            asked.set()
            await woken.wait()
            return ends

    slept = TenantRemoval(world, Sleeping(world), Data(world), world, world.transaction_lifetime_s, world.clock)
    sleeping = asyncio.create_task(slept.run())
    try:
        slept.changed("acme", MARKED)
        async with Running(world) as other:
            other.changed("acme", MARKED)
            await gone(other)
            await asked.wait()
            assert world.log == WHOLE
            world.tenants["acme"] = SUCCESSOR
            woken.set()
            await gone(slept)
    finally:
        await cancel(sleeping)
    assert world.log == WHOLE


async def test_several_copies_at_once_do_no_harm() -> None:
    world = World(lifetime_s=1.0)
    async with AsyncExitStack() as stack:
        copies = [await stack.enter_async_context(Running(world)) for _ in range(3)]
        for copy in copies:
            copy.changed("acme", MARKED)
        for copy in copies:
            await gone(copy)
    assert [line for line in world.log if line.startswith(("forget", "announce"))] == WHOLE[2:]
    assert set(world.log) == set(WHOLE)


async def test_a_change_while_it_is_being_purged_does_not_keep_the_tenant() -> None:
    world = World(lifetime_s=1.0)

    class Meanwhile(Data):
        async def purge(self, tenant: Tenant) -> None:
            if tenant.revision == 2:
                world.tenants["acme"] = MARKED.model_copy(update={"revision": 3, "credentials": ()})
            await super().purge(tenant)

    removal = TenantRemoval(world, Streams(world), Meanwhile(world), world, world.transaction_lifetime_s, world.clock)
    running = asyncio.create_task(removal.run())
    try:
        removal.changed("acme", MARKED)
        await gone(removal)
    finally:
        await cancel(running)
    assert world.tenants == {}


@pytest.mark.parametrize("part", ["store", "streams", "normalizer"])
async def test_what_is_away_delays_a_removal_and_is_said_once(part: str) -> None:
    world = World(lifetime_s=1.0, away={part})
    with capture_logs() as lines:
        async with Running(world) as removal:
            removal.changed("acme", MARKED)
            await tried(world, 12)
            assert removal.waiting == 1
            assert world.tenants == {"acme": MARKED}
            world.away.clear()
            await gone(removal)
    assert world.tenants == {}
    assert set(WHOLE) <= set(world.log)
    said = [(line["event"], line["log_level"]) for line in lines]
    assert said == [("tenant_removal_delayed", "warning"), ("tenant_removed", "info")]
    assert {(line["tenant"], line["registration"]) for line in lines} == {("acme", "acme.1")}


async def test_a_run_that_ended_goes_on_with_what_it_had() -> None:
    world = World(lifetime_s=1.0, away={"normalizer"})
    running = Running(world)
    async with running as removal:
        removal.changed("acme", MARKED)
        await tried(world, 1)
    world.away.clear()
    assert world.tenants == {"acme": MARKED}
    async with running as removal:
        await gone(removal)
    assert world.tenants == {}


async def test_an_error_that_nobody_expected_is_no_end() -> None:
    world = World(lifetime_s=1.0)
    failures = [ValueError("odd")]

    class Odd(Data):
        async def purge(self, tenant: Tenant) -> None:
            if failures:
                raise failures.pop()
            await super().purge(tenant)

    removal = TenantRemoval(world, Streams(world), Odd(world), world, world.transaction_lifetime_s, world.clock)
    running = asyncio.create_task(removal.run())
    try:
        removal.changed("acme", MARKED)
        await gone(removal)
    finally:
        await cancel(running)
    assert world.tenants == {}
