"""A position that is stored with what was made of the messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from backhaul_common import following, mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.feed import StreamMessage
from backhaul_common.following import MongoProgress
from backhaul_common.lifecycle import cancel


class Sums(MongoProgress[int]):
    """Adds up positions."""

    def __init__(self, database: mongo.Database) -> None:
        super().__init__(database, "positions", "NUMBERS")
        self.told: list[int] = []
        self.fails = False

    def store(self, messages: Sequence[StreamMessage], database: mongo.ThreadDatabase, session: mongo.Session) -> int:
        total = sum(message.stream_seq for message in messages)
        database["sums"].update_one({"_id": "sum"}, {"$inc": {"sum": total}}, upsert=True, session=session)
        if self.fails:
            raise ValueError("after it was written")
        return total

    def stored(self, result: int) -> None:
        self.told.append(result)


def messages(*positions: int) -> list[StreamMessage]:
    return [cast("StreamMessage", SimpleNamespace(stream_seq=position)) for position in positions]


@pytest.fixture
async def database(mongo_server: Any, mongo_database: str) -> AsyncIterator[mongo.Database]:
    client = mongo.connect(mongo_server.uri)
    yield mongo.database(client, mongo_database)
    client.close()


async def total(database: mongo.Database) -> int:
    row = await database["sums"].find_one({"_id": "sum"})
    return int(row["sum"]) if row is not None else 0


async def stored(database: mongo.Database) -> int:
    row = await database["positions"].find_one({"_id": "NUMBERS"})
    assert row is not None
    return int(row["position"])


async def test_results_and_position_are_stored_together_or_not_at_all(database: mongo.Database) -> None:
    sums = Sums(database)
    assert await sums.position() == 0
    changed = sums.changed
    await sums.apply(messages(1, 2))
    assert changed.is_set()
    assert not sums.changed.is_set()
    sums.fails = True
    with pytest.raises(ValueError, match="after it was written"):
        await sums.apply(messages(3))
    assert (await total(database), await stored(database), sums.told) == (3, 2, [3])
    await sums.dead_letter(messages(3)[0], ValueError())
    assert (await total(database), await stored(database), sums.told) == (3, 3, [3])


async def test_what_is_stored_at_once_follows_one_another_and_never_goes_back(database: mongo.Database) -> None:
    sums = Sums(database)
    await sums.position()
    await asyncio.gather(*(sums.apply(messages(position)) for position in (1, 3, 2)))
    assert (await total(database), await stored(database)) == (6, 3)
    await sums.apply(messages(4))
    assert await stored(database) == 4


@asynccontextmanager
async def waiting(copy: Sums) -> AsyncIterator[asyncio.Task[int]]:
    """``copy`` asks for the position while another one is at it."""
    task = asyncio.create_task(copy.position())
    try:
        changed = copy.changed
        await asyncio.wait({task}, timeout=0.5)
        assert not task.done()
        assert not changed.is_set()
        yield task
    finally:
        await cancel(task)


async def test_a_copy_waits_while_another_is_at_it_and_goes_on_when_that_one_stops(database: mongo.Database) -> None:
    one, other = Sums(database), Sums(database)
    assert await one.position() == 0
    keeping = asyncio.create_task(one.keep())
    try:
        async with waiting(other) as position:
            changed = other.changed
            await one.apply(messages(1, 2, 3))
            await asyncio.wait_for(changed.wait(), 60)  # Whoever watches this copy looks again.
            assert not position.done()
            await cancel(keeping)
            assert await asyncio.wait_for(position, 60) == 3
            await other.apply(messages(4))
    finally:
        await cancel(keeping)
    assert (await total(database), one.told, other.told) == (10, [6], [4])


async def test_a_copy_that_is_not_heard_of_is_succeeded_and_stores_nothing_more(
    database: mongo.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "OWNED_S", 3.0)
    one, other = Sums(database), Sums(database)
    await one.position()
    async with waiting(other) as position:
        assert await asyncio.wait_for(position, 60) == 0
    with pytest.raises(BackhaulError) as refused:
        await one.apply(messages(1, 2, 3))
    assert refused.value.code is Code.UNAVAILABLE
    await other.apply(messages(1, 2, 3))
    assert (await total(database), one.told, other.told) == (6, [], [6])


async def test_a_copy_that_was_succeeded_hears_of_it_though_it_stores_nothing(
    database: mongo.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "OWNED_S", 1.0)
    monkeypatch.setattr(following, "_RENEW_S", 2.0)  # As one that slept.
    one, other = Sums(database), Sums(database)
    await one.position()
    keeping = asyncio.create_task(one.keep())
    async with waiting(other) as position:
        assert await asyncio.wait_for(position, 60) == 0
    with pytest.raises(BackhaulError) as refused:
        await asyncio.wait_for(keeping, 60)
    assert refused.value.code is Code.UNAVAILABLE
    await other.apply(messages(1, 2, 3))  # Its end takes nothing from the one that goes on.


async def test_a_copy_that_is_idle_is_heard_of(database: mongo.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "OWNED_S", 2.0)
    monkeypatch.setattr(following, "_RENEW_S", 0.2)
    one, other = Sums(database), Sums(database)
    await one.position()
    keeping = asyncio.create_task(one.keep())
    try:
        async with waiting(other) as position:
            await asyncio.wait({position}, timeout=4)
            assert not position.done()
            await one.apply(messages(1))
    finally:
        await cancel(keeping)


@pytest.mark.timed
async def test_a_copy_that_asks_again_does_not_wait_for_itself(database: mongo.Database) -> None:
    one = Sums(database)
    await one.position()
    await one.apply(messages(1))
    assert await asyncio.wait_for(one.position(), 0.9) == 1
