"""What waits is in memory by its weight: events of half a megabyte, thousands of them, for endpoints that take none."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_notifier.schedules import RCS, Outcome
from backhaul_notifier.working.weight import Memory
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing.waiting import until
from working_rig import Made, Rig, rigged

LARGE = 200 << 10
MOST, LEAST = 4 << 20, 1 << 20


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


class _Scales:
    """Weighs with each call. The first of each endpoint hang until ``go`` is set, and one in seven fails once."""

    def __init__(self, rig: Rig) -> None:
        self.memory = Memory(MOST, LEAST)
        self.most = 0
        self.go = asyncio.Event()
        self._failed: set[str] = set()
        rig.calls.answer = self._answer

    async def _answer(self, made: Made) -> Outcome:
        self.most = max(self.most, self.memory.used)
        await self.go.wait()
        if made.orders[0] % 7 == 0 and made.webhook_id not in self._failed:
            self._failed.add(made.webhook_id)
            return Outcome(500)
        return Outcome(200)


@pytest.mark.parametrize("kind", ["unordered", "ordered", "one key", "together"])
async def test_what_waits_takes_no_more_memory_than_it_may(rig: Rig, kind: str) -> None:
    subscriptions, number = ["sub_1", "sub_2", "sub_3"], 60
    scales = _Scales(rig)
    for one in subscriptions:
        await rig.subscribe(
            one,
            policy=RCS,
            ordering=pb.ORDERING_MESSAGE if kind in ("ordered", "one key") else pb.ORDERING_NONE,
            payload=pb.Payload(max_events=50, max_wait_s=60) if kind == "together" else None,
        )
        keys = {"ordered": [b"%d" % (at % 20) for at in range(number)], "one key": [b"key"] * number}.get(kind, [])
        await rig.enqueue(*keys, to=one, number=number, says=False, payload=b"\0" * LARGE)
    await rig.copy(memory=scales.memory)
    await rig.calls.until(3)
    await asyncio.sleep(1.0)  # What is read for nobody would be read by now.
    bound = MOST + len(subscriptions) * (LEAST + 16 * LARGE)
    assert scales.memory.used <= bound
    scales.go.set()

    async def all_told() -> bool:
        rig.move(11)  # For what is tried again.
        return not await rig.deliveries.count_documents({"state": "waiting"})

    await until("all is told", all_told, within_s=40.0, pause_s=0.1)
    assert scales.most <= bound
    told = Counter((made.subscription, order) for made in rig.calls.made for order in made.orders)
    assert len(told) == len(subscriptions) * number
    if kind == "together":
        assert max(len(made.deliveries) for made in rig.calls.made) <= (2 << 20) // LARGE + 1
    if kind == "one key":
        by_subscription: defaultdict[str, list[int]] = defaultdict(list)
        for made in rig.calls.made:
            by_subscription[made.subscription] += made.orders
        assert all(orders == sorted(orders) for orders in by_subscription.values())


async def test_an_endpoint_that_is_given_back_weighs_nothing(rig: Rig) -> None:
    scales = _Scales(rig)
    scales.go.set()
    await rig.subscribe(policy=RCS)
    await rig.enqueue(number=30, payload=b"\0" * LARGE)
    copy = await rig.copy(memory=scales.memory)
    await rig.calls.until(10)
    await copy.stop()
    assert scales.memory.used == 0
