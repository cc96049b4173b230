"""What the pipeline is measured against: a chain of the same parts that does nothing with what goes through it.

A route of FastAPI that reads the body, a publish to JetStream, the insert of a document, and a publish again, with the
same client libraries and servers. Nothing is verified, parsed, de-duplicated or folded, and nobody can ask for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TypeVar

import bson
from bson.raw_bson import RawBSONDocument
from generators import RawSockets
from installation import Installation
from nats.js.api import StreamConfig
from pymongo import WriteConcern

_NAME = "bench_chain"
_IN_FLIGHT = 64
_T = TypeVar("_T")


async def route_us(site: Installation, file: Path, count: int) -> float:
    """CPU microseconds of the bare route for each of the ``count`` requests in ``file``."""
    await site.ensure("bare_route")
    before = site.meter.read()
    await RawSockets().once(file, site.bare_route_port)
    return site.meter.read().since(before)["bare_route"] / count * 1e6


async def published_us(site: Installation, messages: Sequence[bytes]) -> float:
    """CPU microseconds of this process for each of ``messages``: published to JetStream, which acknowledges it."""
    await site.js.add_stream(StreamConfig(name=_NAME, subjects=[f"{_NAME}.>"]))
    own = time.process_time()
    await _all([site.js.publish(f"{_NAME}.in", one) for one in messages])
    used = time.process_time() - own
    await site.js.delete_stream(_NAME)
    return used / len(messages) * 1e6


async def stored_us(site: Installation, callbacks: Sequence[bytes], *, a_message: int, a_batch: int) -> float:
    """CPU microseconds, for each of ``callbacks``, of this process, nats-server and mongod, the checkpoint included.

    ``a_message`` of them are published together, ``a_batch`` inserted by one statement that waits for the majority,
    each as a document ready as bytes, and published again as one message.
    """
    await site.js.add_stream(StreamConfig(name=_NAME, subjects=[f"{_NAME}.>"]))
    database = site.mongo[_NAME]
    await database.create_collection(_NAME)
    collection = database.get_collection(_NAME, write_concern=WriteConcern("majority"))
    documents = [RawBSONDocument(bson.encode({"_id": n, "payload": one})) for n, one in enumerate(callbacks)]
    await site.checkpoint()
    before, own = site.meter.read(), time.process_time()
    await _all([site.js.publish(f"{_NAME}.in", b"".join(some)) for some in _parts(callbacks, a_message)])
    await _all([collection.insert_many(some) for some in _parts(documents, a_batch)])
    await _all([site.js.publish(f"{_NAME}.out", b"".join(some)) for some in _parts(callbacks, a_batch)])
    used = time.process_time() - own
    servers = site.meter.read().since(before)
    used += servers["nats"] + servers["mongod"] + (await site.checkpoint())["mongod"]
    await site.mongo.drop_database(_NAME)
    await site.js.delete_stream(_NAME)
    return used / len(callbacks) * 1e6


def _parts(items: Sequence[_T], size: int) -> list[Sequence[_T]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


async def _all(calls: Sequence[Awaitable[object]]) -> None:
    """As many at once as a busy gateway has connections here."""
    for some in _parts(calls, _IN_FLIGHT):
        await asyncio.gather(*some)
