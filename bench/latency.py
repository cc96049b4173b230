"""End to end: from a POST to the state being readable, at half of the load that can be sustained."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from urllib.parse import parse_qs

import chain
from backhaul_common.names import events_of
from backhaul_proto.event.v1.event_pb2 import EventBatch
from backhaul_testing.wire import Answer, Connection
from generators import LoadError, RawSockets, raw_request, write_for
from installation import Installation
from nats.aio.msg import Msg
from normalized import Normalized, together
from normalizing import GROUP
from report import Report

_TENANT = "end-to-end"
_CHANNEL = "twilio"
PROBE_EVERY_S = 0.02
_PATIENCE_S = 20.0


_SINGLY = 3000
"""Callbacks of a chain that takes each by itself."""


async def measure(site: Installation, report: Report, *, rounds: int, seconds: float, at_most: int) -> None:
    """``end_to_end_ms_p99``, and ``pipeline_…``. ``at_most``: callbacks of the loads that find the maximum."""
    await site.ensure("gateway")
    await site.stop("normalizer")
    key = await site.register(_TENANT)
    await site.forget()
    await site.ensure("normalizer")
    loads, chains = [], []
    for _ in range(rounds):
        loads.append(await sustained(site, key, at_most // rounds))
        chains.append(await _chain(site, key, at_most // rounds, loads[-1].a_batch))
    await site.stop("bare_route")
    most = median(one.per_second for one in loads)
    report.add(
        "end_to_end_callbacks_s",
        [one.per_second for one in loads],
        "callbacks/s",
        note=f"{at_most // rounds} posted as fast as they are answered, until the last one's event is published",
    )
    report.add(
        "pipeline_cpu_us",
        [together(one.per_1000) * 1000 for one in loads],
        "us / callback",
        aim="≤ 150",
        note="all processes, from the POST to EVENTS and MongoDB's checkpoint, under that load",
    )
    _report_chains(report, [together(one.per_1000) * 1000 for one in loads], chains)
    report.cost("end to end", "callbacks", [one.per_1000 for one in loads])
    site.say(f"end to end, {rounds} rounds at {most / 2:.0f} callbacks/s")
    _report(report, [await _round(site, key, most / 2, seconds) for _ in range(rounds)], most / 2)


def _report(report: Report, measured: Sequence[_Round], rate: float) -> None:
    note = (
        f"at {rate:.0f} callbacks/s, a probe every {PROBE_EVERY_S * 1000:.0f} ms; readable: GET /v1/messages/… "
        "says so, asked when the event is published"
    )
    readable = [[probe.readable_ms for probe in one.probes] for one in measured]
    p50, p99 = ([percentile(one, percent) for one in readable] for percent in (50, 99))
    report.add("end_to_end_ms_p50", p50, "ms", note=note)
    report.add("end_to_end_ms_p99", p99, "ms", aim="≤ 120")
    tail = [slow / usual for slow, usual in zip(p99, p50, strict=True)]
    report.add("end_to_end_p99_vs_p50", tail, "ratio", aim="≤ 3")
    # What it is made of, so that a tail can be found.
    answered = [[probe.answered_ms for probe in one.probes] for one in measured]
    published = [[probe.published_ms for probe in one.probes] for one in measured]
    reads = [[probe.read_ms for probe in one.probes] for one in measured]
    batches = [one.batches_ms for one in measured]
    for name, times, what in (
        ("answered", answered, "until the POST is answered"),
        ("published", published, "from there until EVENTS is given the event"),
        ("read", reads, "of the GET that showed it"),
        ("batch", batches, "of a batch of the normalizer, until its acknowledgements"),
    ):
        for percent in (50, 99):
            runs = [percentile(one, percent) for one in times]
            report.add(f"end_to_end_{name}_ms_p{percent}", runs, "ms", note=what)


async def measure_memory(site: Installation, report: Report) -> None:
    """``resident_mb`` of each process, after whatever load there was."""
    await site.ensure("gateway", "normalizer", "suppression")
    resident = site.meter.resident_mb()
    ours = {name: mb for name, mb in resident.items() if not name.endswith("_route")}
    report.add("resident_mb", [sum(ours.values())], "MB", note="all of them, after the load")
    for name, mb in ours.items():
        report.add(f"resident_mb_{name}", [mb], "MB")


@dataclass(frozen=True)
class _Chain:
    """CPU microseconds a callback: of the route alone, with what stores many at once, and with what stores each by
    itself."""

    route_us: float
    together_us: float
    singly_us: float


async def _chain(site: Installation, key: str, count: int, a_batch: int) -> _Chain:
    """What the same callbacks cost a chain that does the least: see ``chain``."""
    posts = site.traffic.twilio(count)
    own = _TENANT, await site.registration(_TENANT)
    callbacks = site.traffic.stored(*own, "Twilio", posts, 1)
    route = await chain.route_us(site, write_for(site.folder / "chain.requests", posts, key), count)
    together = await chain.stored_us(site, callbacks, a_message=GROUP, a_batch=a_batch)
    singly = await chain.stored_us(site, callbacks[:_SINGLY], a_message=1, a_batch=1)
    return _Chain(route, route + together, route + singly)


def _report_chains(report: Report, loads_us: Sequence[float], chains: Sequence[_Chain]) -> None:
    many, single = [one.together_us for one in chains], [one.singly_us for one in chains]
    for name, floor, note in (
        ("pipeline_vs_floor", many, f"{GROUP} to a publish, and as many to an insert as the normalizer had in a batch"),
        ("pipeline_vs_singly", single, "each by itself, 64 at once"),
    ):
        ratios = [ours / least for ours, least in zip(loads_us, floor, strict=True)]
        report.add(name, ratios, "ratio of CPU", note=f"over a bare route, publish, insert and publish: {note}")
    report.add("pipeline_route_us", [one.route_us for one in chains], "us / callback", note="that route alone")
    report.add("pipeline_floor_us", many, "us / callback")
    report.add("pipeline_singly_us", single, "us / callback")


@dataclass(frozen=True)
class Sustained:
    """Callbacks a second through the whole of it; CPU seconds of each process per 1,000, the checkpoint included; and
    how many the normalizer had in a batch."""

    per_second: float
    per_1000: dict[str, float]
    a_batch: int


async def sustained(site: Installation, key: str, count: int) -> Sustained:
    """The greatest load: ``count`` callbacks that are posted as fast as they are answered."""
    file = write_for(site.folder / "end-to-end.requests", site.traffic.twilio(count), key)
    normalized = Normalized(site.stack.service("normalizer"))
    await site.checkpoint()
    before = site.meter.read()
    await RawSockets().once(file, site.gateway_port)
    await normalized.until(count)
    after = site.meter.read()
    await site.checkpoint()
    per_1000 = site.meter.read().per_1000(before, count)
    return Sustained(count / (after.at - before.at), per_1000, max(1, count // normalized.batches))


@dataclass(frozen=True)
class Took:
    """Milliseconds of one probe: until its POST was answered, from there until its event was published, of the GET that
    showed it, and of all together."""

    answered_ms: float
    published_ms: float
    read_ms: float
    readable_ms: float


@dataclass(frozen=True)
class _Round:
    """Its probes, and how long the normalizer's batches took meanwhile."""

    probes: list[Took]
    batches_ms: list[float]


async def _round(site: Installation, key: str, rate: float, seconds: float) -> _Round:
    load = write_for(site.folder / "background.requests", site.traffic.twilio(int(rate * seconds)), key)
    normalized = Normalized(site.stack.service("normalizer"))
    probes = Probes(site, _TENANT, key, int(seconds / PROBE_EVERY_S))
    async with asyncio.timeout(seconds + 2 * _PATIENCE_S), asyncio.TaskGroup() as group:
        background = group.create_task(RawSockets().paced(load, site.gateway_port, seconds, rate))
        probing = group.create_task(probes.run())
    loaded, took = background.result(), probing.result()
    if loaded.answered < rate * seconds * 0.95:
        raise LoadError(f"The load did not keep its pace: {loaded.answered} of {rate * seconds:.0f} callbacks.")
    await normalized.until(loaded.answered + len(took))
    return _Round(took, normalized.batches_ms)


class Probes:
    """Posts a tenant's callbacks of messages that are new, one every so often whatever the others take, and waits for
    each.

    Whoever asks again and again for what is not there yet takes the cores from those who make it. So a probe asks when
    EVENTS is given its event, which is right after the commit.
    """

    def __init__(self, site: Installation, tenant: str, key: str, count: int) -> None:
        self._site = site
        self._tenant = tenant
        self._key = key
        self._requests = site.traffic.twilio(count * 3)[::3]  # Each message's first status: queued.
        self._connections: asyncio.Queue[Connection] = asyncio.Queue()
        self._wanted: dict[str, asyncio.Event] = {}

    async def run(self) -> list[Took]:
        """All, once each is readable."""
        connections = [await Connection.open("127.0.0.1", self._site.gateway_port) for _ in range(16)]
        for connection in connections:
            self._connections.put_nowait(connection)
        published = await self._site.nats.subscribe(events_of(self._tenant), cb=self._published)
        try:
            await self._site.nats.flush()
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with asyncio.TaskGroup() as group:
                tasks = []
                for n, request in enumerate(self._requests):
                    await asyncio.sleep(began + n * PROBE_EVERY_S - loop.time())
                    tasks.append(group.create_task(self._probe(raw_request(request, self._key))))
            return [task.result() for task in tasks]
        finally:
            await published.unsubscribe()
            for connection in connections:
                connection.close()

    async def _probe(self, request: bytes) -> Took:
        began = time.perf_counter()
        sid = parse_qs(request.rpartition(b"\r\n\r\n")[2].decode())["MessageSid"][0]
        published = self._wanted[sid] = asyncio.Event()
        answer = await self._ask(request)
        if answer.status != 200:
            raise LoadError(f"A probe was answered with {answer.status}: {answer.body!r}")
        answered = time.perf_counter()
        async with asyncio.timeout(_PATIENCE_S):
            await published.wait()
            while True:
                asked = time.perf_counter()
                answer = await self._ask(
                    f"GET /v1/messages/{_CHANNEL}/{sid} HTTP/1.1\r\nHost: {self._site.host}\r\n"
                    f"X-Api-Key: {self._key}\r\n\r\n".encode()
                )
                if answer.status == 200 and json.loads(answer.body)["state"] == "queued":
                    now = time.perf_counter()
                    times = answered - began, asked - answered, now - asked, now - began
                    return Took(*(seconds * 1000 for seconds in times))
                if answer.status != 404:
                    raise LoadError(f"The message of a probe is {answer.status}: {answer.body!r}")

    async def _published(self, message: Msg) -> None:
        for event in EventBatch.FromString(message.data).events:
            if (waiting := self._wanted.pop(event.message_id, None)) is not None:
                waiting.set()

    async def _ask(self, request: bytes) -> Answer:
        connection = await self._connections.get()
        try:
            return await connection.ask(request)
        finally:
            self._connections.put_nowait(connection)


def percentile(values: Sequence[float], percent: int) -> float:
    """That which ``percent`` per cent of ``values`` do not exceed."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
