"""What an event costs as the installation grows: more tenants, and a fuller store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from backhaul_common.names import (
    CALLBACKS_STREAM,
    EVENTS_COLLECTION,
    EVENTS_STREAM,
    MESSAGES_COLLECTION,
    META_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_testing.posts import Post
from generators import RawSockets, raw_request, write_requests
from installation import PROCESSED, Document, Drained, Installation
from normalizing import backlog
from pymongo import IndexModel, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from report import Report

MANY = 1000
_AIM = "≤ 1.3"
_TEMPLATE = "growth"
_FULL = "bench_full"
_BATCH = 5000
_WRITERS = 2


async def measure(site: Installation, report: Report, *, rounds: int, quick: bool) -> None:
    """``growth``: the worst of its parts, each of which is a ratio of CPU an event."""
    store = await _store(
        site, report, rounds=rounds, stored=100_000 if quick else 1_000_000, events=15_000 if quick else 20_000
    )
    tenants = await _tenants(site, report, rounds=rounds, callbacks=4_500 if quick else 6_000)
    parts = {**store, **tenants}
    worst = max(parts, key=lambda name: median(parts[name]))
    report.add("growth", parts[worst], "ratio of CPU", aim=_AIM, note=f"the worst of its parts: {worst}")


# Tenants.


@dataclass(frozen=True)
class _Grown:
    """CPU seconds of each process per 1,000 callbacks taken in, and then per 1,000 events normalised."""

    ingest: dict[str, float]
    normalize: Drained


async def _tenants(site: Installation, report: Report, *, rounds: int, callbacks: int) -> dict[str, list[float]]:
    await site.ensure("gateway")
    await site.register(_TEMPLATE)
    requests = site.traffic.twilio(callbacks)
    names = {1: [f"{_TEMPLATE}-0000"], MANY: [f"{_TEMPLATE}-{n:04d}" for n in range(MANY)]}
    template = await site.database[TENANTS_COLLECTION].find_one({"_id": _TEMPLATE})
    assert template is not None
    measured: dict[int, list[_Grown]] = {1: [], MANY: []}
    for round_ in range(rounds):
        for count, of in names.items():
            site.say(f"growth, round {round_ + 1} of {rounds}, tenants: {count}")
            await site.stop("gateway", "normalizer")
            await _start_over(site, template)
            keys = list((await site.clone(_TEMPLATE, of)).values())
            await site.database[TENANTS_COLLECTION].delete_one({"_id": _TEMPLATE})
            # The callbacks of one message belong to one tenant, those that follow each other to different ones.
            raw = (raw_request(one, keys[n // 3 % count]) for n, one in _by_status(requests))
            file = write_requests(site.folder / "growth.requests", raw)
            measured[count].append(await _grown(site, file, callbacks))
    ones, many = measured[1], measured[MANY]
    parts = {
        "growth_tenants_gateway": [b.ingest["gateway"] / a.ingest["gateway"] for a, b in zip(ones, many, strict=True)],
    }
    for name in ("normalizer", "mongod", "nats"):
        parts[f"growth_tenants_{name}"] = [
            b.normalize.per_1000[name] / a.normalize.per_1000[name] for a, b in zip(ones, many, strict=True)
        ]
    notes = {
        "growth_tenants_gateway": f"CPU a callback with {MANY} tenants that take turns, over one tenant",
        "growth_tenants_normalizer": "CPU an event of what the gateway stored then: one callback a message",
    }
    for name, ratios in parts.items():
        report.add(name, ratios, "ratio of CPU", aim=_AIM, note=notes.get(name, "the same, while normalising"))
    for count, grown in measured.items():
        report.cost(f"ingest, tenants: {count}", "callbacks", [one.ingest for one in grown])
        report.cost(f"normalize, tenants: {count}", "events", [one.normalize.per_1000 for one in grown])
    return parts


def _by_status(posts: Sequence[Post]) -> list[tuple[int, Post]]:
    """Every message's first callback, then every message's second, then the third, each with its number."""
    numbered = list(enumerate(posts))
    return [one for first in range(3) for one in numbered[first::3]]


async def _start_over(site: Installation, template: Document) -> None:
    """No tenant but the template, nothing stored, no streams; services make what they need when they start."""
    for stream in (CALLBACKS_STREAM, EVENTS_STREAM):
        await site.js.delete_stream(stream)
    for collection in PROCESSED:
        await site.database.drop_collection(collection)
    await site.database[TENANTS_COLLECTION].delete_many({})
    await site.database[TENANTS_COLLECTION].insert_one(template)


async def _grown(site: Installation, file: Path, callbacks: int) -> _Grown:
    # Once before, so that making streams, consumer and indexes is not counted.
    await site.ensure("gateway", "normalizer")
    await site.until_consumer()
    await site.stop("normalizer")
    before = site.meter.read()
    loaded = await RawSockets().once(file, site.gateway_port)
    ingest = site.meter.read().per_1000(before, loaded.answered)
    return _Grown({**ingest, "load": loaded.cpu_s / loaded.answered * 1000}, await site.drain(callbacks))


# Stored events.


async def _store(
    site: Installation, report: Report, *, rounds: int, stored: int, events: int
) -> dict[str, list[float]]:
    tenant = "growth-store"
    await site.ensure("gateway")
    await site.register(tenant)
    await site.stop("normalizer")
    await site.purge_callbacks()
    waiting = await backlog(site, tenant, events, ("Twilio", "SendGrid"))
    filled = waiting.events
    await site.prefill(tenant, waiting.messages)
    await site.forget()
    await site.drain(filled)
    await site.stop("normalizer")
    site.say(f"growth, storing {stored:,} events")
    began = asyncio.get_running_loop().time()
    await _fill_store(site, stored)
    report.machine[f"seconds_to_store_{stored}"] = round(asyncio.get_running_loop().time() - began)
    service = site.stack.service("normalizer")
    empty, full = site.stack.mongo_database, _FULL
    measured: dict[str, list[Drained]] = {empty: [], full: []}
    try:
        for round_ in range(rounds):
            for database in (empty, full):
                site.say(f"growth, round {round_ + 1} of {rounds}, {stored if database == full else 0:,} events stored")
                await site.stop("normalizer")
                await site.forget(database, empty=database == empty)
                if database == full:
                    await _remove(site, tenant)
                service.env["BACKHAUL_MONGO_DATABASE"] = database
                measured[database].append(await site.drain(filled, database))
    finally:
        service.env["BACKHAUL_MONGO_DATABASE"] = empty
        await site.stop("normalizer")
    pairs = list(zip(measured[empty], measured[full], strict=True))
    names = ("normalizer", "mongod")
    parts = {f"growth_store_{name}": [b.per_1000[name] / a.per_1000[name] for a, b in pairs] for name in names}
    for name, ratios in parts.items():
        report.add(
            name, ratios, "ratio of CPU", aim=_AIM, note=f"CPU an event with {stored:,} events stored, over none"
        )
    report.cost("normalize, empty store", "events", [one.per_1000 for one, _ in pairs])
    report.cost(f"normalize, {stored:,} events stored", "events", [one.per_1000 for _, one in pairs])
    await site.mongo.drop_database(full)
    await site.purge_callbacks()
    return parts


async def _fill_store(site: Installation, events: int) -> None:
    """A second database with ``events`` events and their messages, like those that the normalizer has just stored."""
    source, target = site.database, site.mongo[_FULL]
    tenants = await source[TENANTS_COLLECTION].find({}).to_list(None)
    await target[META_COLLECTION].insert_many(await source[META_COLLECTION].find({}).to_list(None))
    await target[TENANTS_COLLECTION].insert_many(tenants)
    messages = [os.urandom(16).hex() for _ in range(events // 3)]
    await _copies(source[EVENTS_COLLECTION], target[EVENTS_COLLECTION], messages, 3)
    await _copies(source[MESSAGES_COLLECTION], target[MESSAGES_COLLECTION], messages, 1)
    # Indexes after the documents: sorting once takes a third of inserting into each. They are the normalizer's own.
    for name in PROCESSED:
        indexes = []
        for index, options in (await source[name].index_information()).items():
            if index != "_id_":
                kept = {key: value for key, value in options.items() if key not in ("v", "ns", "key")}
                indexes.append(IndexModel(options["key"], name=index, **kept))
        await target[name].create_indexes(indexes)  # Together, so that the documents are read once.
    # What waits to be written is written now, not while the first round measures.
    await site.mongo.admin.command("fsync")


async def _copies(
    source: AsyncCollection[Document], target: AsyncCollection[Document], messages: Sequence[str], each: int
) -> None:
    """Write ``each`` documents for each of ``messages``: copies of those of ``source``, each with an id of its own."""
    templates = await source.find({}).limit(3000).to_list(None)
    # Before the templates' own time, as what is stored is before what comes.
    field = "received_at_us" if each > 1 else "created_at_us"
    relaxed = target.with_options(write_concern=WriteConcern(1, j=False))
    starts = iter(range(0, len(messages), _BATCH // each))

    async def write() -> None:
        for at in starts:
            documents = []
            for n, message in enumerate(messages[at : at + _BATCH // each], at):
                for m in range(each):
                    document = {**templates[(n * each + m) % len(templates)], "registration": "growth-stored"}
                    document[field] -= (len(messages) - n) * 1_000_000
                    if each > 1:
                        document["_id"] = os.urandom(16).hex()
                        document["message"] = message
                    else:
                        document["_id"] = message
                    documents.append(document)
            await relaxed.insert_many(documents, ordered=False)

    await asyncio.gather(*(write() for _ in range(_WRITERS)))


async def _remove(site: Installation, tenant: str) -> None:
    """Take out of the full store what an earlier round put in."""
    for name in (EVENTS_COLLECTION, MESSAGES_COLLECTION):
        await site.mongo[_FULL][name].delete_many({"registration": {"$regex": f"^{tenant}([.]|$)"}})
    await site.mongo.admin.command("fsync")
