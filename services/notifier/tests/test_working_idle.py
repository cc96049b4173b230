"""What an endpoint has nothing to do for is given back, and what is tried again meanwhile is not forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_notifier.model import Delivery
from backhaul_notifier.schedules import Outcome
from backhaul_notifier.working.sources import AHEAD_US, Unordered
from backhaul_notifier.working.weight import Memory, Weight
from backhaul_testing.waiting import until
from working_rig import Rig, rigged


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


async def test_an_endpoint_is_given_back_when_it_has_had_nothing_to_do_for_a_while(rig: Rig) -> None:
    rig.calls.answer = lambda _: Outcome(200)
    await rig.subscribe()
    await rig.enqueue(number=20)
    copy = await rig.copy(hold_s=0.3)
    await rig.until_none_waits()

    async def given_back() -> bool:
        row = await rig.endpoints.find_one({"_id": "sub_1"})
        return not copy.working.held and row is not None and not row["owner"] and "due_at_us" not in row

    await until("it is given back", given_back)
    assert len(rig.calls.made) == 20


async def test_what_is_written_down_during_a_read_is_tried_again_at_its_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.subscribe()
    await rig.enqueue(number=2)
    source, now_us = Unordered(rig.database, "sub_1", Weight(Memory())), rig.clock.now_us()
    first, second = await source.read(now_us)
    retry_at_us = now_us + AHEAD_US // 2

    async def fails(delivery: Delivery, retry_at_us: int) -> None:
        change = {"$set": {"due_at_us": retry_at_us}, "$inc": {"attempts": 1}}
        await rig.deliveries.update_one({"_id": delivery.id}, change)
        source.ended(delivery, retry_at_us)

    page = source._page

    async def overtaken(until_us: int) -> tuple[list[Delivery], bool]:
        found = await page(until_us)
        await fails(first, retry_at_us)
        return found

    await fails(second, now_us)
    monkeypatch.setattr(source, "_page", overtaken)
    assert [one.id for one in await source.read(now_us)] == [second.id]
    assert source.next_at_us == retry_at_us
    monkeypatch.undo()
    assert [one.id for one in await source.read(retry_at_us)] == [first.id]
