"""Two copies of the service that commit halves of the same messages at the same time, on a real MongoDB."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from backhaul_channels import EventKind
from backhaul_common.names import (
    COMMUNICATIONS_COLLECTION,
    EVENTS_COLLECTION,
    JOINS_COLLECTION,
    MESSAGES_COLLECTION,
)
from backhaul_normalizer.facts import Fact
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_OBSERVED_INVALID
from books import Books, batch_of, told


async def books_of(rig: Any) -> Books:
    """What MongoDB holds, in the form of the books."""
    books = Books()
    for rows, collection in (
        (books.event_rows, EVENTS_COLLECTION),
        (books.message_rows, MESSAGES_COLLECTION),
        (books.join_rows, JOINS_COLLECTION),
    ):
        rows.update({row["_id"]: row for row in await rig.rows(collection)})
    for row in await rig.rows(COMMUNICATIONS_COLLECTION):
        counts = Counter({"messages": row["messages"]})
        for name in ("fulfilment", "events", "by_machine", "unique"):
            counts.update({f"{name}.{key}": count for key, count in row.get(name, {}).items()})
        books.counts[row["communication_id"]] = counts
    return books


def story(number: int) -> list[Fact]:
    """What is told of one mail that three ids name, by two ways, of which one knows less."""
    first, second, further = f"M{number}", f"A{number}", f"S{number}"
    names: dict[str, Any] = {"name": first, "query": "communicationId=spring"}
    return [
        told(key=f"{number}p", kind=EventKind.QUEUED, at=1, aliases=[second], seq=10, **names),
        told(key=f"{number}d", kind=EventKind.DELIVERED, arrived=105, seq=11, name=first),
        told(key=f"{number}d", kind=EventKind.DELIVERED, at=2, seq=12, **names),
        told(key=f"{number}e", kind=EventKind.DEFERRED, at=2, name=second, aliases=[further], seq=17),
        told(key=f"{number}o", kind=EventKind.OPENED, at=3, by_machine=True, seq=13, **names),
        told(key=f"{number}b", kind=EventKind.BOUNCED, at=9, name=further, seq=14),
        told(key=f"{number}b", kind=EventKind.BOUNCED, at=9, name=further, error_code="511", seq=15),
        told(
            key=f"{number}b",
            kind=EventKind.BOUNCED,
            name=further,
            error_code="999",
            seq=16,
            verification=VERIFICATION_OBSERVED_INVALID,
        ),
    ]


@pytest.mark.parametrize("seed", range(12))
async def test_two_copies_that_race_for_halves_of_messages_miss_nothing(rig_factory: Any, make: Any, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - an order that can be repeated, no secret
    facts = [fact for number in range(6) for fact in story(number)]
    plain = Books()
    plain.commit(facts)
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        stores = [MongoEventStore(rig.client, rig.database) for _ in range(2)]
        await stores[0].prepare()
        shuffled = chance.sample(facts, len(facts)) + chance.sample(facts, len(facts) // 2)

        async def commit(store: MongoEventStore, share: list[Fact]) -> None:
            while share:
                size = chance.randint(1, 5)
                batch, share = share[:size], share[size:]
                await store.commit(batch_of(batch), [])

        await asyncio.gather(commit(stores[0], shuffled[::2]), commit(stores[1], shuffled[1::2]))
        found = await books_of(rig)
    assert found.state() == plain.state()
    assert found.totals() == found.recount()
