"""A position that is stored with what was made of the messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.feed import StreamMessage
from backhaul_common.following import MongoProgress


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
    assert (await total(database), await Sums(database).position(), sums.told) == (3, 2, [3])
    await sums.dead_letter(messages(3)[0], ValueError())
    assert (await total(database), await Sums(database).position(), sums.told) == (3, 3, [3])


async def test_of_two_copies_one_counts_and_the_other_begins_anew(database: mongo.Database) -> None:
    one, other = Sums(database), Sums(database)
    assert [await copy.position() for copy in (one, other)] == [0, 0]
    results = await asyncio.gather(*(copy.apply(messages(1, 2, 3)) for copy in (one, other)), return_exceptions=True)
    (refused,) = [result for result in results if result is not None]
    assert isinstance(refused, BackhaulError)
    assert refused.code is Code.UNAVAILABLE
    assert await total(database) == 6
    assert sorted([*one.told, *other.told]) == [6]
    late = one if not one.told else other
    changed = late.changed
    assert await late.position() == 3
    assert changed.is_set()  # Whoever watches this copy looks again.
    await late.apply(messages(4))
    assert await total(database) == 10
