"""What counts against an endpoint, and since when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from backhaul_notifier.schedules import RCS, Outcome
from backhaul_notifier.working.breaker import FAILURES
from backhaul_testing.waiting import until
from working_rig import SECOND_US, Rig, rigged


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


async def test_who_was_resumed_has_the_whole_time_again(rig: Rig) -> None:
    rig.calls.answer = lambda _: Outcome(500)
    subscription = await rig.subscribe(policy=RCS)
    await rig.endpoints.update_one({"_id": "sub_1"}, {"$set": {"failing_since_us": 1}})
    resumed_us = rig.clock.now_us() - 1800 * SECOND_US
    await rig.subscriptions.put(replace(subscription, state_since_us=resumed_us))
    (id_,) = await rig.enqueue()
    await rig.copy(pause_after_s=3600)
    await rig.until_row(id_, attempts=1)
    rig.move(11)
    await rig.until_row(id_, attempts=2)
    assert not rig.subscriptions.decided
    rig.move(1800)

    async def decided() -> bool:
        return bool(rig.subscriptions.decided)

    await until("it is paused", decided)


async def test_what_fails_on_our_side_has_no_endpoint_rest(rig: Rig) -> None:
    """A proxy that is away for a moment would keep the endpoint from being called for a minute."""
    rig.calls.answer = lambda made: Outcome(error="proxy_failed") if made.orders[0] <= 2 * FAILURES else Outcome(200)
    await rig.subscribe(concurrency=1)
    ids = await rig.enqueue(number=2 * FAILURES + 1)
    copy = await rig.copy()
    await rig.until_row(ids[-1], state="delivered")
    assert rig.calls.orders() == list(range(1, 2 * FAILURES + 2))
    await copy.stop()
    endpoint = await rig.endpoints.find_one({"_id": "sub_1"})
    assert endpoint is not None
    assert not {"rests", "rest_until_us", "failing_since_us", "last_failure"} & endpoint.keys()
