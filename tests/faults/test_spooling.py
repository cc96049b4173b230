"""NATS away or full for the whole of a load, and a gateway that is killed meanwhile: all that was answered counts,
once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from backhaul_common.names import CALLBACKS_STREAM
from backhaul_testing import broker
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from faults.account import settle, spooled
from simulators.load import Load
from simulators.people import Town

if TYPE_CHECKING:
    from backhaul_local.stack import Stack

pytestmark = pytest.mark.faults

PERSON = "+15005550123"

LARGE = 60_000
"""Bytes of a callback of which a few fill the spool."""


async def _all_taken(load: Load, posts: int) -> None:
    """So many more posts are taken, and no answer is a no. (A gateway that is not ready yet says that it is not.)"""
    before = _refused(load)
    await load.more(posts, within_s=60)
    assert _refused(load) == before


def _refused(load: Load) -> int:
    return sum(count for outcome, count in load.failures.items() if isinstance(outcome, int))


async def test_nats_hangs_and_nobody_hears_no(breakable: Stack) -> None:
    stack = breakable
    async with Town(stack.gateway_url, stack.admin_token) as town:
        tenants = await town.platform.register(), await town.platform.register()
        async with Load(tenants) as load:
            await load.more(50)
            stack.member("nats").pause()
            await load.more(300, within_s=90)
            assert await spooled(stack) > 200
            stack.member("nats").resume()
            await load.more(100, within_s=60)
        assert not load.failures
        figures = await settle(stack, load, *tenants)
        assert figures.events > 450


@asynccontextmanager
async def _full(stack: Stack) -> AsyncIterator[None]:
    """The callback log takes nothing more meanwhile."""
    connection = await broker.connect(stack.nats_url)
    js = connection.jetstream()
    info = await js.stream_info(CALLBACKS_STREAM)
    await js.update_stream(info.config, max_msgs=max(1, info.state.messages))
    try:
        yield
    finally:
        await js.update_stream(info.config)
        await connection.close()


async def test_nats_is_full_and_nobody_hears_no_before_the_spool_is(breakable: Stack) -> None:
    stack = breakable
    async with Town(stack.gateway_url, stack.admin_token) as town:
        tenants = await town.platform.register(), await town.platform.register()
        greedy = await town.platform.register()
        taken, status, retry_after = [], 200, ""
        async with Load(tenants) as load:
            await load.more(50)
            async with _full(stack):
                await _all_taken(load, 200)
                assert await spooled(stack) > 100
                while status == 200:
                    sid = new_sid()
                    answer = await greedy.send(
                        greedy.twilio.status(greedy.address("Twilio"), sid, "sent", Padding="x" * LARGE)
                    )
                    status, retry_after = answer.status_code, answer.headers.get("retry-after", "")
                    taken += [sid] * (status == 200)
                assert (status, retry_after.isdecimal()) == (503, True), answer.text
                # Its share, which is half of it where nobody else has much.
                assert len(taken) > (4 << 20) // LARGE
                # Others have room.
                await _all_taken(load, 50)
            await load.more(50)
        assert not load.failures
        figures = await settle(stack, load, *tenants)
        assert figures.events > 300
        assert sorted(row.message_id for row in await greedy.events(page_size=500)) == sorted(taken)
        # Now it is taken, and as whoever comes again would have it, counts once.
        await greedy.receive(*[greedy.twilio.status(greedy.address("Twilio"), sid, "sent") for _ in range(2)])
        assert (await greedy.message_with("twilio", sid, 1)).event_count == 1


async def test_the_gateway_is_killed_while_nats_is_away(breakable: Stack) -> None:
    stack = breakable
    async with Town(stack.gateway_url, stack.admin_token) as town:
        tenants = await town.platform.register(), await town.platform.register()
        async with Load(tenants) as load:
            await load.more(50)
            await stack.kill("nats")
            for _ in range(2):
                await _all_taken(load, 100)
                await stack.kill("gateway")
                await load.failing(3)
                # It knows its tenants from MongoDB, and what it had kept from its disk.
                await stack.member("gateway").start()
            await _all_taken(load, 50)
            await stack.member("nats").start()
            # And while what it has kept goes on its way.
            await stack.kill("gateway")
            await stack.member("gateway").start()
            await _all_taken(load, 100)
        figures = await settle(stack, load, *tenants)
        assert figures.events > 450


async def test_a_stop_that_comes_over_the_rate_is_heard_after_a_kill_too(breakable: Stack) -> None:
    stack = breakable
    async with Town(stack.gateway_url, stack.admin_token) as town:
        # So slow that nothing is added meanwhile.
        tenant = await town.platform.register(limits={"requests_per_second": 0.01, "burst": 2})
        sids = [new_sid() for _ in range(5)]
        await tenant.receive(*(tenant.twilio.status(tenant.address("Twilio"), sid, "sent") for sid in sids))
        await tenant.receive(tenant.reply(PERSON, "STOP"))
        held = (await tenant.client.channel_status("Twilio")).parts.held
        assert held is not None
        assert (held.state, held.callbacks, bool(held.since)) == ("OK", 4, True)
        await stack.kill("gateway")
        await stack.member("gateway").start()
        await town.platform.client.change_tenant(tenant.id, limits={"requests_per_second": 1000, "burst": 1000})

        async def suppressed() -> bool:
            return not (await tenant.client.check(PERSON)).allowed

        await until("the STOP to be heard", suppressed)
        for sid in sids:
            assert (await tenant.message_with("twilio", sid, 1)).event_count == 1
