"""What is to be sent again, or at a rate, is done by whoever holds the endpoint, whatever happens to a copy."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from backhaul_common.names import SUBSCRIPTIONS_COLLECTION, TENANTS_COLLECTION
from backhaul_notifier.deliveries.redelivering import Redelivering, Which
from backhaul_notifier.schedules import Outcome
from backhaul_notifier.servicer_deliveries import attempt_message
from backhaul_notifier.working import tasks
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing import make
from tasks_rig import RESET, ask, ask_silently, dues, ended, until_done
from working_rig import REGISTRATION, SECOND_US, TENANT, Made, Rig, rigged


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASK_PAGE", 10)


@pytest.mark.parametrize(
    ("which", "told"),
    [("failed", {1, 2}), ("all", {1, 2, 3, 4, 5, 6}), ("never_attempted", {5}), ("waiting", {5, 6})],
)
@pytest.mark.parametrize("ordering", [pb.ORDERING_NONE, pb.ORDERING_MESSAGE])
async def test_those_that_are_chosen_wait_from_their_beginning(
    rig: Rig, which: Which, told: set[int], ordering: Any
) -> None:
    await rig.subscribe(ordering=ordering)
    later_us = rig.clock.now_us() + 3600 * SECOND_US
    keys = [b"a", b"b"]
    chosen = await rig.enqueue(*keys, **ended(rig))
    chosen += await rig.enqueue(*keys, **ended(rig, "delivered"))
    chosen += await rig.enqueue(b"c", due_at_us=later_us)
    chosen += await rig.enqueue(b"d", due_at_us=later_us, attempts=2, tries=[{"number": 2}], **RESET)
    before = [await rig.row(id_) for id_ in chosen]
    await rig.subscribe("sub_2")
    (other,) = await rig.enqueue(to="sub_2", **ended(rig))
    await ask(rig, which, rate_per_s=1000)
    await rig.copy()
    await until_done(rig)
    await rig.calls.until(len(told))
    await asyncio.sleep(0.2)
    assert sorted(rig.calls.orders()) == sorted(told)
    for id_, was in zip(chosen, before, strict=True):
        if was["order"] in told:
            row = await rig.until_row(id_, state="delivered")
            if which == "waiting":
                assert row["attempts"] == was["attempts"] + 1
                assert row.get("ours") == was.get("ours")
            else:
                assert (row["attempts"], row["counted"]) == (1, 1)
                assert not {"ours", "call"} & row.keys()
            assert row["ended_at_us"] > was.get("ended_at_us", 0)
            # What became of it before stays to be seen.
            assert row["tries"][:-1] == was.get("tries", [])
        else:
            assert await rig.row(id_) == was
    assert (await rig.row(other))["state"] == "failed"


async def test_the_span_and_the_types_bound_them(rig: Rig) -> None:
    await rig.subscribe()
    start_us = rig.clock.now_us() - 1000
    for place in range(6):
        await rig.enqueue(created_at_us=start_us + place, **ended(rig))
        await rig.enqueue(created_at_us=start_us + place, type="message.failed", **ended(rig))
    await rig.copy()
    await ask(rig, "failed", from_us=start_us + 1, to_us=start_us + 5, types=("message.failed",))
    await rig.calls.until(4)
    await until_done(rig)
    await asyncio.sleep(0.1)
    assert sorted(rig.calls.orders()) == [4, 6, 8, 10]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("which", ["failed", "waiting"])
async def test_the_rate_is_kept_over_all_pages(rig: Rig, which: Which) -> None:
    await rig.subscribe()
    more = ended(rig) if which == "failed" else {"due_at_us": rig.clock.now_us() + 10**12}
    for instant in range(20):
        await rig.enqueue(number=5, created_at_us=instant, says=False, **more)
    await ask(rig, which, rate_per_s=2)
    began_us = rig.clock.now_us()
    await rig.copy(look_s=0.1)
    await until_done(rig)
    told_us = rig.clock.now_us()
    waiting = await dues(rig)
    assert len(waiting) > 80
    assert 0 <= waiting[-1] - began_us - 99 * SECOND_US / 2 <= told_us - began_us
    assert {later - sooner for sooner, later in pairwise(waiting)} == {SECOND_US // 2}
    for _ in range(4):
        rig.move(10)
        passed_s = (rig.clock.now_us() - began_us) / SECOND_US
        await rig.calls.until(int((passed_s - 1) * 2))
        await asyncio.sleep(0.1)
        assert len(rig.calls.made) <= (rig.clock.now_us() - began_us) / SECOND_US * 2 + 1
    rig.move(20)
    await rig.until_none_waits()
    assert Counter(rig.calls.orders()) == dict.fromkeys(range(1, 101), 1)


@pytest.mark.timed
async def test_what_was_resumed_at_a_rate_is_spread_before_anything_is_sent(rig: Rig) -> None:
    await rig.subscribe()
    for _ in range(12):
        await rig.enqueue(number=100)
    await ask(rig, "waiting", rate_per_s=1)
    await rig.copy()
    await rig.calls.until(1)
    # Three pages are done by the first call.
    rows = sorted(await dues(rig))
    assert rows[-1] - rows[0] > 1190 * SECOND_US
    await until_done(rig)
    await asyncio.sleep(0.3)
    assert len(rig.calls.made) < 5
    # What is made from now on does not wait for it.
    (new,) = await rig.enqueue()
    await rig.until_row(new, state="delivered")
    assert len(rig.calls.made) < 10


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("ordering", [pb.ORDERING_NONE, pb.ORDERING_MESSAGE])
async def test_what_was_resumed_is_sent_in_its_order_also_what_was_put_off(rig: Rig, ordering: Any) -> None:
    """Whoever says that the endpoint is well again does not wait for the hours of a schedule, nor get what is newer
    before them."""
    await rig.subscribe(ordering=ordering, concurrency=1)
    later_us = rig.clock.now_us() + 10 * 3600 * SECOND_US
    put_off: dict[str, Any] = {"due_at_us": later_us, "attempts": 5, "tries": [{"number": 5}], "counted": 5}
    for number in range(25):
        await rig.enqueue(b"a", says=False, **(put_off if number % 5 == 0 else {}))
        await rig.enqueue(b"b", says=False, **(put_off if number < 12 else {}))
    await ask_silently(rig, "waiting")
    await rig.copy()
    await rig.until_none_waits()
    orders = rig.calls.orders()
    assert [one for one in orders if one % 2] == list(range(1, 51, 2))
    assert [one for one in orders if not one % 2] == list(range(2, 51, 2))
    if ordering == pb.ORDERING_NONE:
        assert orders == list(range(1, 51))
    # Nothing else is written anew, of which there may be a million.
    assert all(one.due_at_us == one.created_at_us for made in rig.calls.made for one in made.deliveries)
    # It was tried five times, which counts.
    assert await rig.deliveries.count_documents({"attempts": 6, "counted": 6}) == 17
    await until_done(rig)


@pytest.mark.timed
async def test_an_endpoint_that_is_held_is_spread_when_it_is_resumed(rig: Rig) -> None:
    """Whoever pauses and resumes in an instant does so without its holder ever looking."""
    subscription = await rig.subscribe()
    await rig.enqueue()
    copy = await rig.copy(look_s=60.0)
    await rig.until_none_waits()
    assert copy.working.held == 1
    await rig.enqueue(number=600, says=False)
    await ask_silently(rig, "waiting", rate_per_s=1)
    await rig.subscriptions.put(subscription)
    await rig.say("sub_1")
    await until_done(rig)
    await asyncio.sleep(0.2)
    assert len(rig.calls.made) < 1 + 5


@pytest.mark.usefixtures("small_pages")
async def test_two_tasks_are_done_one_after_the_other(rig: Rig) -> None:
    await rig.subscribe()
    for _ in range(7):
        await rig.enqueue(number=5, **ended(rig))
        await rig.enqueue(number=5, **ended(rig, "delivered"))
    await rig.copy()
    await asyncio.gather(ask(rig, "failed"), ask(rig, "all"))
    await until_done(rig)
    await rig.until_none_waits()
    counts = Counter(rig.calls.orders())
    assert counts.keys() == set(range(1, 71))
    assert max(counts.values()) <= 2
    assert not await rig.deliveries.count_documents({"state": {"$ne": "delivered"}})


async def test_the_history_tells_apart_what_was_asked_for(rig: Rig) -> None:
    statuses = iter([500, 200, 200, 500, 200])
    rig.calls.answer = lambda _: Outcome(next(statuses))
    await rig.subscribe()
    (id_,) = await rig.enqueue()
    await rig.copy()
    await rig.until_row(id_, attempts=1)
    rig.move(6)
    await rig.until_row(id_, state="delivered")
    await ask(rig, "all")
    await rig.until_row(id_, state="delivered", again=1)
    await ask(rig, "all")
    await rig.until_row(id_, state="waiting", again=2, attempts=1)
    rig.move(6)
    row = await rig.until_row(id_, state="delivered", again=2)
    shown = [(one.number, one.redelivery, one.status) for one in map(attempt_message, row["tries"])]
    assert shown == [(1, 0, 500), (2, 0, 200), (1, 1, 200), (1, 2, 500), (2, 2, 200)]


@pytest.mark.usefixtures("small_pages")
async def test_an_ordered_endpoint_is_told_again_in_its_order(rig: Rig) -> None:
    await rig.subscribe(ordering=pb.ORDERING_RECIPIENT)
    for _ in range(6):
        await rig.enqueue(*[b"a", b"b", b"c"] * 5)
    await rig.copy()
    await rig.until_none_waits()
    rig.calls.made.clear()
    await ask(rig, "all", rate_per_s=200)
    await rig.calls.until(90)
    await rig.enqueue(b"a")
    await rig.calls.until(91)
    for key in (b"a", b"b", b"c"):
        orders = [made.orders[0] for made in rig.calls.made if made.deliveries[0].key == key]
        assert orders == sorted(orders)
        assert len(orders) in (30, 31)


@pytest.mark.timed
async def test_one_of_an_ordered_endpoint_that_is_held_is_found(rig: Rig) -> None:
    await rig.subscribe(ordering=pb.ORDERING_MESSAGE)
    ids = await rig.enqueue(b"a", b"b", b"c")
    copy = await rig.copy(look_s=60.0)
    await rig.until_none_waits()
    tenant = make.tenant(TENANT).model_copy(update={"registration": REGISTRATION})
    await rig.database[TENANTS_COLLECTION].insert_one(tenant.to_document())
    await rig.database[SUBSCRIPTIONS_COLLECTION].insert_one({"_id": "sub_1", "registration": REGISTRATION})
    assert copy.working.held == 1
    one = Redelivering(rig.database, rig.say_changed, rig.clock.now_us)
    await one.one(tenant, ids[1].hex(), dry_run=False)
    await rig.calls.until(4, within_s=2.0)
    assert rig.calls.orders()[3:] == [2]
    await rig.until_row(ids[1], state="delivered")


@pytest.mark.parametrize("ordering", [pb.ORDERING_NONE, pb.ORDERING_MESSAGE])
async def test_one_that_is_asked_for_while_it_is_called_is_called_again(rig: Rig, ordering: Any) -> None:
    """What comes of the call that is under way may be what the application has lost, and asks for."""
    await rig.subscribe(ordering=ordering)
    answers: list[asyncio.Event] = [asyncio.Event()]

    async def held(_: Made) -> Outcome:
        await answers[0].wait()
        return Outcome(200)

    rig.calls.answer = held
    ids = await rig.enqueue(b"a", b"a")
    await rig.copy()
    await rig.calls.until(1)
    tenant = make.tenant(TENANT).model_copy(update={"registration": REGISTRATION})
    await rig.database[TENANTS_COLLECTION].insert_one(tenant.to_document())
    await rig.database[SUBSCRIPTIONS_COLLECTION].insert_one({"_id": "sub_1", "registration": REGISTRATION})
    one = Redelivering(rig.database, rig.say_changed, rig.clock.now_us)
    await one.one(tenant, ids[0].hex(), dry_run=False)
    answers[0].set()
    await rig.calls.until(3, within_s=20.0)
    await rig.until_none_waits()
    assert sorted(rig.calls.orders()) == [1, 1, 2]
    assert {made.webhook_id for made in rig.calls.made if made.orders == [1]} == {rig.calls.made[0].webhook_id}
    row = await rig.row(ids[0])
    assert (row["state"], row["attempts"], row["resets"]) == ("delivered", 1, 1)


@pytest.mark.timed
@pytest.mark.parametrize("ordering", [pb.ORDERING_NONE, pb.ORDERING_MESSAGE])
@pytest.mark.parametrize("rate", [5, 400])
async def test_the_rate_has_no_bursts(rig: Rig, ordering: Any, rate: int) -> None:
    await rig.subscribe(ordering=ordering, concurrency=32)
    number = min(1200, rate * 3)
    await rig.enqueue(*[b"key%d" % each for each in range(number)], **ended(rig))
    await rig.copy()
    await ask(rig, "failed", rate_per_s=rate)
    await rig.calls.until(number)
    await rig.until_none_waits()
    made = sorted(rig.calls.made, key=lambda one: one.at_us)
    assert len(made) == number
    # Nothing goes before its time, by a clock that is MongoDB's and ours.
    assert all(one.at_us - one.deliveries[0].due_at_us >= -10_000 for one in made)


async def test_a_task_of_an_endpoint_that_is_held_is_begun_at_once(rig: Rig) -> None:
    await rig.subscribe()
    await rig.enqueue(number=20)
    copy = await rig.copy(look_s=60.0)
    await rig.until_none_waits()
    assert copy.working.held == 1
    for times in (2, 3):
        await ask(rig, "all")
        await rig.calls.until(20 * times)
        await until_done(rig)
        # What is under way, or not written down yet, is being sent already.
        await rig.until_none_waits()


async def test_five_thousand_are_told_again_once_while_others_go_on(rig: Rig) -> None:
    await rig.subscribe(concurrency=32)
    for _ in range(20):
        await rig.enqueue(number=250, says=False, **ended(rig))
    await rig.copy()

    async def answer(_: Made) -> Outcome:
        await asyncio.sleep(0)
        return Outcome(200)

    rig.calls.answer = answer
    await ask(rig, "failed", rate_per_s=1000)
    (new,) = await rig.enqueue()
    await rig.until_row(new, state="delivered")
    assert await rig.deliveries.count_documents({"state": {"$ne": "delivered"}})
    await until_done(rig)
    rig.move(6)
    await rig.until_none_waits(within_s=60)
    assert Counter(rig.calls.orders()) == dict.fromkeys(range(1, 5_002), 1)
