"""Several deliveries in one call: they go together, and stay together however often that is tried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_notifier.documents import webhook_id
from backhaul_notifier.schedules import DISPATCH, RCS, Outcome
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing.waiting import until
from working_rig import SECOND_US, Rig, rigged


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


async def test_as_many_as_may_be_or_as_long_as_the_first_waits(rig: Rig) -> None:
    await rig.subscribe(payload=pb.Payload(max_events=10, max_wait_s=2))
    await rig.copy()
    await rig.enqueue(number=25)
    await rig.calls.until(2)
    assert [len(made.deliveries) for made in rig.calls.made] == [10, 10]
    await asyncio.sleep(0.3)
    assert len(rig.calls.made) == 2
    first = (await rig.deliveries.find_one({"state": "waiting"}))["created_at_us"]  # type: ignore[index]  # one waits
    await rig.calls.until(3)
    assert rig.calls.made[2].at_us - first >= 2 * SECOND_US
    await rig.until_none_waits()
    for made in rig.calls.made:
        rows = [await rig.row(one.id) for one in made.deliveries]
        (call,) = {row["call"] for row in rows}
        assert made.webhook_id == webhook_id(call)


@pytest.mark.parametrize("ordering", [pb.ORDERING_NONE, pb.ORDERING_MESSAGE])
async def test_they_are_tried_again_together_also_by_another_copy(rig: Rig, ordering: Any) -> None:
    rig.calls.answer = lambda _: Outcome(500)
    await rig.subscribe(payload=pb.Payload(max_events=7), policy=RCS, ordering=ordering)
    await rig.enqueue(*[b"%d" % number for number in range(30)])
    first = await rig.copy("first")
    await rig.calls.until(5)
    await first.stop()
    calls = {made.webhook_id: made.orders for made in rig.calls.made}
    assert sorted(map(len, calls.values())) == [2, 7, 7, 7, 7]
    await rig.enqueue(*[b"%d" % number for number in range(100, 107)])
    rig.calls.answer = lambda _: Outcome(200)
    await rig.copy("second")
    await rig.calls.until(6)
    rig.move(10)
    await rig.until_none_waits()
    again = {made.webhook_id: made.orders for made in rig.calls.made if made.copy == "second"}
    assert len(again) == 6
    assert {id_: orders for id_, orders in again.items() if id_ in calls} == calls


async def test_a_copy_that_slept_takes_nothing_out_of_another_s_call(rig: Rig) -> None:
    """The one that has the endpoint since has told some of what this one had gathered, under an id of its own."""
    await rig.subscribe(payload=pb.Payload(max_events=3, max_wait_s=60))
    first, _ = await rig.enqueue(number=2)
    copy = await rig.copy()

    async def gathered() -> bool:
        return any(len(endpoint._intake.queue) == 2 for endpoint in copy.working._held.values())

    await until("two that wait for a third", gathered)
    theirs = b"\x07" * 16
    await rig.deliveries.update_one({"_id": first}, {"$set": {"call": theirs}})
    await rig.enqueue()
    await rig.until_none_waits()
    assert [(await rig.row(first))["call"]] == [theirs]
    assert sorted(len(made.deliveries) for made in rig.calls.made) == [1, 2]
    assert webhook_id(theirs) in [made.webhook_id for made in rig.calls.made]


async def test_a_copy_that_dies_before_the_result_leaves_the_call_as_it_was(rig: Rig) -> None:
    hangs = asyncio.Event()

    async def hang(_: Any) -> Outcome:
        await hangs.wait()
        return Outcome(200)

    rig.calls.answer = hang
    await rig.subscribe(payload=pb.Payload(max_events=5))
    await rig.enqueue(number=10)
    first = await rig.copy("first")
    await rig.calls.until(2)
    await first.die()
    await rig.endpoints.update_one({"_id": "sub_1"}, [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}])
    rig.calls.answer = lambda _: Outcome(200)
    await rig.copy("second")
    await rig.until_none_waits()
    told = {
        copy: {made.webhook_id: made.orders for made in rig.calls.made if made.copy == copy}
        for copy in ("first", "second")
    }
    assert told["first"] == told["second"]


async def test_a_policy_disables_the_communication_of_each(rig: Rig) -> None:
    rig.calls.answer = lambda _: Outcome(201)
    await rig.subscribe(payload=pb.Payload(max_events=3), policy=DISPATCH)
    ids = await rig.enqueue(number=3)
    await rig.copy()
    for number in (1, 2):
        await rig.until_row(ids[0], attempts=number)
        rig.move(300)
    await rig.until_none_waits()
    assert sorted(rig.communications.disabled) == sorted(ids)
    assert [len(made.deliveries) for made in rig.calls.made] == [3, 3, 3]


async def test_who_is_no_longer_told_several_gets_each_alone(rig: Rig) -> None:
    rig.calls.answer = lambda _: Outcome(500)
    await rig.subscribe(payload=pb.Payload(max_events=3), policy=RCS)
    ids = await rig.enqueue(number=3)
    await rig.copy()
    await rig.until_row(ids[0], attempts=1)
    subscription = rig.subscriptions.all["sub_1"]
    subscription.definition.payload.max_events = 0
    await rig.subscriptions.put(subscription)
    rig.calls.answer = lambda _: Outcome(200)
    rig.move(10)
    await rig.until_none_waits()
    assert {made.webhook_id for made in rig.calls.made[1:]} == {webhook_id(id_) for id_ in ids}


async def test_a_hundred_that_come_one_by_one_do_not_wait_for_the_time(rig: Rig) -> None:
    await rig.subscribe(payload=pb.Payload(max_events=100, max_wait_s=60))
    await rig.copy()
    for _ in range(11):
        await rig.enqueue(number=10)
        await asyncio.sleep(0.05)
    await rig.calls.until(1)
    assert [len(made.deliveries) for made in rig.calls.made] == [100]
