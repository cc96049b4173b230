"""What became of calls is written down together, and each delivery says its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from backhaul_common.lifecycle import cancel
from backhaul_notifier.documents import MAX_TRIES
from backhaul_notifier.model import Attempted, Delivery
from backhaul_notifier.schedules import STANDARD, Decision, Outcome, decide
from backhaul_notifier.working.endpoints import Held, MongoEndpoints
from backhaul_notifier.working.results import GROUP, Result, Results, Unwanted, Written
from msgspec.structs import replace
from working_rig import Rig, rigged

DAYS = 2.0
Write = Callable[..., Awaitable[set[bool]]]


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


@pytest.fixture
async def endpoints(rig: Rig) -> MongoEndpoints:
    await rig.subscribe()
    return MongoEndpoints(rig.database, "one")


@pytest.fixture
async def held(endpoints: MongoEndpoints) -> Held:
    taken = await endpoints.take("sub_1")
    assert taken is not None
    return taken


@pytest.fixture
async def write(rig: Rig, endpoints: MongoEndpoints) -> AsyncIterator[Write]:
    tasks = []

    async def write(*written: Written, **more: Any) -> set[bool]:
        """Have them written; what they are told of it, when the last one is."""
        results = Results(rig.database, endpoints, **more)
        told: asyncio.Queue[bool] = asyncio.Queue()
        for one in written:
            results.add(replace(one, written=lambda _, unsure: told.put_nowait(unsure)))
        tasks.append(asyncio.create_task(results.run()))
        async with asyncio.timeout(60):
            return {await told.get() for _ in written}

    yield write
    for task in tasks:
        await cancel(task)


def ignored(_: Written, __: bool) -> None:
    raise AssertionError


def result(held: Held, row: dict[str, Any], status: int, answer: str = "", *, days: float = DAYS) -> Result:
    one = Delivery.of(row)
    outcome = Outcome(status)
    decision: Decision = decide(STANDARD, one.counted + 1, outcome, 1_000_000, 0.0, our_failures=one.ours)
    attempted = Attempted(one.order, 7, outcome, f"It answered {status}.", answer, "POST https://example.com/$a")
    return Result(one, attempted, decision, 5_000_000, days, held, ignored)


async def test_each_of_a_group_says_what_became_of_itself(rig: Rig, held: Held, write: Write) -> None:
    ids = await rig.enqueue(number=3)
    ids += await rig.enqueue(attempts=4, counted=3, ours=1, tries=[{"number": n} for n in range(MAX_TRIES)])
    ids += await rig.enqueue(unsure=True, type="message.any")
    unwanted = (await rig.enqueue(unsure=True))[0]
    before = [await rig.row(id_) for id_ in ids]
    statuses = (200, 410, 500, 200, 200)
    results = [
        result(held, row, status, f"$answer {row['order']}") for row, status in zip(before, statuses, strict=True)
    ]
    told = await write(*results, Unwanted(Delivery.of(await rig.row(unwanted)), held, ignored))
    assert told == {False}
    assert await rig.deliveries.find_one({"_id": unwanted}) is None
    rows = [await rig.row(id_) for id_ in ids]
    assert [row["state"] for row in rows] == ["delivered", "failed", "waiting", "delivered", "delivered"]
    for row, was, status in zip(rows, before, statuses, strict=True):
        latest = row["tries"][-1]
        assert (latest["number"], latest["at_us"], latest["status"]) == (was["attempts"] + 1, was["order"], status)
        assert (latest["answer"], latest["request"]) == (f"$answer {was['order']}", "POST https://example.com/$a")
        assert row["attempts"] == was["attempts"] + 1
        assert row["payload"] == was["payload"]
        assert "unsure" not in row
        assert ("due_at_us" in row) == (row["state"] == "waiting") != ("ends_at" in row)
    assert rows[2]["due_at_us"] == results[2].retry_at_us
    assert (rows[2]["counted"], "ours" in rows[2]) == (1, False)
    assert (rows[3]["ours"], len(rows[3]["tries"]), rows[3]["tries"][0]) == (1, MAX_TRIES, {"number": 1})
    assert rows[4]["ended_at_us"] == 5_000_000
    assert (rows[4]["ends_at"].timestamp(), rows[4]["type"]) == (5 + DAYS * 86_400, results[4].delivery.type)


async def test_what_somebody_else_has_written_stays(rig: Rig, held: Held, write: Write) -> None:
    ids = await rig.enqueue(number=2)
    rows = [await rig.row(id_) for id_ in ids]
    await rig.deliveries.update_one({"_id": ids[0]}, {"$set": {"attempts": 1}})
    theirs = await rig.row(ids[0])
    assert await write(*(result(held, row, 200) for row in rows)) == {True}
    assert await rig.row(ids[0]) == theirs
    assert (await rig.row(ids[1]))["state"] == "delivered"


async def test_a_whole_group_of_the_longest_answers_is_written(rig: Rig, held: Held, write: Write) -> None:
    ids = await rig.enqueue(number=GROUP)
    rows = {id_: await rig.row(id_) for id_ in ids}
    assert await write(*(result(held, row, 200, "€" * 4096) for row in rows.values())) == {False}
    assert await rig.deliveries.count_documents({"state": "delivered", "tries.0.answer": "€" * 4096}) == GROUP


async def test_who_waits_in_an_order_does_not_wait_for_a_group(rig: Rig, held: Held, write: Write) -> None:
    ids = await rig.enqueue(b"key", number=1)
    assert await write(result(held, await rig.row(ids[0]), 200), group_s=60.0) == {False}
