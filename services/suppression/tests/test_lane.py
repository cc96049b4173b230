"""The lane: who shares a commit, who is told what, and that nobody pays for another's mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_suppression import lane as lanes
from backhaul_suppression.lane import Lane
from backhaul_suppression.model import Fact
from backhaul_suppression.store import Committed
from backhaul_testing import make
from store_rig import AtOnce, Rig, fact, row_id


class Held:
    """A store that says what it was asked, and answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.let = asyncio.Event()
        self.seq = 0

    async def commit(self, facts: Sequence[Fact]) -> Committed:
        self.asked.append([one.id for one in facts])
        await self.let.wait()
        if any(one.note == "away" for one in facts):
            raise BackhaulError(Code.UNAVAILABLE, "away")
        if any(one.note == "bad" for one in facts):
            raise ValueError("bad")
        self.seq += len(facts)
        return Committed(kept={one.id: one for one in facts}, seq=self.seq)


def some(first: int, number: int, note: str = "") -> list[Fact]:
    return [fact(f"{one:032x}", one + 1, note=note) for one in range(first, first + number)]


async def test_what_comes_during_a_commit_shares_the_next() -> None:
    store, barrier = Held(), AtOnce()
    lane = Lane(store, barrier)
    first = asyncio.create_task(lane.record(some(0, 1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(lane.record(some(one, 1))) for one in range(1, 6)]
    store.let.set()
    recorded = await asyncio.gather(first, *others)
    assert [len(one) for one in store.asked] == [1, 5]
    assert [one.seq for one in recorded] == [1, 6, 6, 6, 6, 6]
    # The five wait for one barrier.
    assert barrier.asked == [1, 6]


async def test_a_long_list_is_cut_and_lets_the_others_in_between() -> None:
    store = Held()
    store.let.set()
    lane = Lane(store, AtOnce())
    lists = [asyncio.create_task(lane.commit(some(one * 10_000, 3000))) for one in range(2)]
    await asyncio.sleep(0)
    stop = asyncio.create_task(lane.record(some(90_000, 1)))
    await stop
    assert [f"{90_000:032x}"] in store.asked[:3]
    await asyncio.gather(*lists)
    assert max(len(one) for one in store.asked) == lanes.MAX_FACTS


async def test_a_bad_batch_is_its_own_callers_alone() -> None:
    store = Held()
    lane = Lane(store, AtOnce())
    tasks = [asyncio.create_task(lane.record(some(one, 1, note="bad" if one == 3 else ""))) for one in range(8)]
    await asyncio.sleep(0)
    store.let.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one).__name__ for one in results] == ["Recorded"] * 3 + ["ValueError"] + ["Recorded"] * 4


async def test_while_the_database_is_away_everybody_is_told_at_once() -> None:
    store = Held()
    store.let.set()
    lane = Lane(store, AtOnce())
    tasks = [asyncio.create_task(lane.record(some(one, 1, note="away"))) for one in range(4)]
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, BackhaulError)
        assert result.code is Code.UNAVAILABLE
    assert len(store.asked) == 1


async def test_whoever_gives_up_waiting_keeps_nobody() -> None:
    store = Held()
    lane = Lane(store, AtOnce())
    tasks = [asyncio.create_task(lane.record(some(one, 1))) for one in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    store.let.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, BaseException) for one in results] == [False, True, False]


async def test_what_waits_is_bounded_and_refused_when_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MAX_WAITING_BYTES", 2000)
    store = Held()
    lane = Lane(store, AtOnce())
    tasks = [asyncio.create_task(lane.record(some(one, 1))) for one in range(8)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in tasks].count(True) == 5
    await lane.close()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, BackhaulError)
        assert result.code is Code.UNAVAILABLE


async def test_each_is_told_of_its_own_facts(rig: Rig) -> None:
    await rig.register(make.tenant("acme"))
    lane = Lane(rig.store(), AtOnce())
    stop, start = fact("a" * 32, 1000), fact("b" * 32, 2000, lifts=True)
    other = replace(stop, note="another")
    stopped, started, compared = await asyncio.gather(
        lane.record([stop]), lane.record([start]), lane.record([other]), return_exceptions=False
    )
    assert [change.fact for change in stopped.changes] == [stop]
    assert [change.fact for change in started.changes] == [start]
    assert (stopped.existing, compared.existing) == ({}, {stop.id: stop})
    assert not started.rows[row_id()].active
    await rig.check()


async def test_a_fact_that_cannot_be_stored_is_its_own_callers_alone(rig: Rig) -> None:
    await rig.register(make.tenant("acme"))
    lane = Lane(rig.store(), AtOnce())
    bad = fact("c" * 32, 1 << 80)
    results = await asyncio.gather(
        lane.record([fact("a" * 32, 1000)]),
        lane.record([fact("b" * 32, 2000), bad]),
        lane.record([fact("d" * 32, 3000)]),
        return_exceptions=True,
    )
    assert isinstance(results[1], OverflowError)
    assert [one.id for one in await rig.facts()] == ["a" * 32, "d" * 32]
    await rig.check()
    # What was wrong with it left nothing behind.
    await lane.record([fact("b" * 32, 2000)])
    await rig.check()
