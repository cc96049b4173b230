"""Calling tenants back: what a call costs, how soon it comes, and what another tenant's endpoint does to that."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from endpoints import HERE, SERVICE, Receiver, Subscribed, copy_waiting, receiver, subscribed, telling, until
from endpoints import until_called as called
from generators import LoadError, RawSockets, output_of, write_for
from installation import Installation
from latency import percentile
from report import Report
from traffic import STATUSES

_RATE = 500
"""Callbacks a second of ``event_to_endpoint_…``."""

_CALLS_AT_ONCE = 8
"""What a subscription that does not say is called with, and the floor calls with as well."""

_TOGETHER = 50
"""Events of a message, while many come."""

_QUIET_RATE = 100
"""Events a second of the tenant that another one's endpoint should not disturb."""

_HANGING = 10_000
_HANGING_CALLS = 50
"""Deliveries that wait for the endpoint that hangs, and calls at once that it may have."""

_FEW, _SENT = 5_000, 3_000
"""Deliveries that wait for each endpoint when memory is compared with little, and how many are sent meanwhile."""


async def measure(site: Installation, report: Report, *, rounds: int, events: int, seconds: float) -> None:
    """``deliveries_…``, ``event_to_endpoint_…`` and ``isolation_…``: ``events`` deliveries a round, ``seconds`` of each
    load that has a pace."""
    async with telling(site), AsyncExitStack() as stack:
        good, bad = [await stack.enter_async_context(receiver()) for _ in range(2)]
        ours = await stack.enter_async_context(subscribed(site, "notified", good.url("/answer")))
        await _measure_calls(site, report, ours, good, rounds=rounds, events=events)
        await _measure_pipeline(site, report, ours, good, rounds=rounds, seconds=seconds)
        theirs = await stack.enter_async_context(
            subscribed(site, "hanging", bad.url("/hang"), concurrency=_HANGING_CALLS)
        )
        await _measure_isolation(site, report, ours, good, theirs, bad, rounds=rounds, seconds=seconds)


@dataclass(frozen=True)
class _Cost:
    """CPU seconds of each process per 1,000 deliveries: from EVENTS to what became of them, all at once; then
    enqueuing and calling apart; and of the bare loop. ``per_second`` is by the clock."""

    whole: Mapping[str, float]
    enqueuing: Mapping[str, float]
    calling: Mapping[str, float]
    floor: float
    per_second: float


async def _measure_calls(
    site: Installation, report: Report, ours: Subscribed, at: Receiver, *, rounds: int, events: int
) -> None:
    # What a process does for the first time is not what it costs.
    await _told(site, ours, at, events // 5)
    costs = []
    for round_ in range(rounds):
        site.say(f"{events:,} deliveries, round {round_ + 1} of {rounds}")
        whole, per_second = await _told(site, ours, at, events)
        request = await at.latest()
        floor = await _floor(site, at, request, events)
        await ours.pause()
        before = site.meter.read()
        await ours.publish_all(ours.events(events), _TOGETHER)
        await ours.until_waiting(events)
        enqueuing = site.meter.read().per_1000(before, events)
        before, had = site.meter.read(), await at.calls()
        await ours.resume()
        await called(site, at, had + events)
        await ours.until_waiting(0)
        costs.append(_Cost(whole, enqueuing, site.meter.read().per_1000(before, events), floor, per_second))
    body = len(request.partition(b"\r\n\r\n")[2])
    report.add(
        "deliveries_per_core_s",
        [1000 / one.whole[SERVICE] for one in costs],
        "deliveries / CPU s",
        aim="≥ 2,000",
        note=f"CPU of the whole notifier, from EVENTS to its results in MongoDB, enqueuing included; bodies of {body} "
        f"bytes in full, signed, {_CALLS_AT_ONCE} calls at once, {_TOGETHER} events to a message",
    )
    report.add(
        "deliveries_vs_floor",
        [one.floor / one.whole[SERVICE] for one in costs],
        "ratio of CPU",
        aim="≥ 0.5",
        note="the same, over a bare loop of the same HTTP client that posts the same request as often to the same "
        f"endpoint, {_CALLS_AT_ONCE} at once, connections kept",
    )
    report.add(
        "deliveries_calling_vs_floor",
        [one.floor / one.calling[SERVICE] for one in costs],
        "ratio of CPU",
        note="without enqueuing: what waited while it was paused is read, called, and written down",
    )
    for name, used, what in (
        ("deliveries_calling_us", [one.calling[SERVICE] for one in costs], "CPU of the notifier: the same"),
        ("deliveries_enqueuing_us", [one.enqueuing[SERVICE] for one in costs], "CPU of the notifier: until it waits"),
        ("deliveries_floor_us", [one.floor for one in costs], "CPU of the bare loop"),
        ("deliveries_mongod_us", [one.whole["mongod"] for one in costs], "CPU of mongod, without checkpoint"),
    ):
        report.add(name, [one * 1000 for one in used], "us / delivery", note=what)
    report.add("deliveries_s", [one.per_second for one in costs], "deliveries/s", note="by the clock, one endpoint")
    report.cost("delivering", "deliveries", [one.whole for one in costs])


async def _told(site: Installation, ours: Subscribed, at: Receiver, count: int) -> tuple[dict[str, float], float]:
    """CPU seconds of each process per 1,000 of ``count`` deliveries that all come at once, and how many there were a
    second."""
    events, had = ours.events(count), await at.calls()
    await at.arrived()
    before = site.meter.read()
    await ours.publish_all(events, _TOGETHER)
    await called(site, at, had + count)
    await ours.until_waiting(0)
    after = site.meter.read()
    if len(arrived := await _arrived(at, had, count)) != count:
        raise LoadError(f"{count} events were to be told, and {len(arrived)} were.")
    return after.per_1000(before, count), count / (after.at - before.at)


async def _arrived(at: Receiver, had: int, count: int) -> dict[str, float]:
    if (calls := await at.calls() - had) != count:
        raise LoadError(f"{count} calls were to come, and {calls} came.")
    return await at.arrived()


async def _floor(site: Installation, at: Receiver, request: bytes, count: int) -> float:
    """CPU seconds of the bare loop per 1,000 calls."""
    file = site.folder / "call.request"
    file.write_bytes(request)
    output = await output_of(
        *(sys.executable, str(HERE / "calling_floor.py"), str(file), str(at.port)),
        *("--count", str(count), "--connections", str(_CALLS_AT_ONCE)),
    )
    result = json.loads(output)
    return float(result["cpu_s"]) / int(result["calls"]) * 1000


async def _measure_pipeline(
    site: Installation, report: Report, ours: Subscribed, at: Receiver, *, rounds: int, seconds: float
) -> None:
    """From the provider's POST, by the moment at which it was due, to the endpoint."""
    runs = []
    for round_ in range(rounds):
        site.say(f"from POST to endpoint at {_RATE} a second, round {round_ + 1} of {rounds}")
        posts = site.traffic.twilio(int(_RATE * seconds) // len(STATUSES) * len(STATUSES))
        names = [_name(post.body) for post in posts]
        await at.arrived()
        had = await at.calls()
        file = write_for(site.folder / "told.requests", posts, ours.key)
        loaded = await RawSockets().paced(file, site.gateway_port, seconds, _RATE)
        if loaded.answered < len(posts) * 0.95:
            raise LoadError(f"The load did not keep its pace: {loaded.answered} of {len(posts)} callbacks.")
        await called(site, at, had + loaded.answered)
        arrived = await at.arrived()
        due = {name: loaded.began + n / _RATE for n, name in enumerate(names[: loaded.answered])}
        runs.append(_milliseconds(due, arrived))
    note = f"{_RATE} callbacks of Twilio's a second, each from when its POST was due; gateway, normalizer, notifier"
    report.add("event_to_endpoint_ms_p50", [percentile(one, 50) for one in runs], "ms", note=note)
    report.add("event_to_endpoint_ms_p99", [percentile(one, 99) for one in runs], "ms", aim="≤ 500")


def _name(form: bytes) -> str:
    fields = dict(pair.split("=", 1) for pair in form.decode().split("&"))
    return f"{fields['MessageSid']}:{fields['MessageStatus']}"


def _milliseconds(due: Mapping[str, float], arrived: Mapping[str, float]) -> list[float]:
    if missing := due.keys() - arrived.keys():
        raise LoadError(f"{len(missing)} of {len(due)} events were not told, {min(missing)} among them.")
    return [(arrived[name] - at) * 1000 for name, at in due.items()]


async def _measure_isolation(
    site: Installation,
    report: Report,
    ours: Subscribed,
    good: Receiver,
    theirs: Subscribed,
    bad: Receiver,
    *,
    rounds: int,
    seconds: float,
) -> None:
    """The quiet run and the other one in turn, by what one tenant is told of events that stand in EVENTS."""
    await theirs.pause()
    await theirs.publish_all(theirs.events(_HANGING), _TOGETHER)
    await theirs.until_waiting(_HANGING)
    quiet, hanging = [], []
    for round_ in range(rounds):
        site.say(f"an endpoint that hangs, round {round_ + 1} of {rounds}")
        quiet.append(await _paced(site, ours, good, seconds))
        await theirs.resume()

        async def hangs() -> bool:
            return await bad.hanging() >= _HANGING_CALLS

        await until(site, f"{_HANGING_CALLS} calls to hang", hangs)
        hanging.append(await _paced(site, ours, good, seconds))
        await theirs.pause()
        await bad.asked("/release")
    p99 = [[percentile(one, 99) for one in runs] for runs in (quiet, hanging)]
    note = (
        f"p99 from EVENTS to a tenant's endpoint, {_QUIET_RATE} a second, with another tenant's endpoint that hangs "
        f"with {_HANGING_CALLS} calls and has {_HANGING:,} waiting, over the same without"
    )
    ratios = [b / a for a, b in zip(*p99, strict=True)]
    report.add("isolation_p99_ratio", ratios, "ratio", aim="≤ 2", note=note)
    report.add("isolation_quiet_ms_p99", p99[0], "ms", note="without")
    report.add("isolation_hanging_ms_p99", p99[1], "ms", note="with")


async def _paced(site: Installation, ours: Subscribed, at: Receiver, seconds: float) -> list[float]:
    """Milliseconds of each event, from when it was due."""
    events, due = ours.events(int(_QUIET_RATE * seconds)), {}
    await at.arrived()
    had, began = await at.calls(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for n, event in enumerate(events):
            at_s = due[f"{event.message_id}:{event.provider_status}"] = began + n / _QUIET_RATE
            await asyncio.sleep(at_s - time.perf_counter())
            group.create_task(ours.publish([event]))
    await called(site, at, had + len(events))
    return _milliseconds(due, await at.arrived())


async def measure_waiting(site: Installation, report: Report, *, waiting: int) -> None:
    """``many_waiting_…``: memory with ``waiting`` deliveries, over little, while some of them are sent.

    Half of them wait for an endpoint that answers, by their times; half for one that hangs, in order by recipient.
    """
    async with telling(site), AsyncExitStack() as stack:
        good, bad = [await stack.enter_async_context(receiver()) for _ in range(2)]
        told = [
            await stack.enter_async_context(subscribed(site, tenant, url, **more))
            for tenant, url, more in (
                ("waiting-answered", good.url("/answer"), {}),
                ("waiting-hanging", bad.url("/hang"), {"ordering": "recipient"}),
            )
        ]
        few = await _peak_mb(site, good, told, _FEW)
        many = await _peak_mb(site, good, told, waiting // 2)
    note = f"resident memory of the notifier at its highest, {waiting:,} deliveries waiting, {_SENT:,} sent meanwhile"
    report.add("many_waiting_mb", [many], "MB", note=note)
    report.add(
        "many_waiting_vs_few", [many / few], "ratio", aim="≤ 1.2", note=f"over {2 * _FEW:,} waiting: {few:.0f} MB"
    )


async def _peak_mb(site: Installation, good: Receiver, told: Sequence[Subscribed], each: int) -> float:
    """Of a notifier that begins anew with ``each`` waiting for each of ``told``."""
    site.say(f"{each * len(told):,} deliveries wait")
    for one in told:
        await one.pause()
        waiting = await one.waiting()
        if not waiting:
            await one.publish_all(one.events(1), 1)
            await one.until_waiting(1)
    await site.stop(SERVICE)
    for one in told:
        await copy_waiting(site, one, each)
    await site.ensure(SERVICE)
    had = await good.calls()
    for one in told:
        await one.resume()
    await called(site, good, had + _SENT)
    return _highest_mb(site.stack.service(SERVICE).pid)


def _highest_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LoadError("The kernel does not tell of a process's highest memory.")
