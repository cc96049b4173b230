"""A store that holds a million events before anything is measured: copies of what the normalizer has stored itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from backhaul_common.ids import derived_id
from backhaul_common.names import EVENTS_COLLECTION, MESSAGES_COLLECTION, META_COLLECTION, TENANTS_COLLECTION
from installation import PROCESSED, Document, Installation
from pymongo import IndexModel, WriteConcern

_WRITERS = 2
_TOGETHER = 2500
_DAY_US = 24 * 60 * 60 * 1_000_000


def copied(stored: Mapping[str, Sequence[Document]], n: int) -> dict[str, list[Document]]:
    """Copy number ``n`` of one tenant's documents, by collection: as if the normalizer had stored the same events of
    other messages, ``n`` days earlier. A message's id gets ``-n`` behind it; its events are that message's.

    This alone knows how the normalizer lays out what it stores.
    """
    keys, messages = {}, []
    for message in stored[MESSAGES_COLLECTION]:
        message_id = copied_id(message["message_id"], n)
        key = derived_id(message["registration"], message["channel"], message_id)
        keys[message["_id"]] = key
        created_at_us = message["created_at_us"] - n * _DAY_US
        messages.append({**message, "_id": key, "message_id": message_id, "created_at_us": created_at_us})
    events = [
        {
            **event,
            "_id": derived_id(event["_id"], str(n)),
            "message": keys[event["message"]],
            "received_at_us": event["received_at_us"] - n * _DAY_US,
        }
        for event in stored[EVENTS_COLLECTION]
    ]
    return {MESSAGES_COLLECTION: messages, EVENTS_COLLECTION: events}


def copied_id(message_id: str, n: int) -> str:
    """The id of the message in copy number ``n``."""
    return f"{message_id}-{n}"


async def fill(site: Installation, registration: str, database: str, copies: int) -> None:
    """Make ``database``: everything that ``registration`` has in the stack's own, and so many copies of it, with the
    normalizer's indexes and the installation's tenants. The normalizer must not run."""
    source, target = site.database, site.mongo[database]
    for name in (META_COLLECTION, TENANTS_COLLECTION):
        await target[name].insert_many(await source[name].find({}).to_list(None))
    relaxed = WriteConcern(1, j=False)
    stored: dict[str, list[Document]] = {}
    for name in PROCESSED:
        stored[name] = await source[name].find({"registration": registration}).to_list(None)
        if stored[name]:
            await target.get_collection(name, write_concern=relaxed).insert_many(stored[name])
    numbers = iter(range(1, copies + 1))

    async def write() -> None:
        for n in numbers:
            for name, documents in copied(stored, n).items():
                collection = target.get_collection(name, write_concern=relaxed)
                for at in range(0, len(documents), _TOGETHER):
                    await collection.insert_many(documents[at : at + _TOGETHER], ordered=False)

    await asyncio.gather(*(write() for _ in range(_WRITERS)))
    # Indexes after the documents: sorting once takes a third of inserting into each. They are the normalizer's own.
    for name in PROCESSED:
        indexes = []
        for index, options in (await source[name].index_information()).items():
            if index != "_id_":
                kept = {key: value for key, value in options.items() if key not in ("v", "ns", "key")}
                indexes.append(IndexModel(options["key"], name=index, **kept))
        if indexes:
            await target[name].create_indexes(indexes)  # Together, so that the documents are read once.
    # What waits to be written is written now, not while the first round measures.
    await site.checkpoint()
