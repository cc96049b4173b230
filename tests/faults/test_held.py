"""A channel that is held while the normalizer is killed: what was answered 200 is there once when it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
from backhaul_testing.waiting import until
from faults.account import drained, settle
from simulators.load import Load
from simulators.people import Tenant, Town

if TYPE_CHECKING:
    from backhaul_local.stack import Stack

pytestmark = pytest.mark.faults

CHANNELS = ("Twilio", "SendGrid")

CONNECTIONS = 3
"""Callbacks flow on while a normalizer starts, five times, and what flows on has to be read and checked. With more of
them a busy machine starts it later, and has the more to check."""


async def _set(town: Town, tenant: Tenant, processing: Literal["on", "held"]) -> None:
    for label in CHANNELS:
        channel = await town.platform.client.put_channel(tenant.id, label, processing=processing)
        assert (channel.processing, channel.held_since is None) == (processing, processing == "on")


async def _held(tenant: Tenant) -> int:
    parts = [(await tenant.client.channel_status(label)).parts.processing for label in CHANNELS]
    assert [part.state for part in parts] == ["OK", "OK"]
    return sum(part.held_messages or 0 for part in parts)


async def _killed(stack: Stack) -> None:
    await stack.kill("normalizer")
    await stack.start_services("normalizer")


async def test_the_normalizer_is_killed_while_channels_are_held_and_while_they_resume(
    breakable: Stack,
) -> None:
    stack = breakable
    async with Town(stack.gateway_url, stack.admin_token) as town:
        held, other = await town.platform.register(), await town.platform.register()
        await _set(town, held, "held")
        async with Load((held, other), connections=CONNECTIONS) as load:
            for _ in range(3):
                await load.more(100)
                await _killed(stack)
            await load.more(50)
            assert not load.failures
            assert await other.events(page_size=500)
            assert await held.events() == []
            before = await _held(held)
            assert before
            await _set(town, held, "on")
            await _killed(stack)
            await load.more(50)
            await _set(town, held, "held")
            await _killed(stack)
            await load.more(50)
        await drained(stack)
        await _set(town, held, "on")

        async def resumed() -> bool:
            return not await _held(held)

        await until("the end of what is held", resumed)
        figures = await settle(stack, load, held, other)
        assert figures.events > before


async def test_a_tenant_is_deleted_while_its_channels_are_held(town: Town, installation: Stack) -> None:
    held, other = await town.platform.register(), await town.platform.register()
    await _set(town, held, "held")
    async with Load((held, other)) as load:
        await load.more(100)
    await drained(installation)
    assert await _held(held)
    await town.platform.delete(held)
    again = await town.platform.register(tenant_id=held.id, queue_path=held.queue_path)
    assert await _held(again) == 0
    assert await again.events() == []
    assert {row.id for row in await other.events(page_size=500)}
