"""What storing an event costs mongod, over the least that it can cost, and what it costs once a million are stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import floors
import reading
import visiting
from filling import fill
from installation import Installation
from normalized import Drained, together
from normalizing import Backlog, Posted, backlog, posted
from report import Report

_FILLED = "growth-store"
_FULL = "bench_full"
_LARGE_GB, _SMALL_GB = 1.0, 0.25
_CACHE_S = 0.1
_PATIENCE_S = 30.0

Rounds = list[tuple[Drained, Drained]]
"""Of each round what an empty store took, and a full one."""


async def measure(site: Installation, report: Report, *, rounds: int, stored: int, events: int) -> None:
    """``growth_store``, ``mongod_vs_floor`` and what belongs to them, with ``events`` events a round."""
    await site.ensure("gateway")
    posts = posted(site.traffic, events, ("Twilio", "SendGrid"))
    key = await site.register(_FILLED)
    # Each round has a tenant of its own: to the full store its events are new, and nothing has to be removed from it.
    tenants = [f"{_FILLED}-{n}" for n in range(2 * rounds)]
    for tenant in tenants:
        await site.register(tenant)
    first = await backlog(site, _FILLED, posts)
    await site.stop("normalizer")
    await _waiting(site, first)
    await site.forget()
    await site.drain(first.events)
    payloads = await floors.published(site, _FILLED, first.events)
    await site.stop("normalizer")
    copies = -(-stored // first.events) - 1
    site.say(f"storing {stored:,} events")
    began = asyncio.get_running_loop().time()
    await fill(site, await site.registration(_FILLED), _FULL, copies)
    report.machine[f"seconds_to_store_{stored}"] = round(asyncio.get_running_loop().time() - began)
    try:
        large, floor = await _rounds(site, tenants[:rounds], posts, payloads)
        await reading.measure(site, report, key, posts, copies, _FULL, rounds=rounds, stored=stored)
        await visiting.measure(site, report, _FILLED, key, rounds=rounds, stored=stored)
        await _cache(site, _SMALL_GB)
        small, _ = await _rounds(site, tenants[rounds:], posts)
    finally:
        site.stack.service("normalizer").env["BACKHAUL_MONGO_DATABASE"] = site.stack.mongo_database
        await site.stop("normalizer")
        await _cache(site, _LARGE_GB)
    _report(report, large, small, floor, stored)
    await site.mongo.drop_database(_FULL)
    await site.purge_callbacks()


async def _rounds(
    site: Installation, tenants: Sequence[str], posts: Sequence[Posted], payloads: Sequence[bytes] = ()
) -> tuple[Rounds, list[float]]:
    """One for each of ``tenants``; with ``payloads`` the floor's microseconds too."""
    measured, floor = [], []
    for n, tenant in enumerate(tenants):
        waiting = await backlog(site, tenant, posts)
        drained = []
        for database in (site.stack.mongo_database, _FULL):
            site.say(f"{tenant}, round {n + 1} of {len(tenants)}, {'full' if database == _FULL else 'empty'} store")
            await site.stop("normalizer")
            await _waiting(site, waiting)
            await site.forget(empty=database != _FULL)
            await site.checkpoint()
            site.stack.service("normalizer").env["BACKHAUL_MONGO_DATABASE"] = database
            drained.append(await site.drain(waiting.events, checkpoint=True))
            if payloads and database != _FULL:
                await site.stop("normalizer")
                floor.append(await floors.stored_us(site, payloads, drained[0].all_events // drained[0].batches))
        measured.append((drained[0], drained[1]))
    return measured, floor


async def _waiting(site: Installation, waiting: Backlog) -> None:
    await site.purge_callbacks()
    await site.prefill(waiting.tenant, waiting.messages)


async def _cache(site: Installation, gigabytes: float) -> None:
    """Give mongod so much cache, and wait until what it holds fits."""
    megabytes = round(gigabytes * 1024)
    admin = site.mongo.admin
    await admin.command({"setParameter": 1, "wiredTigerEngineRuntimeConfig": f"cache_size={megabytes}M"})
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            status = await admin.command("serverStatus")
            if status["wiredTiger"]["cache"]["bytes currently in the cache"] <= megabytes * 2**20:
                break
            await asyncio.sleep(_CACHE_S)  # It evicts by itself, and tells nobody when it is done.
    await site.checkpoint()


def _report(report: Report, large: Rounds, small: Rounds, floor: Sequence[float], stored: int) -> None:
    note = "CPU of mongod an event, checkpoint included, over one document an event in ascending order without an index"
    over = [empty.per_1000["mongod"] * 1000 / least for (empty, _), least in zip(large, floor, strict=True)]
    report.add("mongod_vs_floor", over, "ratio of CPU", aim="≤ 2", note=f"{note}; empty store")
    over = [full.per_1000["mongod"] * 1000 / least for (_, full), least in zip(large, floor, strict=True)]
    report.add(
        "mongod_vs_floor_1m", over, "ratio of CPU", aim="≤ 3.5", note=f"{stored:,} stored, cache of {_LARGE_GB} GB"
    )
    report.add("mongod_floor_us", floor, "us / event", note="that floor")
    for name, rounds, cache_gb, aim in (
        ("growth_store", large, _LARGE_GB, "≤ 1.4"),
        ("growth_store_small", small, _SMALL_GB, "≤ 2"),
    ):
        ratios = [together(full.per_1000) / together(empty.per_1000) for empty, full in rounds]
        note = f"all processes, checkpoint included, {stored:,} events stored over none; cache of {cache_gb} GB"
        report.add(name, ratios, "ratio of CPU", aim=aim, note=note)
        for process in ("normalizer", "mongod"):
            ratios = [full.per_1000[process] / empty.per_1000[process] for empty, full in rounds]
            report.add(f"{name}_{process}", ratios, "ratio of CPU", note="its part")
        for place, label in enumerate(("empty store", f"{stored:,} stored")):
            costs = [pair[place].per_1000 for pair in rounds]
            report.cost(f"normalize, {label}, {cache_gb} GB", "events", costs)
