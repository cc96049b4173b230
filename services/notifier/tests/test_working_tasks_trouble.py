"""What is to be sent again is sent once, whatever happens to the copy that does it, or to the endpoint."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.errors import unavailable
from backhaul_notifier.working import tasks
from backhaul_notifier.working.endpoints import MongoEndpoints
from backhaul_testing.waiting import until
from tasks_rig import ask, dues, ended, free, until_done
from working_rig import SECOND_US, Copy, Rig, rigged


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASK_PAGE", 10)


async def test_a_task_that_is_not_begun_is_left_to_the_next_copy_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits but the task: whoever gives the endpoint back says that it is due."""
    await rig.subscribe()
    ids = await rig.enqueue(number=5, **ended(rig))
    asked, row = asyncio.Event(), MongoEndpoints.row

    async def away(self: MongoEndpoints, id_: str) -> Any:
        if not asked.is_set():
            asked.set()
            raise unavailable("MongoDB")
        return await row(self, id_)

    monkeypatch.setattr(MongoEndpoints, "row", away)
    copy = await rig.copy("first")
    await ask(rig, "failed")
    await asked.wait()
    await copy.stop()
    endpoint = await rig.endpoints.find_one({"_id": "sub_1"})
    assert endpoint is not None
    assert (endpoint["owner"], len(endpoint["tasks"])) == ("", 1)
    assert "after_us" not in endpoint["tasks"][0]
    assert endpoint["due_at_us"] <= rig.clock.now_us()
    assert not rig.calls.made
    await rig.copy("second")
    for id_ in ids:
        await rig.until_row(id_, state="delivered")
    assert {made.copy for made in rig.calls.made} == {"second"}


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("after", [False, True], ids=["before it is written", "after it is written"])
async def test_a_copy_that_is_killed_in_the_middle_is_followed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    await rig.subscribe()
    ids = [id_ for _ in range(19) for id_ in await rig.enqueue(number=5, **ended(rig))]
    await ask(rig, "failed", rate_per_s=10)
    hangs, pages = asyncio.Event(), 0
    whole = mongo.in_transaction

    async def killed(database: Any, work: Callable[..., Any]) -> Any:
        nonlocal pages
        pages += 1
        if pages % 3:
            return await whole(database, work)
        if after:
            await whole(database, work)
        hangs.set()
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(mongo, "in_transaction", killed)
    for number in range(3):
        copy: Copy = await rig.copy(f"copy{number}")
        await asyncio.wait_for(hangs.wait(), 60)
        hangs.clear()
        await copy.die()
        await free(rig)
        await asyncio.sleep(0.25)
    endpoint = await rig.endpoints.find_one({"_id": "sub_1"})
    assert endpoint is not None
    assert endpoint["tasks"][0]["after_us"]
    done = await rig.deliveries.count_documents({"state": {"$ne": "failed"}})
    assert done == (90 if after else 60)
    monkeypatch.setattr(mongo, "in_transaction", whole)
    await rig.copy("last")
    await until_done(rig)
    waiting = sorted(await dues(rig))
    # The rate is kept over all of them, and nothing is made up for.
    assert min(later - sooner for sooner, later in pairwise(waiting)) >= SECOND_US // 10
    rig.move(60)
    await rig.until_none_waits()
    counts = Counter(rig.calls.orders())
    assert counts.keys() == set(range(1, 96))
    # Twice only what a copy had called and not written down when it died.
    assert counts.total() <= 95 + 3 * 8
    rows = [await rig.row(id_) for id_ in ids]
    assert {row["attempts"] for row in rows} == {1}


@pytest.mark.usefixtures("small_pages")
async def test_who_has_lost_the_endpoint_does_nothing_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.subscribe()
    for _ in range(10):
        await rig.enqueue(number=5, **ended(rig))
    whole = mongo.in_transaction
    pages = 0

    async def taken(database: Any, work: Callable[..., Any]) -> Any:
        nonlocal pages
        pages += 1
        if pages == 3:
            change = {"$set": {"owner": "another", "active": False}, "$inc": {"epoch": 1}}
            await rig.endpoints.update_one({"_id": "sub_1"}, change)
        return await whole(database, work)

    monkeypatch.setattr(mongo, "in_transaction", taken)
    copy = await rig.copy()
    await ask(rig, "failed", rate_per_s=1)

    async def gone() -> bool:
        return pages == 3 and not copy.working.held

    await until("it is let go", gone)
    assert await rig.deliveries.count_documents({"state": "failed"}) == 30
    endpoint = await rig.endpoints.find_one({"_id": "sub_1"})
    assert endpoint is not None
    assert endpoint["owner"] == "another"
    assert len(endpoint["tasks"]) == 1


@pytest.mark.usefixtures("small_pages")
async def test_what_is_paused_meanwhile_goes_on_when_it_is_resumed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    subscription = await rig.subscribe()
    for _ in range(20):
        await rig.enqueue(number=5, **ended(rig))
    whole = mongo.in_transaction
    pages = 0

    async def paused(database: Any, work: Callable[..., Any]) -> Any:
        nonlocal pages
        pages += 1
        if pages == 4:
            await rig.subscriptions.put(replace(subscription, state="paused"))
        return await whole(database, work)

    monkeypatch.setattr(mongo, "in_transaction", paused)
    copy = await rig.copy()
    await ask(rig, "failed", rate_per_s=100)

    async def left() -> bool:
        endpoint = await rig.endpoints.find_one({"_id": "sub_1", "owner": ""})
        return pages >= 4 and not copy.working.held and endpoint is not None

    await until("it is given back", left)
    assert pages == 4
    assert await rig.deliveries.count_documents({"state": "failed"}) == 60
    endpoint = await rig.endpoints.find_one({"_id": "sub_1"})
    assert endpoint is not None
    assert endpoint["due_at_us"] <= rig.clock.now_us()
    await rig.subscriptions.put(replace(subscription, state="active"))
    await until_done(rig)
    rig.move(5)
    await rig.until_none_waits()
    assert Counter(rig.calls.orders()) == dict.fromkeys(range(1, 101), 1)


@pytest.mark.usefixtures("small_pages")
async def test_one_that_is_withdrawn_changes_nothing_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.subscribe()
    for _ in range(8):
        await rig.enqueue(number=5, **ended(rig))
    whole = mongo.in_transaction
    pages = 0

    async def withdrawn(database: Any, work: Callable[..., Any]) -> Any:
        nonlocal pages
        pages += 1
        if pages == 2:
            await rig.endpoints.update_one({"_id": "sub_1"}, {"$unset": {"tasks": ""}})
        return await whole(database, work)

    monkeypatch.setattr(mongo, "in_transaction", withdrawn)
    await rig.copy()
    await ask(rig, "failed")
    await rig.calls.until(10)
    (new,) = await rig.enqueue()
    await rig.until_row(new, state="delivered")
    assert pages == 2
    assert await rig.deliveries.count_documents({"state": "failed"}) == 30


@pytest.mark.usefixtures("small_pages")
async def test_it_is_tried_again_while_mongodb_is_away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.subscribe()
    for _ in range(6):
        await rig.enqueue(number=5, **ended(rig))
    whole, row, failures = mongo.in_transaction, MongoEndpoints.row, 0

    async def away(database: Any, work: Callable[..., Any]) -> Any:
        nonlocal failures
        failures += 1
        if failures == 2:
            raise unavailable("MongoDB")
        return await whole(database, work)

    async def away_too(self: MongoEndpoints, id_: str) -> Any:
        nonlocal failures
        if failures == 3:
            failures += 1
            raise unavailable("MongoDB")
        return await row(self, id_)

    monkeypatch.setattr(mongo, "in_transaction", away)
    monkeypatch.setattr(MongoEndpoints, "row", away_too)
    await rig.copy()
    await ask(rig, "failed")
    await rig.calls.until(30)
    await until_done(rig)
    assert failures > 4
    assert Counter(rig.calls.orders()) == dict.fromkeys(range(1, 31), 1)
