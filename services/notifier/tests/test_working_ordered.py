"""Order of each key is kept under failures and takeovers, and a key that is blocked blocks itself alone."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from backhaul_notifier.schedules import RCS, Outcome, Policy, PolicyKind
from backhaul_notifier.working import ordered
from backhaul_notifier.working.weight import Memory, Weight
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing.waiting import until
from working_rig import SECOND_US, Made, Rig, rigged

CHANCE = Random(20261127)  # noqa: S311  # what happens when is no secret
QUICK = Policy(PolicyKind.CUSTOM, 15, (1,) * 20)


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


def keys(number: int, of: int) -> list[bytes]:
    return [b"key%03d" % CHANCE.randrange(of) for _ in range(number)]


async def test_each_key_is_told_in_its_order_one_at_a_time(rig: Rig) -> None:
    under_way: set[bytes] = set()
    together: list[bytes] = []

    async def answer(made: Made) -> Outcome:
        (one,) = made.deliveries
        if one.key in under_way:
            together.append(one.key)
        under_way.add(one.key)
        await asyncio.sleep(CHANCE.random() / 500)
        under_way.discard(one.key)
        return Outcome(200 if CHANCE.random() < 0.9 else 500)

    rig.calls.answer = answer
    await rig.subscribe(ordering=pb.ORDERING_MESSAGE, concurrency=16, policy=QUICK)
    wanted = keys(1500, 40)
    await rig.enqueue(*wanted[:1000])
    await rig.copy()
    await rig.calls.until(300)
    await rig.enqueue(*wanted[1000:])

    async def passing() -> bool:
        rig.move(1)
        return not await rig.deliveries.count_documents({"state": "waiting"})

    await until("all is told", passing, within_s=60, pause_s=0.1)
    by_key: dict[bytes, list[int]] = defaultdict(list)
    for order, key in enumerate(wanted, start=1):
        by_key[key].append(order)
    for key, orders in by_key.items():
        called = [order for made in rig.calls.made for order in made.orders if made.deliveries[0].key == key]
        # An attempt that failed is made again before anything else of its key.
        assert called == sorted(called)
        assert sorted(set(called)) == orders
    assert not together
    assert rig.calls.most["sub_1"] == 16


async def test_a_blocked_key_blocks_itself_alone(rig: Rig) -> None:
    rig.calls.answer = lambda made: Outcome(500 if made.deliveries[0].key == b"bad" else 200)
    await rig.subscribe(ordering=pb.ORDERING_RECIPIENT, policy=RCS)
    bad = await rig.enqueue(*[b"bad"] * 5)
    good = await rig.enqueue(*[b"good", b"bad", b"other"] * 100)
    await rig.enqueue(number=20)
    await rig.copy()

    async def others() -> bool:
        query = {"state": "waiting", "key": {"$ne": b"bad"}}
        return not await rig.deliveries.count_documents(query)

    await until("all others are told", others)
    assert rig.calls.orders().count(1) == 1
    assert [made.orders for made in rig.calls.made if made.deliveries[0].key == b"bad"] == [[1]]
    rig.calls.answer = lambda _: Outcome(200)
    rig.move(10)
    await rig.until_none_waits()
    told = [made.orders[0] for made in rig.calls.made if made.deliveries[0].key == b"bad"]
    assert told == [1, *sorted(told[1:])]
    assert len(told) == 106
    assert len(bad) + len(good) + 20 + 1 == len(rig.calls.made)


async def test_who_takes_over_finds_the_keys_in_trouble(rig: Rig) -> None:
    rig.calls.answer = lambda made: Outcome(500 if made.deliveries[0].key == b"bad" else 200)
    await rig.subscribe(ordering=pb.ORDERING_MESSAGE, policy=RCS)
    (head, *_) = await rig.enqueue(*[b"bad", b"good"] * 50)
    first = await rig.copy("first")
    await rig.until_row(head, attempts=1)
    await first.die()
    await rig.endpoints.update_one({"_id": "sub_1"}, [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}])
    await rig.copy("second")

    async def others() -> bool:
        return not await rig.deliveries.count_documents({"state": "waiting", "key": b"good"})

    await until("the others are told", others)
    assert [made.orders for made in rig.calls.made if made.deliveries[0].key == b"bad"] == [[1]]
    await rig.enqueue(b"bad", b"good")
    await until("the others are told", others)
    rig.calls.answer = lambda _: Outcome(200)
    rig.move(10)
    await rig.until_none_waits()
    told = [made.orders[0] for made in rig.calls.made if made.deliveries[0].key == b"bad"]
    assert told == [1, *range(1, 100, 2), 101]


async def test_copies_that_die_at_any_time_lose_nothing_and_keep_the_order(rig: Rig) -> None:
    async def answer(_: Made) -> Outcome:
        await asyncio.sleep(CHANCE.random() / 500)
        return Outcome(200)

    rig.calls.answer = answer
    await rig.subscribe(ordering=pb.ORDERING_MESSAGE, concurrency=8)
    wanted = keys(800, 10)
    await rig.enqueue(*wanted)
    for number in range(4):
        copy = await rig.copy(f"copy{number}")
        await rig.calls.until(len(rig.calls.made) + 100)
        await copy.die()
        await rig.endpoints.update_one({"_id": "sub_1"}, [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}])
    await rig.copy("last")
    await rig.until_none_waits()
    assert set(rig.calls.orders()) == set(range(1, 801))
    # Twice only what a copy had called and not yet written down when it died.
    assert len(rig.calls.made) <= 800 + 4 * 8 * 10
    for key in set(wanted):
        first: list[int] = []
        for made in rig.calls.made:
            if made.deliveries[0].key == key and made.orders[0] not in first:
                first += made.orders
        assert first == sorted(first)
    ids: dict[int, set[str]] = defaultdict(set)
    for made in rig.calls.made:
        ids[made.orders[0]].add(made.webhook_id)
    assert all(len(each) == 1 for each in ids.values())


async def test_keys_beyond_those_remembered_block_themselves_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "MAX_BUSY", 50)
    monkeypatch.setattr(ordered, "ANEW_US", 100_000)
    bad = [b"bad%d" % number for number in range(300)]
    works = False
    rig.calls.answer = lambda made: (
        Outcome(error="no_room") if not works and made.deliveries[0].key in bad else Outcome(200)
    )
    await rig.subscribe(ordering=pb.ORDERING_MESSAGE)
    await rig.enqueue(*bad)
    await rig.copy()
    await rig.calls.until(300)
    await rig.enqueue(*[each for key in bad for each in (b"good" + key, key, b"good" + key)])

    async def others() -> bool:
        return not await rig.deliveries.count_documents({"state": "waiting", "key": {"$nin": bad}})

    await until("all others are told", others)
    rig.move(6)
    await rig.calls.until(300 + 600 + 300)
    await asyncio.sleep(0.3)
    counts = Counter(rig.calls.orders())
    # Each was tried again, and nothing behind it.
    assert counts.keys() == {*range(1, 301), *(order for order in range(301, 1201) if order % 3 != 2)}
    assert all(times >= 2 for order, times in counts.items() if order <= 300)
    assert all(times == 1 for order, times in counts.items() if order > 300)
    works = True
    rig.move(60)
    await rig.until_none_waits(within_s=40.0)
    for key in bad:
        told = [made.orders[0] for made in rig.calls.made if made.deliveries[0].key == key]
        assert told == sorted(told)
        assert len(set(told)) == 2
    (endpoint,) = rig.copies[0].working._held.values()
    source = endpoint._intake.source
    assert isinstance(source, ordered.Ordered)

    async def none_is_busy() -> bool:
        return not source._busy  # They are let go right after the last outcome is stored.

    await until("no key is busy", none_is_busy)


async def test_what_is_forgotten_while_it_is_read_on_blocks_what_is_behind_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "MAX_BUSY", 0)
    await rig.subscribe(ordering=pb.ORDERING_MESSAGE)
    source = ordered.Ordered(rig.database, "sub_1", Weight(Memory()))
    await rig.enqueue(b"key")
    (head,) = await source.read(rig.clock.now_us())
    await rig.enqueue(b"key", b"other")
    later_us = rig.clock.now_us() + 60 * SECOND_US
    await rig.deliveries.update_one({"_id": head.id}, {"$set": {"due_at_us": later_us}, "$inc": {"attempts": 1}})
    asked = source._behind

    async def behind(names: set[bytes]) -> set[bytes]:
        found = await asked(names)
        # What became of the head is written down by somebody else, while MongoDB is asked.
        source.ended(head, later_us)
        return found

    monkeypatch.setattr(source, "_behind", behind)
    source.told()
    assert [one.key for one in await source.read(rig.clock.now_us())] == [b"other"]


@pytest.mark.timed
async def test_what_is_in_no_order_is_told_at_once(rig: Rig) -> None:
    await rig.subscribe(ordering=pb.ORDERING_MESSAGE)
    await rig.copy(look_s=60.0)
    for number in range(1, 5):
        await rig.enqueue()
        await rig.calls.until(number, within_s=0.6)
    await rig.until_none_waits()
    await rig.enqueue(number=2500)
    await rig.until_none_waits(within_s=8.0)


async def test_what_is_in_no_order_and_stored_late_is_told(rig: Rig) -> None:
    """A transaction takes its time: what it stores was due before the latest reading began."""
    await rig.subscribe(ordering=pb.ORDERING_MESSAGE)
    await rig.enqueue()
    await rig.copy()
    await rig.until_none_waits()
    late_us = rig.clock.now_us() - 5 * SECOND_US
    await rig.enqueue(due_at_us=late_us, created_at_us=late_us)
    await rig.until_none_waits()
    assert rig.calls.orders() == [1, 2]


async def test_what_is_in_no_order_is_told_as_well(rig: Rig) -> None:
    """Notices have an order of their own, which may be before all that was read."""
    await rig.subscribe(ordering=pb.ORDERING_MESSAGE)
    rig.order = 10**9
    await rig.enqueue(*[b"a", b"b"] * 10)
    await rig.copy()
    await rig.until_none_waits()
    rig.order = 5
    (notice,) = await rig.enqueue(notice=True)
    await rig.until_row(notice, state="delivered")
    said = iter([Outcome(500)])
    rig.calls.answer = lambda _: next(said, Outcome(200))
    (notice,) = await rig.enqueue(notice=True)
    row = await rig.until_row(notice, attempts=1)
    assert row["due_at_us"] - rig.clock.now_us() > 3 * SECOND_US
    rig.move(6)
    await rig.until_row(notice, state="delivered", attempts=2)
