"""The least that storing and decoding can cost, measured in the same run as what they are compared with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import bson
import msgspec
from backhaul_common.names import EVENTS_STREAM
from backhaul_proto.callback.v1.callback_pb2 import CallbackBatch
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from bson.raw_bson import RawBSONDocument
from fast_query_parsers import parse_query_string
from installation import Document, Installation
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from pymongo import IndexModel, WriteConcern

_DATABASE = "bench_floor"
_COLLECTION = "documents"
_REPEATED = 3
"""How often everything is done: the kernel counts in hundredths of a second, and floors take few of them."""


async def published(site: Installation, tenant_path: str, count: int) -> list[bytes]:
    """The ``count`` serialised events that EVENTS holds of the tenant with this queue path."""
    found: list[bytes] = []
    consumer = await site.js.pull_subscribe(
        f"events.{tenant_path}.>",
        stream=EVENTS_STREAM,
        config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, mem_storage=True),
    )
    while len(found) < count:
        for message in await consumer.fetch(200, timeout=10):
            found += [event.SerializeToString() for event in EventBatch.FromString(message.data).events]
    await consumer.unsubscribe()
    return found


async def stored_us(site: Installation, payloads: Sequence[bytes], together: int) -> float:
    """CPU microseconds of mongod for each of ``payloads``, the checkpoint included.

    Each is a document, ready as bytes. ``together`` of them make one insert that waits for the majority; ids ascend,
    and there is no other index.
    """
    database = site.mongo[_DATABASE]
    await database.create_collection(_COLLECTION)
    collection = database.get_collection(_COLLECTION, write_concern=WriteConcern("majority"))
    repeated = enumerate([*payloads] * _REPEATED)
    documents = [RawBSONDocument(bson.encode({"_id": n, "payload": payload})) for n, payload in repeated]
    await site.checkpoint()
    before = site.meter.read()
    for at in range(0, len(documents), together):
        await collection.insert_many(documents[at : at + together])
    used = site.meter.read().since(before)["mongod"] + (await site.checkpoint())["mongod"]
    await site.mongo.drop_database(_DATABASE)
    return used / len(documents) * 1e6


@dataclass(frozen=True)
class Inserted:
    """What inserting cost: documents a second by the clock, and CPU microseconds of driver and mongod for each."""

    per_second: float
    cpu_us: float


async def inserted(site: Installation, like: str, documents: Sequence[Document], together: int) -> Inserted:
    """``documents`` written into a collection with the indexes of ``like``, ``together`` in a transaction each, which
    waits for the majority."""
    database = site.mongo[_DATABASE]
    await database.create_collection(_COLLECTION)
    indexes = await site.database[like].index_information()
    await database[_COLLECTION].create_indexes(
        [IndexModel(one["key"]) for name, one in indexes.items() if name != "_id_"]
    )
    await site.checkpoint()
    before, own, began = site.meter.read(), time.process_time(), time.perf_counter()
    async with site.mongo.start_session() as session:
        for at in range(0, len(documents), together):
            async with await session.start_transaction(write_concern=WriteConcern("majority")):
                await database[_COLLECTION].insert_many(documents[at : at + together], session=session)
    took, used = time.perf_counter() - began, time.process_time() - own
    used += site.meter.read().since(before)["mongod"]
    await site.mongo.drop_database(_DATABASE)
    return Inserted(len(documents) / took, used / len(documents) * 1e6)


def decoded_us(messages: Sequence[bytes], payloads: Sequence[bytes]) -> float:
    """CPU microseconds an event of what no normalizer can leave out, all of it in compiled code.

    The ``messages`` of CALLBACKS are parsed, and the parts of their callbacks decoded; each event, which are
    ``payloads``, is serialised, and a document of it encoded.
    """
    events = [Event.FromString(payload) for payload in payloads]
    documents = [_document(event, payload) for event, payload in zip(events, payloads, strict=True)]
    decode = msgspec.json.Decoder().decode
    began = time.process_time()
    for _ in range(_REPEATED):
        for message in messages:
            for callback in CallbackBatch.FromString(message).callbacks:
                body = callback.body
                if body[:1] in b"[{":
                    decode(body)
                else:
                    parse_query_string(body, "&")
        for event in events:
            event.SerializeToString()
        for document in documents:
            bson.encode(document)
    return (time.process_time() - began) / _REPEATED / len(payloads) * 1e6


def _document(event: Event, payload: bytes) -> Document:
    """An event with the fields by which it is searched."""
    return {
        "_id": event.id,
        "registration": event.registration,
        "channel": event.channel,
        "kind": event.kind,
        "received_at_us": event.received_at_us,
        "occurred_at_us": event.occurred_at_us,
        "message_id": event.message_id,
        "address": event.recipient,
        "communication_id": event.communication_id,
        "payload": payload,
    }
