"""What a callback costs as tenants become many: from its POST to its event in EVENTS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from backhaul_common.names import CALLBACKS_STREAM, EVENTS_STREAM, TENANTS_COLLECTION
from backhaul_testing.posts import Post
from fsyncs import CountedNats, Fsyncs, counting, supported
from generators import RawSockets, raw_request, write_requests
from installation import PROCESSED, Document, Installation
from normalized import together
from report import Report

MANY = 1000
_TEMPLATE = "growth"
_LOAD = 256
"""Callbacks under way when fsyncs are counted: how many share one is a matter of how many wait for it."""


@dataclass(frozen=True)
class _Grown:
    """CPU seconds of each process per 1,000 callbacks taken in, and then per 1,000 events normalised."""

    ingest: dict[str, float]
    normalize: dict[str, float]

    @property
    def total(self) -> float:
        """Of all processes together."""
        return together(self.ingest) + together(self.normalize)


async def measure(site: Installation, report: Report, *, rounds: int, callbacks: int) -> None:
    """``growth_tenants`` and ``fsyncs_per_callback``: one tenant and a thousand in turn."""
    await site.ensure("gateway")
    await site.register(_TEMPLATE)
    template = await site.database[TENANTS_COLLECTION].find_one({"_id": _TEMPLATE})
    assert template is not None
    posts = list(_by_status(site.traffic.twilio(callbacks)))
    measured: dict[int, list[_Grown]] = {1: [], MANY: []}
    for round_ in range(rounds):
        for count, grown in measured.items():
            site.say(f"tenants: {count}, round {round_ + 1} of {rounds}")
            file = await _started_over(site, template, posts, count)
            grown.append(await _grown(site, file, callbacks))
    _report(report, measured[1], measured[MANY])
    if supported():
        site.say(f"tenants: {MANY}, fsyncs counted")
        await _fsyncs(site, report, await _started_over(site, template, posts, MANY), callbacks)
    else:
        site.say("fsyncs_per_callback is left out: this machine's kernel has no known way to count them")


def _report(report: Report, ones: Sequence[_Grown], many: Sequence[_Grown]) -> None:
    pairs = list(zip(ones, many, strict=True))
    report.add(
        "growth_tenants",
        [b.total / a.total for a, b in pairs],
        "ratio of CPU",
        aim="≤ 2",
        note=f"all processes, POST to EVENTS and MongoDB's checkpoint; {MANY} tenants that take turns, over one",
    )
    for count, grown in ((1, ones), (MANY, many)):
        report.add(f"growth_tenants_us_{count}", [one.total * 1000 for one in grown], "us / callback")
    for name in ("gateway", "nats"):
        ratios = [b.ingest[name] / a.ingest[name] for a, b in pairs]
        report.add(f"growth_tenants_ingest_{name}", ratios, "ratio of CPU", note="its part, while callbacks come in")
    for name in ("normalizer", "mongod", "nats"):
        ratios = [b.normalize[name] / a.normalize[name] for a, b in pairs]
        report.add(f"growth_tenants_{name}", ratios, "ratio of CPU", note="its part, while they are normalised")
    for count, grown in ((1, ones), (MANY, many)):
        report.cost(f"ingest, tenants: {count}", "callbacks", [one.ingest for one in grown])
        report.cost(f"normalize, tenants: {count}", "events", [one.normalize for one in grown])


def _by_status(posts: Sequence[Post]) -> Iterator[tuple[int, Post]]:
    """Every message's first callback, then every message's second, then the third, each with its message's number."""
    for first in range(3):
        yield from enumerate(posts[first::3])


async def _started_over(site: Installation, template: Document, posts: Sequence[tuple[int, Post]], count: int) -> Path:
    """Nothing stored, ``count`` tenants, empty streams, and nothing left to be made; the file of their requests.

    The callbacks of one message belong to one tenant, those that follow each other to different ones.
    """
    await site.stop("gateway", "normalizer")
    for stream in (CALLBACKS_STREAM, EVENTS_STREAM):
        await site.js.delete_stream(stream)
    for collection in PROCESSED:
        await site.database.drop_collection(collection)
    tenants = site.database[TENANTS_COLLECTION]
    await tenants.delete_many({})
    await tenants.insert_one(template)
    keys = list((await site.clone(_TEMPLATE, [f"{_TEMPLATE}-{n:04d}" for n in range(count)])).values())
    await tenants.delete_one({"_id": _TEMPLATE})
    await site.ensure("gateway", "normalizer")
    await site.until_consumer()
    await site.stop("normalizer")
    await site.checkpoint()
    raw = (raw_request(post, keys[message % count]) for message, post in posts)
    return write_requests(site.folder / "growth.requests", raw)


async def _grown(site: Installation, file: Path, callbacks: int) -> _Grown:
    before = site.meter.read()
    loaded = await RawSockets().once(file, site.gateway_port)
    ingest = site.meter.read().per_1000(before, loaded.answered)
    drained = await site.drain(callbacks, checkpoint=True)
    return _Grown({**ingest, "load": loaded.cpu_s / loaded.answered * 1000}, drained.per_1000)


async def _fsyncs(site: Installation, report: Report, file: Path, callbacks: int) -> None:
    async with _counted(site) as fsyncs:
        before = fsyncs.count
        loaded = await RawSockets().once(file, site.gateway_port, connections=_LOAD)
        taken = fsyncs.count - before
        await site.drain(callbacks)
        drained = fsyncs.count - before - taken
    note = f"of nats-server, with {MANY} tenants that take turns and {_LOAD} callbacks under way"
    report.add("fsyncs_per_callback", [taken / loaded.answered], "fsyncs", aim="≤ 0.1", note=note)
    report.add("fsyncs_per_event", [drained / callbacks], "fsyncs", note="of nats-server, while these are normalised")


@asynccontextmanager
async def _counted(site: Installation) -> AsyncIterator[Fsyncs]:
    """nats-server with the same data on the same port, its fsyncs counted, which makes each a little slower."""
    plain = site.stack.nats
    assert plain is not None
    path = site.folder / "fsyncs"
    await plain.stop()
    with counting(path) as fsyncs:
        counted = CountedNats(replace(plain.config, port=plain.port), path)
        await counted.start()
        try:
            await site.until_ready("gateway")
            yield fsyncs
        finally:
            await site.stop("normalizer")
            await counted.stop()
            await plain.start()
            await site.until_ready("gateway")
