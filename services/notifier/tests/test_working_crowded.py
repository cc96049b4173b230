"""More endpoints than places, more calls than connections: who hangs, rests or waits keeps nobody from being told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_notifier.schedules import RCS, Outcome
from backhaul_testing.waiting import until
from working_rig import Made, Rig, rigged


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


class Hanging:
    """Endpoints whose names begin so do not answer before they are released."""

    def __init__(self, rig: Rig) -> None:
        self.released = asyncio.Event()
        rig.calls.answer = self.answer

    async def answer(self, made: Made) -> Outcome:
        if made.subscription.startswith("sub_hangs"):
            await self.released.wait()
        return Outcome(200)


@pytest.mark.timed
async def test_endpoints_that_hang_hold_no_place(rig: Rig) -> None:
    hanging = Hanging(rig)
    names = [f"sub_hangs{number}" for number in range(12)]
    for number, name in enumerate(names):
        await rig.subscribe(name, tenant=f"slow{number}", concurrency=1)
        await rig.enqueue(to=name, number=3)
    copy = await rig.copy(most=4, connections=1000)
    # More are worked than there are places, as soon as those before them hang.
    await rig.calls.until(12, within_s=30.0)
    assert copy.working.held == 12
    await rig.subscribe("sub_quick", tenant="free")
    for number in range(1, 6):
        await rig.enqueue(to="sub_quick", number=20)
        await rig.until_none_waits("sub_quick", within_s=3.0)
        assert len(rig.calls.orders("sub_quick")) == 20 * number
    hanging.released.set()
    await rig.until_none_waits()


async def test_endpoints_whose_tenant_has_no_connection_left_hold_no_place(rig: Rig) -> None:
    hanging = Hanging(rig)
    for number in range(30):
        await rig.subscribe(f"sub_hangs{number}", tenant="slow")
        await rig.enqueue(to=f"sub_hangs{number}", number=10)
    await rig.copy(most=4, connections=20)
    await rig.calls.until(10, within_s=20.0)
    await rig.subscribe("sub_quick", tenant="free")
    for _ in range(3):
        await rig.enqueue(to="sub_quick", number=20)
        await rig.until_none_waits("sub_quick", within_s=60)
    assert len(rig.calls.made) == 10 + 60
    hanging.released.set()
    await rig.until_none_waits(within_s=30.0)


@pytest.mark.timed
async def test_endpoints_that_rest_hold_no_place(rig: Rig) -> None:
    rig.calls.answer = lambda made: Outcome(503 if made.subscription.startswith("sub_fails") else 200)
    for number in range(10):
        await rig.subscribe(f"sub_fails{number}", tenant=f"bad{number}", policy=RCS)
        await rig.enqueue(to=f"sub_fails{number}", number=20)
    await rig.copy(most=3)

    async def all_failed() -> bool:
        return all(len(rig.calls.orders(f"sub_fails{number}")) >= 10 for number in range(10))

    await until("each has failed ten times", all_failed, within_s=30.0)
    await rig.subscribe("sub_quick", tenant="free")
    await rig.enqueue(to="sub_quick", number=20)
    await rig.until_none_waits("sub_quick", within_s=5.0)


async def test_one_endpoint_that_hangs_slows_no_other_of_its_tenant(rig: Rig) -> None:
    hanging = Hanging(rig)
    await rig.subscribe("sub_hangs", concurrency=64)
    await rig.enqueue(to="sub_hangs", number=100)
    await rig.copy(connections=40)
    await rig.calls.until(10)
    await rig.subscribe("sub_quick")
    await rig.enqueue(to="sub_quick", number=100)
    await rig.until_none_waits("sub_quick", within_s=60)
    hanging.released.set()
    await rig.until_none_waits()
