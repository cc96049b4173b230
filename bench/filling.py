"""A store that holds a million events before anything is measured: copies of what the normalizer has stored itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from backhaul_common.ids import derived_id
from backhaul_common.names import (
    EVENTS_COLLECTION,
    JOINS_COLLECTION,
    MESSAGES_COLLECTION,
    META_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.refs import Ref, pack, unpack
from installation import PROCESSED, Document, Installation
from pymongo import IndexModel, WriteConcern

_WRITERS = 2
_TOGETHER = 2500
_DAY_US = 24 * 60 * 60 * 1_000_000


def copied(stored: Mapping[str, Sequence[Document]], n: int) -> dict[str, list[Document]]:
    """Copy number ``n`` of one tenant's documents, by collection: as if the normalizer had stored the same events of
    other messages, ``n`` days earlier. A message's id, and each further name of it, gets ``-n`` behind it; its events
    are that message's. What it counts for is not copied: that is a document a day, however many events there are.

    This alone knows how the normalizer lays out what it stores.
    """
    keys: dict[bytes, bytes] = {}
    messages = []
    for message in stored[MESSAGES_COLLECTION]:
        registration, channel = message["registration"], message["channel"]
        names = {alias: copied_id(alias, n) for alias, _ in message.get("aliases", ())}
        for name, copy in {**names, message["message_id"]: copied_id(message["message_id"], n)}.items():
            keys[_key(registration, channel, name)] = _key(registration, channel, copy)
        further: Document = {}
        if names:
            further["aliases"] = [[names[alias], trust] for alias, trust in message["aliases"]]
        if "references" in message:
            further["references"] = [copied_id(one, n) for one in message["references"]]
        messages.append(
            {
                **message,
                **further,
                "_id": keys[message["_id"]],
                "message_id": copied_id(message["message_id"], n),
                "created_at_us": message["created_at_us"] - n * _DAY_US,
                "refs": pack(_earlier(ref, n) for ref in unpack(message["refs"])),
                "buckets": [_bucket_id(one, n) for one in message["buckets"]],
            }
        )
    joins = [
        {
            **join,
            "_id": keys[join["_id"]],
            "message": keys[join["message"]] if join["message"] else join["message"],
            "message_id": copied_id(join["message_id"], n) if join["message"] else join["message_id"],
        }
        for join in stored[JOINS_COLLECTION]
    ]
    buckets = [
        {
            **bucket,
            "_id": _bucket_id(bucket["_id"], n),
            "at_us": bucket["at_us"] - n * _DAY_US,
            "first_us": bucket["first_us"] - n * _DAY_US,
            "events": [
                {
                    **event,
                    **{name: keys[event[name]] for name in ("message", "alias") if name in event},
                    "id": _event_id(event["id"], n),
                }
                for event in bucket["events"]
            ],
        }
        for bucket in stored[EVENTS_COLLECTION]
    ]
    return {MESSAGES_COLLECTION: messages, JOINS_COLLECTION: joins, EVENTS_COLLECTION: buckets}


def _key(registration: str, channel: str, name: str) -> bytes:
    return bytes.fromhex(message_key(registration, channel, name))


def _earlier(ref: Ref, n: int) -> Ref:
    return ref._replace(
        id=_event_id(ref.id, n),
        bucket=_bucket_id(ref.bucket, n),
        received_at_us=ref.received_at_us - n * _DAY_US,
    )


def _event_id(event_id: bytes, n: int) -> bytes:
    return bytes.fromhex(derived_id(event_id.hex(), str(n)))


def _bucket_id(bucket: bytes, n: int) -> bytes:
    # It begins with the time at which it was written, so that copies lie where their originals would.
    return (int.from_bytes(bucket[:8], "big") - n * _DAY_US).to_bytes(8, "big") + bucket[8:]


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
