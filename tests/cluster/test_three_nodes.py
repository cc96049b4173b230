"""Three nodes, two copies, and one of each killed under load: nothing lost, nothing doubled, and for how long it stood
still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from backhaul_local.pytest_plugin import StackFactory
from backhaul_testing import broker, streams
from cluster.nodes import NODES, STREAMS, House, three_nodes
from faults import filed
from faults.receivers import Notified, receiving, tenants_of
from simulators.archive import ask_for_files
from simulators.load import Load
from simulators.people import Town

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

MAX_PAUSE_S = 60.0
"""What the pauses must stay below on any machine; docs/operations.md says what they are."""

POSTS, CALLS = 15, 15
"""So many callbacks are answered, and told to endpoints, while something is away."""

Without = Callable[[str], AbstractAsyncContextManager[None]]


async def test_one_node_of_each_dies_under_load(
    stack_factory: StackFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    faults: dict[str, tuple[datetime, datetime]] = {}
    async with (
        three_nodes(stack_factory) as house,
        Town(house.url, house.stack.admin_token) as town,
        receiving(house.stack, house.copies["notifier"]) as those,
    ):
        stack = house.stack
        notified = Notified(stack, town, those)
        places = await notified.places(("ordered", "batched"))
        tenants = tenants_of(places)
        for tenant in tenants:
            await ask_for_files(town.platform, tenant, with_event=True, gzip=False)

        async with Load(tenants, connections=2) as load:

            @asynccontextmanager
            async def without(what: str) -> AsyncIterator[None]:
                """What is done meanwhile is a fault, in spite of which callbacks are answered, and told."""
                began = datetime.now(UTC)
                yield
                await load.more(POSTS, within_s=MAX_PAUSE_S)
                await those.more(CALLS, within_s=MAX_PAUSE_S)
                faults[what] = began, datetime.now(UTC)

            await those.more(CALLS)
            await _all_on_every_node(house)
            await _break_nats(house, without)
            await _break_mongodb(house, without)
            for name, (copy, _) in house.copies.items():
                async with without(f"a {name} killed"):
                    await stack.kill(copy)
                stack.member(copy).launch()
            for member in stack.services:
                await member.wait_ready()
        await notified.settle(load, places)
        assert await filed.settle(stack, *tenants) > 0
        await _all_on_every_node(house)
        connection = await broker.connect(stack.nats_url)
        try:
            processed = await streams.stored_at(connection)
        finally:
            await connection.close()
    pauses = {
        what: (_longest(load.answered.values(), *span), _longest(processed, *span)) for what, span in faults.items()
    }
    with capsys.disabled():
        print("\nLongest pauses in seconds: between answers of 200, and between messages on EVENTS")  # noqa: T201  # figures
        for what, (answers, events) in pauses.items():
            print(f"  {what:24} {answers:5.1f} {events:5.1f}")  # noqa: T201  # as above
    assert max(max(pair) for pair in pauses.values()) < MAX_PAUSE_S


async def _break_nats(house: House, without: Without) -> None:
    """Kill one server, freeze another, kill the third, each when all have everything again: one of them leads JetStream
    itself."""
    stack = house.stack
    left = {server.name for server in stack.nats_servers}
    first = await house.leader("CALLBACKS")
    async with without("a nats-server killed"):
        await stack.kill(first)
        await house.moved("CALLBACKS", first)
    await stack.member(first).start()
    left.remove(first)
    second = await house.leader("EVENTS")
    assert second in left, "leadership came back by itself"
    async with without("a nats-server frozen"):
        stack.member(second).pause()
        await house.moved("EVENTS", second)
    stack.member(second).resume()
    left.remove(second)
    await house.leader("CALLBACKS")
    [third] = left
    async with without("another one killed"):
        await stack.kill(third)
    await stack.member(third).start()
    await house.leader("CALLBACKS")


async def _break_mongodb(house: House, without: Without) -> None:
    stack = house.stack
    primary, _ = await house.mongods()
    async with without("the primary killed"):
        await stack.kill(primary)
    await stack.member(primary).start()
    _, (secondary, _) = await house.mongods()
    async with without("a secondary frozen"):
        stack.member(secondary).pause()
    stack.member(secondary).resume()
    await house.mongods()


async def _all_on_every_node(house: House) -> None:
    """As the servers themselves say it."""
    replicas = await house.replicas()
    assert replicas.keys() >= STREAMS
    assert {"CALLBACKS/normalizer", "EVENTS/suppression"} <= replicas.keys()
    assert set(replicas.values()) == {NODES}, replicas


def _longest(times: Iterable[datetime], began: datetime, ended: datetime) -> float:
    """The longest time between two of ``times`` from ``began`` to ``ended``, in seconds."""
    within = sorted(time for time in times if began < time < ended)
    return max((after - before).total_seconds() for before, after in pairwise([began, *within, ended]))
