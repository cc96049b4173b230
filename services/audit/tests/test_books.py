"""Which events lie in sealed files, however many there are of both."""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_audit.books import Books
from backhaul_audit.contents import SLOT_US
from backhaul_audit.model import EventId, PileKey
from backhaul_common import mongo
from backhaul_common.ids import derived_id
from backhaul_common.names import AUDIT_CONTENTS_COLLECTION
from backhaul_digests.model import Chain

PILE = PileKey("acme.1", "twilio", Chain.EVENTS)
FILES, EVENTS = 20, 200


@pytest.fixture
async def books(mongo_server: Any, mongo_database: str) -> AsyncIterator[Books]:
    """Of a pile with some files of the same ten minutes; each event's revision is its place modulo 3."""
    client = mongo.connect(mongo_server.uri)
    database = mongo.database(client, mongo_database)
    await database[AUDIT_CONTENTS_COLLECTION].insert_many(
        [
            {
                "_id": str(file),
                "registration": PILE.registration,
                "pile": PILE.id,
                "slots": [7],
                "last_at_us": 7 * SLOT_US,
                "ids": b"".join(bytes.fromhex(event(file, place).id) for place in range(EVENTS)),
                "revisions": array("I", [place % 3 for place in range(EVENTS)]).tobytes(),
            }
            for file in range(FILES)
        ]
    )
    yield Books(database, lambda: 0)
    client.close()


def event(file: int, place: int) -> EventId:
    return EventId(derived_id("event", str(file), str(place)), place % 3)


@pytest.mark.parametrize("many", [1, EVENTS])
async def test_what_lies_in_files_is_found_by_id_and_revision(books: Books, many: int) -> None:
    there = {event(file, place) for file in (0, 3, FILES - 1) for place in range(many)}
    elsewhere = {event(FILES, place) for place in range(many)}
    later = {EventId(one.id, one.revision + 3) for one in there}
    assert await books.found(PILE, there | elsewhere | later, [7]) == there
    assert await books.found(PILE, there, [8]) == set()
    assert await books.found(PILE, set(), [7]) == set()


async def test_the_position_can_be_kept_while_many_files_are_gone_through(books: Books) -> None:
    """The owner has to say that it is at it, or another copy begins with the same, and none ever gets through."""
    contents = books._database[AUDIT_CONTENTS_COLLECTION]  # the test's own
    many = 30_000
    rows = [
        {
            "_id": f"large-{file}",
            "pile": PILE.id,
            "slots": [9],
            "ids": os.urandom(16 * many),
            "revisions": bytes(4 * many),
        }
        for file in range(12)
    ]
    await contents.insert_many(rows)
    longest = 0.0

    async def beside() -> None:
        nonlocal longest
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.002)  # Not more often: what this takes itself is counted too.
            longest = max(longest, time.thread_time() - began)

    other = asyncio.create_task(beside())
    await asyncio.sleep(0)
    began = time.thread_time()
    assert await books.found(PILE, {event(FILES, place) for place in range(EVENTS)}, [9]) == set()
    all_of_it = time.thread_time() - began
    await asyncio.sleep(0.01)  # It may have waited until now.
    other.cancel()
    assert longest < all_of_it / 3
