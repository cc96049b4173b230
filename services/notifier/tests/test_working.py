"""Endpoints are worked: what waits is called and written down, whatever happens to a copy, or to an endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from backhaul_notifier.documents import webhook_id
from backhaul_notifier.schedules import DISPATCH, RCS, STANDARD, Outcome, Policy, PolicyKind
from backhaul_testing.waiting import until
from working_rig import SECOND_US, Made, Rig, rigged

CUSTOM = Policy(PolicyKind.CUSTOM, 15, (1, 60, 7), heeds=True)
STRICT = replace(CUSTOM, only_200=True, steps_s=(3600, 5))
ONCE = replace(CUSTOM, steps_s=())


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


async def test_what_waits_is_called_and_written_down(rig: Rig) -> None:
    await rig.subscribe()
    ids = await rig.enqueue(number=600)
    await rig.copy()
    await rig.until_none_waits()
    assert sorted(rig.calls.orders()) == list(range(1, 601))
    row = await rig.row(ids[0])
    assert row["state"] == "delivered"
    assert (row["attempts"], row["counted"]) == (1, 1)
    assert "due_at_us" not in row
    assert row["ends_at"].timestamp() == pytest.approx(row["ended_at_us"] / SECOND_US + 30 * 86_400, abs=1)
    (attempt,) = row["tries"]
    assert (attempt["number"], attempt["status"], attempt["text"]) == (1, 200, "The endpoint answered 200.")
    assert {made.webhook_id for made in rig.calls.made} == {webhook_id(id_) for id_ in ids}


@pytest.mark.timed
async def test_what_is_enqueued_later_is_sent_at_once(rig: Rig) -> None:
    await rig.subscribe()
    await rig.copy(look_s=30.0)
    for number in range(1, 6):
        await rig.enqueue()
        await rig.calls.until(number, within_s=2.0)
    await rig.until_none_waits()


async def test_a_lost_wake_up_is_made_up_for_by_a_look(rig: Rig) -> None:
    await rig.subscribe()
    await rig.copy()
    await rig.enqueue(says=False)
    await rig.calls.until(1)
    await rig.enqueue(says=False)
    await rig.calls.until(2)


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        (DISPATCH, Outcome(503)),
        (DISPATCH, Outcome(204)),
        (RCS, Outcome(error="timeout")),
        (STANDARD, Outcome(302)),
        (CUSTOM, Outcome(503)),
        (STRICT, Outcome(202)),
        (ONCE, Outcome(error="dns_failed")),
    ],
    ids=lambda each: str(each.kind) if isinstance(each, Policy) else str(each.status or each.error),
)
async def test_every_schedule_through_the_whole_worker(rig: Rig, policy: Policy, outcome: Outcome) -> None:
    rig.calls.answer = lambda _: outcome
    await rig.subscribe(policy=policy)
    (id_,) = await rig.enqueue()
    await rig.copy(hold_s=0.2, pause_after_s=1e9)
    for number, step in enumerate(policy.steps_s, start=1):
        row = await rig.until_row(id_, attempts=number, state="waiting")
        made = rig.calls.made[-1]
        assert 0 <= row["due_at_us"] - made.ended_at_us - step * SECOND_US < 2 * SECOND_US
        rig.move(step - 1.5 if step > 2 else step / 4)
        await asyncio.sleep(0.1)
        assert len(rig.calls.made) == number
        rig.move(2.5)
        # The breaker has its own opinion of ten failures in a row.
        await asyncio.sleep(0)
        if number == 10:
            rig.move(60)
        await rig.calls.until(number + 1)
    row = await rig.until_row(id_, state="failed")
    assert row["attempts"] == row["counted"] == policy.attempts == len(rig.calls.made)
    assert [attempt["number"] for attempt in row["tries"]] == list(range(1, policy.attempts + 1))
    assert len({made.webhook_id for made in rig.calls.made}) == 1
    assert rig.communications.disabled == ([id_] if policy is DISPATCH else [])


async def test_retries_survive_a_new_copy(rig: Rig) -> None:
    rig.calls.answer = lambda _: Outcome(500)
    await rig.subscribe(policy=RCS)
    (id_,) = await rig.enqueue()
    first = await rig.copy("first")
    await rig.until_row(id_, attempts=1)
    await first.stop()
    endpoint = await rig.endpoints.find_one({"_id": "sub_1"})
    assert endpoint is not None
    assert endpoint["owner"] == ""
    assert endpoint["due_at_us"] == (await rig.row(id_))["due_at_us"]
    assert endpoint["failing_since_us"] <= endpoint["last_failure_at_us"]
    await rig.copy("second")
    await asyncio.sleep(0.5)
    assert len(rig.calls.made) == 1
    rig.calls.answer = lambda _: Outcome(200)
    rig.move(10)
    await rig.until_row(id_, state="delivered", attempts=2)
    assert [made.copy for made in rig.calls.made] == ["first", "second"]


async def test_two_copies_work_an_endpoint_one_at_a_time(rig: Rig) -> None:
    async def slowly(_: Made) -> Outcome:
        await asyncio.sleep(0.002)
        return Outcome(200)

    rig.calls.answer = slowly
    names = [f"sub_{number}" for number in range(10)]
    for name in names:
        await rig.subscribe(name, concurrency=2)
    await rig.copy("one")
    await rig.copy("two")
    for _ in range(20):
        for name in names:
            await rig.enqueue(to=name, number=3)
    await rig.until_none_waits()
    assert sorted(rig.calls.orders()) == list(range(1, 601))
    for name in names:
        assert rig.calls.most[name] <= 2
        assert len({made.copy for made in rig.calls.made if made.subscription == name}) == 1


async def test_who_sleeps_over_its_lease_calls_nobody_and_writes_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, hangs = asyncio.Event(), asyncio.Event()

    async def hang(made: Made) -> Outcome:
        if made.copy == "sleeper":
            hangs.set()
            await waits.wait()
        return Outcome(200 if made.copy == "other" else 500)

    rig.calls.answer = hang
    await rig.subscribe(concurrency=1)
    ids = await rig.enqueue(number=20)
    sleeper = await rig.copy("sleeper", renew_s=1000.0, look_s=1000.0)
    await hangs.wait()
    # As whoever slept finds it: its own time has gone on, and MongoDB's.
    (endpoint,) = sleeper.working._held.values()
    await rig.endpoints.update_one({"_id": "sub_1"}, [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}])
    endpoint.held.until = 0.0
    await rig.copy("other")
    await rig.until_none_waits()
    before = {row["_id"]: row async for row in rig.deliveries.find()}
    waits.set()
    await until("the call's result is dropped", _none_unwritten(endpoint))
    await asyncio.sleep(0.3)
    assert {row["_id"]: row async for row in rig.deliveries.find()} == before
    assert all(row["state"] == "delivered" and row["attempts"] == 1 for row in before.values())
    assert [made.copy for made in rig.calls.made if made.copy == "sleeper"] == ["sleeper"]
    assert len(ids) + 1 == len(rig.calls.made)


def _none_unwritten(endpoint: Any) -> Any:
    async def probe() -> bool:
        return not endpoint._calls and not endpoint._intake.unwritten

    return probe


async def test_one_endpoint_that_hangs_slows_no_other(rig: Rig) -> None:
    released = asyncio.Event()

    async def answer(made: Made) -> Outcome:
        if made.subscription == "sub_hangs":
            await released.wait()
        return Outcome(200)

    rig.calls.answer = answer
    await rig.subscribe("sub_hangs", tenant="slow", concurrency=64)
    await rig.subscribe("sub_quick", tenant="quick")
    await rig.enqueue(to="sub_hangs", number=500)
    await rig.copy(connections=40)
    await rig.calls.until(10)
    await asyncio.sleep(0.2)
    # Half of the door's connections are for the tenant that comes next, and half of the others for the next endpoint.
    assert rig.calls.under_way["sub_hangs"] == 10
    await rig.enqueue(to="sub_quick", number=300)
    await rig.until_none_waits("sub_quick", within_s=60)
    released.set()
    await rig.until_none_waits()


async def test_the_breaker_lets_exactly_one_probe_through(rig: Rig) -> None:
    async def fail(_: Made) -> Outcome:
        await asyncio.sleep(0.01)
        return Outcome(503)

    rig.calls.answer = fail
    await rig.subscribe(policy=RCS)
    await rig.enqueue(number=100)
    await rig.copy()
    await rig.calls.until(10)
    await asyncio.sleep(0.3)
    # Those that were under way when it failed for the tenth time have ended, and no other was begun.
    begun = len(rig.calls.made)
    assert 10 <= begun <= 17
    endpoint = await until("it rests", _rests(rig))
    assert endpoint["rests"] == 1
    hangs = asyncio.Event()

    async def probe(_: Made) -> Outcome:
        await hangs.wait()
        return Outcome(200)

    rig.calls.answer = probe
    rig.move(5)
    await rig.calls.until(begun + 1)
    await asyncio.sleep(0.3)
    assert len(rig.calls.made) == begun + 1
    hangs.set()
    rig.move(10)
    await rig.until_none_waits()
    assert rig.calls.most["sub_1"] == 8


def _rests(rig: Rig) -> Any:
    async def probe() -> Any:
        (copy,) = rig.copies
        (endpoint,) = copy.working._held.values()
        await copy.working._endpoints.note({"sub_1": (endpoint.held, endpoint.aftermath.standing)})
        row = await rig.endpoints.find_one({"_id": "sub_1"})
        return row if row is not None and row.get("rests") else None

    return probe


@pytest.mark.timed
async def test_the_rate_is_kept(rig: Rig) -> None:
    await rig.subscribe(rate_per_s=50)
    await rig.enqueue(number=60)
    await rig.copy()
    await rig.until_none_waits()
    times = [made.at_us for made in rig.calls.made]
    assert (times[-1] - times[0]) / SECOND_US == pytest.approx(57 / 50, rel=0.25)
    for begin, at_us in enumerate(times):
        within = [one for one in times[begin:] if one < at_us + SECOND_US // 2]
        assert len(within) <= 25 + 3


async def test_an_endpoint_that_asks_for_less_is_called_once_a_second_by_the_next_copy_as_well(rig: Rig) -> None:
    said = iter([Outcome(429, retry_after_s=30.0)])
    rig.calls.answer = lambda _: next(said, Outcome(200))
    await rig.subscribe(concurrency=1)
    await rig.enqueue(number=100)
    for name in ("one", "other"):
        before = len(rig.calls.made)
        copy = await rig.copy(name)
        await rig.calls.until(before + 3)
        first, second, third = rig.calls.made[before : before + 3]
        assert {first.copy, second.copy, third.copy} == {name}
        assert second.at_us - first.at_us > 0.9 * SECOND_US
        assert third.at_us - second.at_us > 0.9 * SECOND_US
        if name == "one":
            await copy.stop()
    rig.move(31)
    await rig.until_none_waits()


async def test_410_disables_the_subscription_and_what_waits_is_kept(rig: Rig) -> None:
    rig.subscriptions.away = 2
    rig.calls.answer = lambda _: Outcome(410)
    await rig.subscribe(concurrency=1)
    ids = await rig.enqueue(number=10)
    await rig.copy()
    await rig.until_row(ids[0], state="failed")
    assert [(id_, state) for id_, state, _ in rig.subscriptions.decided] == [("sub_1", "disabled")]
    await asyncio.sleep(0.5)
    assert len(rig.calls.made) == 1
    assert await rig.deliveries.count_documents({"state": "waiting"}) == 9


async def test_who_only_fails_is_paused(rig: Rig) -> None:
    rig.calls.answer, rig.calls.sentence = lambda _: Outcome(error="connect_failed"), "Nobody listens on port 1."
    await rig.subscribe(policy=RCS)
    (id_,) = await rig.enqueue()
    copy = await rig.copy(pause_after_s=3600)
    for number, step in enumerate(RCS.steps_s[:6], start=1):
        await rig.until_row(id_, attempts=number)
        assert not rig.subscriptions.decided
        rig.move(step + 0.1)
    await until("it is paused", _decided(rig))
    text = "Its endpoint has only failed for too long. The last time: Nobody listens on port 1."
    assert rig.subscriptions.decided == [("sub_1", "paused", text)]
    row = await rig.until_row(id_, attempts=7)
    assert row["state"] == "waiting"
    assert row["tries"][-1]["text"] == "Nobody listens on port 1. That was attempt 7 of 11: the next one is in 3 h."
    await until("it is given back", _holds_nothing(copy))
    assert (await rig.endpoints.find_one({"_id": "sub_1"}) or {})["last_failure"] == "Nobody listens on port 1."


def _decided(rig: Rig) -> Any:
    async def probe() -> bool:
        return bool(rig.subscriptions.decided)

    return probe


async def test_paused_resumed_and_deleted_while_it_is_worked(rig: Rig) -> None:
    async def slowly(_: Made) -> Outcome:
        await asyncio.sleep(0.005)
        return Outcome(200)

    rig.calls.answer = slowly
    subscription = await rig.subscribe()
    await rig.enqueue(number=400)
    copy = await rig.copy()
    await rig.calls.until(50)
    await rig.subscriptions.put(replace(subscription, state="paused"))
    await until("it is given back", _holds_nothing(copy))
    made = len(rig.calls.made)
    assert await rig.deliveries.count_documents({"state": "delivered"}) == made < 400
    await rig.enqueue()
    await asyncio.sleep(0.5)
    assert len(rig.calls.made) == made
    await rig.subscriptions.put(subscription)
    await rig.calls.until(made + 50)
    await rig.subscriptions.put(replace(subscription, deleted=True))
    await until("it is given back", _holds_nothing(copy))
    made = len(rig.calls.made)
    assert await rig.deliveries.count_documents({"state": "delivered"}) == made < 401
    assert len(set(rig.calls.orders())) == made


def _holds_nothing(copy: Any) -> Any:
    async def probe() -> bool:
        return not copy.working.held

    return probe


async def test_what_fails_on_our_side_takes_no_attempt(rig: Rig) -> None:
    said = iter([Outcome(error="proxy_refused"), Outcome(error="no_room"), Outcome(500)])
    rig.calls.answer = lambda _: next(said, Outcome(200))
    await rig.subscribe(policy=DISPATCH)
    (id_,) = await rig.enqueue()
    await rig.copy()
    await rig.until_row(id_, attempts=1, ours=1)
    rig.move(5.1)
    await rig.until_row(id_, attempts=2, ours=2)
    rig.move(10.1)
    row = await rig.until_row(id_, attempts=3, ours=2, counted=1)
    assert row["due_at_us"] - rig.clock.now_us() > 290 * SECOND_US
    rig.move(300)
    await rig.until_row(id_, state="delivered")


async def test_a_caller_that_raises_is_no_endless_loop(rig: Rig) -> None:
    def fail(_: Made) -> Outcome:
        raise ZeroDivisionError

    rig.calls.answer = fail
    await rig.subscribe()
    (id_,) = await rig.enqueue()
    await rig.copy()
    row = await rig.until_row(id_, attempts=1, ours=1)
    assert row["tries"][0]["error"] == "internal"
    assert len(rig.calls.made) == 1


async def test_what_is_sent_again_while_it_is_under_way_is_sent_again(rig: Rig) -> None:
    hangs = asyncio.Event()

    async def hang(_: Made) -> Outcome:
        await hangs.wait()
        return Outcome(200)

    rig.calls.answer = lambda _: Outcome(500)
    await rig.subscribe(policy=RCS)
    (id_,) = await rig.enqueue()
    await rig.copy()
    await rig.until_row(id_, attempts=1)
    rig.calls.answer = hang
    rig.move(10)
    await rig.calls.until(2)
    again = {"$set": {"attempts": 0, "counted": 0, "due_at_us": rig.clock.now_us()}}
    await rig.deliveries.update_one({"_id": id_}, again)
    await rig.endpoints.update_one({"_id": "sub_1"}, {"$inc": {"told": 1}})
    await rig.say("sub_1")
    await asyncio.sleep(0.2)
    assert len(rig.calls.made) == 2
    hangs.set()
    await rig.until_row(id_, state="delivered", attempts=1)
    assert len(rig.calls.made) == 3
