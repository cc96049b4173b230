"""An attempt whose result was never stored is seen, and counts: whoever has the endpoint next says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from backhaul_common.documents import Document
from backhaul_common.lifecycle import cancel
from backhaul_common.metering import Metrics
from backhaul_notifier.deliveries.redelivering import reset
from backhaul_notifier.documents import webhook_id
from backhaul_notifier.model import Attempted, Delivery, Subscription
from backhaul_notifier.ports import always
from backhaul_notifier.schedules import DISPATCH, RCS, STANDARD, Outcome, Policy
from backhaul_notifier.working.attempts import Attempts
from backhaul_notifier.working.calls import Call
from backhaul_notifier.working.counts import Counts
from backhaul_notifier.working.endpoints import MongoEndpoints
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing.waiting import until
from working_rig import SECOND_US, Caller, Copy, Made, Rig, rigged


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


async def hangs(_: Made) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


async def begun(rig: Rig, id_: bytes) -> Document:
    """The delivery, when it is written down that it is called."""

    async def probe() -> Document | None:
        row = await rig.row(id_)
        return row if "begun_at_us" in row else None

    return await until("a call that is written down", probe, within_s=60.0)


async def taken_over(rig: Rig, first: Copy, id_: bytes, **values: Any) -> Document:
    """The delivery, when ``first`` has died within a call, and another copy has found what became of it."""
    await begun(rig, id_)
    await first.die()
    rig.calls.answer = lambda _: Outcome(200)
    await rig.endpoints.update_one({"_id": "sub_1"}, [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}])
    await rig.copy("second")
    return await rig.until_row(id_, **values)


@pytest.mark.parametrize("ordering", [pb.ORDERING_NONE, pb.ORDERING_MESSAGE])
@pytest.mark.parametrize(("policy", "pause_s"), [(STANDARD, 5), (DISPATCH, 300)])
async def test_the_history_has_it_and_the_policy_counts_it(
    rig: Rig, policy: Policy, pause_s: int, ordering: Any
) -> None:
    rig.calls.answer = hangs
    await rig.subscribe(policy=policy, ordering=ordering)
    (id_,) = await rig.enqueue(b"key")
    first = await rig.copy("first")
    await rig.calls.until(1)
    row = await taken_over(rig, first, id_, attempts=1)
    (lost,) = row["tries"]
    at_us = rig.calls.made[0].at_us
    assert (lost["number"], lost["status"], lost["error"]) == (1, 0, "lost")
    assert "ended before its result was stored" in lost["text"]
    assert at_us - SECOND_US <= lost["at_us"] <= at_us
    assert (row["state"], row["counted"]) == ("waiting", 1)
    assert row["due_at_us"] == lost["at_us"] + pause_s * SECOND_US
    assert "begun_at_us" not in row
    rig.move(pause_s + 1)
    row = await rig.until_row(id_, state="delivered")
    assert [(one["number"], one["error"], one["status"]) for one in row["tries"]] == [(1, "lost", 0), (2, "", 200)]
    assert {made.webhook_id for made in rig.calls.made} == {webhook_id(id_)}
    assert [made.copy for made in rig.calls.made] == ["first", "second"]


@pytest.mark.parametrize("policy", [DISPATCH, replace(RCS, steps_s=())])
async def test_nothing_fails_by_an_attempt_of_which_nothing_is_known(rig: Rig, policy: Policy) -> None:
    rig.calls.answer = hangs
    await rig.subscribe(policy=policy)
    before = policy.attempts - 1
    (id_,) = await rig.enqueue(attempts=before, counted=before)
    first = await rig.copy("first")
    await rig.calls.until(1)
    row = await taken_over(rig, first, id_, attempts=policy.attempts)
    assert (row["state"], row["counted"], row["ours"]) == ("waiting", before, 1)
    rig.move(6)
    await rig.until_row(id_, state="delivered")
    assert not rig.communications.disabled
    endpoint = await rig.endpoints.find_one({"_id": "sub_1"})
    assert endpoint is not None
    assert not {"rests", "failing_since_us", "last_failure"} & endpoint.keys()


async def test_what_went_together_is_lost_together_and_nothing_else(rig: Rig) -> None:
    rig.calls.answer = hangs
    await rig.subscribe(payload=pb.Payload(max_events=3), concurrency=1)
    ids = await rig.enqueue(number=5)
    first = await rig.copy("first")
    await rig.calls.until(1)
    await taken_over(rig, first, ids[0], attempts=1)
    for id_ in ids[1:3]:
        await rig.until_row(id_, attempts=1)
    rig.move(6)
    await rig.until_none_waits()
    rows = [await rig.row(id_) for id_ in ids]
    assert [[one["error"] for one in row["tries"]] for row in rows] == [["lost", ""]] * 3 + [[""]] * 2
    together = [made for made in rig.calls.made if made.orders == [1, 2, 3]]
    assert len(together) == 2
    assert together[0].webhook_id == together[1].webhook_id


async def test_who_tells_several_since_tells_none_of_them_as_lost(rig: Rig) -> None:
    """It was sent by itself before the subscription had several go together."""
    rig.calls.answer = hangs
    await rig.subscribe(concurrency=1)
    ids = await rig.enqueue(number=3)
    first = await rig.copy("first")
    await rig.calls.until(1)
    await begun(rig, ids[0])
    subscription = rig.subscriptions.all["sub_1"]
    definition = pb.Definition()
    definition.CopyFrom(subscription.definition)
    definition.payload.max_events = 3
    await rig.subscriptions.put(replace(subscription, definition=definition))
    await taken_over(rig, first, ids[0], attempts=1)
    rig.move(6)
    await rig.until_none_waits()
    rows = [await rig.row(id_) for id_ in ids]
    assert [[one["error"] for one in row["tries"]] for row in rows] == [["lost", ""], [""], [""]]


@dataclass
class Asking(Caller):
    """Has something to ask before it calls the endpoint with the first delivery, and gets no answer."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(
        self,
        subscription: Subscription,
        deliveries: Sequence[Delivery],
        webhook_id: str,
        may_send: Callable[[], bool] = always,
    ) -> Attempted:
        if deliveries[0].order == 1:
            self.asked.set()
            await asyncio.Event().wait()
        return await super().call(subscription, deliveries, webhook_id, may_send)


async def test_what_never_reached_its_endpoint_is_not_lost(rig: Rig) -> None:
    rig.calls.answer = hangs
    await rig.subscribe()
    caller = Asking(rig.calls, "first")
    first = await rig.copy("first", caller=caller)
    (asking,) = await rig.enqueue()
    async with asyncio.timeout(60.0):
        await caller.asked.wait()
    (called,) = await rig.enqueue()
    # It began later, and both would be written down together.
    await taken_over(rig, first, called, attempts=1)
    row = await rig.until_row(asking, state="delivered")
    assert [(one["number"], one["error"], one["status"]) for one in row["tries"]] == [(1, "", 200)]


async def test_a_result_that_comes_late_is_the_only_one(rig: Rig) -> None:
    goes_on = asyncio.Event()

    async def slowly(_: Made) -> Outcome:
        await goes_on.wait()
        return Outcome(200)

    rig.calls.answer = slowly
    await rig.subscribe()
    (id_,) = await rig.enqueue()
    await rig.copy()
    await rig.calls.until(1)
    await begun(rig, id_)
    goes_on.set()
    row = await rig.until_row(id_, state="delivered")
    assert [one["status"] for one in row["tries"]] == [200]
    assert "begun_at_us" not in row
    assert len(rig.calls.made) == 1


async def test_the_note_of_a_call_leaves_what_was_asked_for_again_since(rig: Rig) -> None:
    rig.calls.answer = hangs
    subscription = await rig.subscribe()
    ids = await rig.enqueue(number=2)
    calls = [Call((Delivery.of(await rig.row(id_)),), webhook_id(id_)) for id_ in ids]
    # As a task does, while the note of the call before may be on its way.
    await rig.deliveries.update_one({"_id": ids[0]}, reset(rig.clock.now_us()))
    held = await MongoEndpoints(rig.database, "one").take("sub_1")
    assert held is not None
    metrics = Metrics("notifier")
    attempts = Attempts(rig.database, Caller(rig.calls, "one"), Counts(metrics), rig.clock.now_us)
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(attempts.make(held, subscription, call, always)) for call in calls
    ]
    tasks.append(asyncio.create_task(attempts.run()))
    try:
        await begun(rig, ids[1])  # That of the first one was written before, or with it.
        assert "begun_at_us" not in await rig.row(ids[0])
    finally:
        for task in tasks:
            await cancel(task)
        metrics.close()
