"""Whatever is committed between whatever expires: MongoDB answers every question as books in memory do."""

from __future__ import annotations

import random

import pytest
from backhaul_normalizer.reads import MongoReads
from backhaul_normalizer.refs import MAX_REFS
from backhaul_normalizer.store import INDEXES, MongoEventStore
from bookreads import BookReads
from books import Books
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from normalizer_rig import Rig
from retention_rig import end_all, keeping
from storedbooks import stored_books
from tellings import batch_of
from test_oracle import Batch, ask, batches


@pytest.mark.timeout(400)
@settings(
    max_examples=settings.default.max_examples // 10 if settings.default else 10,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(batches(), st.lists(st.booleans(), min_size=12, max_size=12), st.integers(0, 1 << 16))
async def test_every_read_after_expiries_is_that_of_books(
    town: Rig, batches: list[Batch], expiries: list[bool], seed: int
) -> None:
    for name in INDEXES:
        await town.database[name].delete_many({})
    await town.register(keeping("acme", event=30))
    store, books = MongoEventStore(town.client, town.database), Books()
    for batch, expires in zip([*batches, *batches], expiries, strict=False):
        # What no message knows of is not delivered again: it is older than the streams.
        facts = [fact for fact in batch.facts if fact.id not in books.forgotten_rows]
        books.commit(facts)
        await store.commit(batch_of(facts), [])
        if expires:
            await end_all(town, in_days=31)
            books.expire(list(books.event_rows))
        kept = await stored_books(town)
        assert kept.state() == books.state()
    await ask(MongoReads(town.database), BookReads(books, MAX_REFS), random.Random(seed))  # noqa: S311  # choices that can be repeated, no secret
    for message in books.message_rows.values():
        found = await MongoReads(town.database).message("acme.1", message["channel"], message["message_id"])
        assert found is not None
        own = [row for row in books.expired_rows.values() if row["message"] == message["_id"]]
        assert found.expired == sum("duplicate_of" not in row for row in own)
