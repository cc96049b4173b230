"""A replay whose normalizers are killed: another one goes on, and what they stored and told is there once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_testing import broker, streams
from backhaul_testing.mapped import MPulseSimulator, new_id
from backhaul_testing.waiting import until
from faults.account import drained
from faults.copies import SECOND
from simulators.people import Tenant, Town

if TYPE_CHECKING:
    from backhaul_client.replaymodels import Replay
    from backhaul_local.stack import Stack

pytestmark = pytest.mark.faults

CALLBACKS = 600
AT_ONCE = 3
"""The more come at once, the more lie in one message of the stream, and the fewer pages there are to be killed in."""

MAPPING: dict[str, Any] = {
    "mapping": {"message_id": "data.ref", "status": "data.outcome"},
    "statuses": {"arrived": "delivered"},
}


async def _send(tenant: Tenant, ids: list[str]) -> None:
    mpulse, address = MPulseSimulator(), tenant.address("mPulse")
    for start in range(0, len(ids), AT_ONCE):
        posts = [mpulse.json(address, {"data": {"ref": id_, "outcome": "arrived"}}) for id_ in ids[start:][:AT_ONCE]]
        await tenant.receive(*posts)


async def test_normalizers_are_killed_in_the_middle_and_nothing_is_stored_or_told_twice(
    breakable_folding: Stack,
) -> None:
    stack = breakable_folding
    async with Town(stack.gateway_url, stack.admin_token) as town:
        tenant, other = await town.platform.register(), await town.platform.register()
        began = datetime.now(UTC) - timedelta(minutes=1)
        for one in (tenant, other):
            await town.platform.client.put_channel(one.id, "mPulse")
            await _send(one, ids := [new_id("m") for _ in range(CALLBACKS if one is tenant else 3)])
            await drained(stack)
            assert await one.events() == []
            await town.platform.client.put_channel(one.id, "mPulse", settings=MAPPING)
            if one is tenant:
                expected = set(ids)
        replays = tenant.client.replays
        begun = await replays.begin("mPulse", from_=began)

        async def beyond(percent: int) -> Replay:
            async def probe() -> Replay | None:
                found = await replays.get(begun.id)
                return found if found.percent > percent or found.ended_at is not None else None

            return await until(f"more than {percent} % of the replay", probe)

        found, kills = await beyond(0), 0
        for name in ("normalizer", SECOND, "normalizer"):
            if found.ended_at is None:
                await stack.kill(name)
                kills += 1
                await stack.member(name).start()
                found = await beyond(found.percent)
        assert kills, "it was over before anything was killed"
        while found.ended_at is None:
            found = await beyond(found.percent)
        assert (found.state, found.counts.callbacks, found.counts.new) == ("done", CALLBACKS, CALLBACKS)
        assert {row.message_id async for row in tenant.client.messages(page_size=500)} == expected
        assert {row.state async for row in tenant.client.messages(page_size=500)} == {"delivered"}
        assert await other.events() == []
        connection = await broker.connect(stack.nats_url)
        try:
            told = await streams.published_together(connection)
        finally:
            await connection.close()
        times: Counter[tuple[str, bool]] = Counter(
            (event.message_id, again) for again, events in told for event in events if event.tenant_id == tenant.id
        )
        assert {message_id for message_id, _ in times} == expected
        # Whoever goes on cannot know what was told, and marks what it tells once more.
        assert {count for (_, again), count in times.items() if not again} == {1}
        await asyncio.gather(*(stack.member(name).wait_ready() for name in ("normalizer", SECOND)))
