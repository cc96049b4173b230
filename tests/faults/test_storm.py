"""A short storm over two copies of everything, its plan, and an account that finds what somebody took away."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_common.names import EVENTS_COLLECTION
from backhaul_local.scratch import scratch
from faults.storm import blow, raging
from faults.storm_account import Journal, judge, reckon, table
from faults.storm_schedule import Fault, all_after, draw
from pymongo import AsyncMongoClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faults.storm_account import Case

TARGETS = [f"target-{number}" for number in range(15)]
SHORT_S, OFTEN_S = 12.0, 0.8
"""So that each target of a short storm has one fault."""


@pytest.mark.parametrize("seed", range(20))
def test_a_whole_storm_does_everything_to_everything_and_nothing_twice_at_once(seed: int) -> None:
    plan = draw(seed, TARGETS, all_after(TARGETS))
    assert len(plan) == len({(one.target, one.fault) for one in plan}) == len(TARGETS) * len(Fault)
    assert plan == sorted(plan, key=lambda one: one.at)
    for one, other in combinations(plan, 2):
        assert one.target != other.target or one.ends < other.at
    assert any(one.ends > other.at for one, other in combinations(plan, 2)), "nothing happens at the same time"


def test_a_short_one_meets_each_target_and_each_fault() -> None:
    plan = draw(3, TARGETS, SHORT_S, every_s=OFTEN_S)
    assert {one.target for one in plan} == set(TARGETS)
    assert {one.fault for one in plan} == set(Fault)


def test_a_seed_repeats_its_plan() -> None:
    assert draw(5, TARGETS, 60) == draw(5, TARGETS, 60)
    assert draw(5, TARGETS, 60) != draw(6, TARGETS, 60)


def test_a_pause_is_the_time_between_two_answers_around_a_fault() -> None:
    journal = Journal([(200, 0, 1), ("ReadTimeout", 2, 4), (503, 3, 4), (200, 5, 6), (200, 6, 6.5)])
    assert journal.longest_pause(2, 3) == 5
    assert journal.longest_pause(6.1, 9) == 0.5
    assert journal.during(3.5, 5) == ["ReadTimeout", 503, 200]


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_nothing_is_lost_or_doubled_and_what_somebody_takes_or_adds_is_found() -> None:
    with scratch() as folder:
        async with raging(folder, seed=3) as case:
            plan = draw(3, case.storm.targets, SHORT_S, every_s=OFTEN_S)
            await blow(case, plan)
            verdict = await judge(case)
            assert verdict.good, verdict
            assert len(case.storm.happened) == len(plan)
            assert all(verdict.counts.values())
            assert len(list(table(case, verdict))) == len(plan) + 2
            async with _one_taken(case):
                lost, doubled = await reckon(case)
                assert (len(lost), len(doubled)) == (1, 0)
                found = await judge(case)
                assert (found.lost, found.doubled) == (lost, set())
                claims = {said.partition(":")[0] for said in found.wrong}
                assert claims == {"events, messages and communications", "lists, counts and EVENTS", "recounts"}
            async with _one_added(case):
                lost, doubled = await reckon(case)
                assert (len(lost), bool(doubled)) == (0, True)
                assert not replace(verdict, doubled=doubled).good
            assert await reckon(case) == (set(), set())


@asynccontextmanager
async def _events(case: Case) -> AsyncIterator[Any]:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(case.storm.stack.mongo_uri)
    async with client:
        yield client[case.storm.stack.mongo_database][EVENTS_COLLECTION]


@asynccontextmanager
async def _one_taken(case: Case) -> AsyncIterator[None]:
    """An event is gone from its bucket."""
    async with _events(case) as events:
        bucket = await events.find_one({"registration": case.loaded[0].registration})
        await events.update_one({"_id": bucket["_id"]}, {"$pop": {"events": 1}})
        yield
        await events.replace_one({"_id": bucket["_id"]}, bucket)


@asynccontextmanager
async def _one_added(case: Case) -> AsyncIterator[None]:
    """A bucket is there twice."""
    async with _events(case) as events:
        bucket = await events.find_one({"registration": case.loaded[0].registration})
        again = {**bucket, "_id": bytes(reversed(bucket["_id"]))}
        await events.insert_one(again)
        yield
        await events.delete_one({"_id": again["_id"]})
