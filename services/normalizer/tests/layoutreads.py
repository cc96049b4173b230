"""What the tests of the layout share: commits, and all of a list, as a tenant reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backhaul_common.documents import Document
from backhaul_common.names import ENTRIES_COLLECTION
from backhaul_normalizer.model import Committed, Fact
from backhaul_normalizer.reads import MongoReads
from backhaul_normalizer.store import MongoEventStore
from books import Books
from normalizer_rig import Rig
from storedbooks import stored_books
from tellings import batch_of


async def commit(rig: Rig, *facts: Fact) -> Committed:
    return await MongoEventStore(rig.client, rig.database).commit(batch_of(facts), [])


async def all_of(rig: Rig, *, of: str = "acme", size: int = 70, **filters: Any) -> list[str]:
    """Ids of all events of a list, in pages."""
    found: list[str] = []
    token = ""
    while True:
        rows, token = await MongoReads(rig.database).events(f"{of}.1", filters, (0, 0), size, token)
        found += [row["_id"] for row in rows]
        if not token:
            return found


async def timeline(rig: Rig, name: str = "M1") -> tuple[list[str], bool]:
    found = await MongoReads(rig.database).message("acme.1", "sendgrid", name)
    assert found is not None
    return [row["_id"] for row in found.events], found.more


async def alone(rig: Rig) -> list[Document]:
    return await rig.database[ENTRIES_COLLECTION].find({"alone": True}).to_list(None)


def newest(facts: Sequence[Fact]) -> list[str]:
    order = sorted(facts, key=lambda one: (one.origin.received_at_us, one.id), reverse=True)
    return [one.id for one in order]


async def agree(rig: Rig, books: Books) -> None:
    """Also by what each part of the layout says of the others, which is looked at as it is read."""
    kept = await stored_books(rig)
    assert kept.state() == books.state()
    assert kept.totals() == kept.recount()
