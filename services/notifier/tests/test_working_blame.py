"""What counts against an endpoint, and since when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.model import Subscription
from backhaul_notifier.schedules import RCS, Outcome
from backhaul_notifier.working.breaker import FAILURES
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing.waiting import until
from calling_rig import Opening, calling, http
from door_rig import Call, endpoint
from working_rig import SECOND_US, Rig, rigged

SAMPLE = sample_of(TYPES["message.delivered"]).SerializeToString()


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


async def test_who_shows_the_wrong_password_stops_nobody_else_at_the_same_address(rig: Rig) -> None:
    """What is decided about an endpoint is decided for one subscription: each shows credentials of its own."""

    class Passwords(Opening):
        def credentials(self, subscription: Subscription) -> pb.Credentials:
            return pb.Credentials(bearer_token="right" if subscription.id == "sub_right" else "wrong")

    async def answer(call: Call) -> None:
        await call.answer(status=200 if call.headers["authorization"] == "Bearer right" else 401)

    async with endpoint(answer) as there, calling(Passwords()) as through:
        definition = http(there.url("/hook"))
        for id_ in ("sub_wrong", "sub_right"):
            made = await rig.subscribe(id_, policy=RCS)
            await rig.subscriptions.put(replace(made, definition=definition))
        await rig.endpoints.update_one({"_id": "sub_wrong"}, {"$set": {"failing_since_us": 1}})
        await rig.enqueue(to="sub_wrong", number=2 * FAILURES, payload=SAMPLE)
        await rig.copy(caller=through.caller, pause_after_s=3600)

        async def decided() -> bool:
            return bool(rig.subscriptions.decided)

        await until("the one that shows the wrong one is paused", decided)
        await rig.enqueue(to="sub_right", number=2 * FAILURES, payload=SAMPLE)
        await rig.until_none_waits("sub_right")
    assert {id_ for id_, _, _ in rig.subscriptions.decided} == {"sub_wrong"}
    right = {"subscription": "sub_right", "state": "delivered", "attempts": 1}
    assert await rig.deliveries.count_documents(right) == 2 * FAILURES
    standing = await rig.endpoints.find_one({"_id": "sub_right"})
    assert standing is not None
    assert not {"rests", "failing_since_us", "last_failure", "slow_until_us"} & standing.keys()
    assert not await rig.deliveries.count_documents({"subscription": "sub_wrong", "state": {"$ne": "waiting"}})


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
