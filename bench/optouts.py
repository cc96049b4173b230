"""How soon a STOP is known to another copy of suppression, while callbacks come in."""

from __future__ import annotations

import asyncio
import time

from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_testing.twilio import new_sid
from backhaul_testing.wire import Connection, encoded
from copies import another
from generators import LoadError, RawSockets, write_for
from installation import Installation
from latency import percentile, sustained
from normalized import Normalized
from report import Report
from suppressing import CHECK, Ask, Callers, channel_to, number

_TENANT = "stopping"
_STOP_EVERY_S = 0.1
_ASK_EVERY_S = 0.005
_PATIENCE_S = 20.0


async def measure(site: Installation, report: Report, *, rounds: int, seconds: float, at_most: int) -> None:
    """``optout_visible_ms_p99``: from the 200 of a STOP to the first "suppressed" on a copy, at half of the maximum."""
    await site.ensure("gateway")
    await site.stop("normalizer", "suppression")
    key = await site.register(_TENANT)
    await site.forget()
    await site.ensure("normalizer", "suppression")
    async with another(site, "suppression") as copy, channel_to(copy) as channel:
        # The copy takes its part of the cores, so the maximum is one beside it.
        most = (await sustained(site, key, at_most)).per_second
        callers = Callers(channel, site)
        # What the maximum left behind is not part of half of it, and comes before this one.
        await _stop(site, key, callers.to(CHECK), number(0, area=304))
        runs = []
        for round_ in range(rounds):
            site.say(f"STOP to suppressed at {most / 2:.0f} callbacks/s, round {round_ + 1} of {rounds}")
            runs.append(await _visible_round(site, key, callers.to(CHECK), most / 2, seconds, round_))
    note = f"on another copy, at {most / 2:.0f} callbacks/s; asked every {_ASK_EVERY_S * 1000:.0f} ms"
    report.add("optout_visible_ms_p50", [percentile(one, 50) for one in runs], "ms", note=note)
    report.add("optout_visible_ms_p99", [percentile(one, 99) for one in runs], "ms", aim="≤ 1000")
    await site.stop("suppression")


async def _visible_round(
    site: Installation, key: str, check: Ask, rate: float, seconds: float, round_: int
) -> list[float]:
    load = write_for(site.folder / "background.requests", site.traffic.twilio(int(rate * seconds)), key)
    normalized = Normalized(site.stack.service("normalizer"))
    stops = int(seconds / _STOP_EVERY_S)
    async with asyncio.timeout(seconds + 2 * _PATIENCE_S), asyncio.TaskGroup() as group:
        background = group.create_task(RawSockets().paced(load, site.gateway_port, seconds, rate))
        began = time.perf_counter()
        probes = []
        for n in range(stops):
            await asyncio.sleep(began + n * _STOP_EVERY_S - time.perf_counter())
            probes.append(group.create_task(_stop(site, key, check, number(round_ * stops + n, area=303))))
    answered = background.result().answered
    if answered < rate * seconds * 0.95:
        raise LoadError(f"The load did not keep its pace: {answered} of {rate * seconds:.0f} callbacks.")
    await normalized.until(answered + stops)
    return [probe.result() for probe in probes]


async def _stop(site: Installation, key: str, check: Ask, person: str) -> float:
    post = site.traffic.stop(new_sid(), person).with_header("X-Api-Key", key)
    connection = await Connection.open("127.0.0.1", site.gateway_port)
    try:
        answer = await connection.ask(encoded(post))
    finally:
        connection.close()
    began = time.perf_counter()
    if answer.status != 200:
        raise LoadError(f"A STOP was answered with {answer.status}: {answer.body!r}")
    request = pb.CheckRequest(tenant_id=_TENANT, address=person).SerializeToString()
    while pb.CheckResponse.FromString(await check(request)).verdict != pb.VERDICT_SUPPRESSED:  # noqa: ASYNC110  # another process tells no event
        await asyncio.sleep(_ASK_EVERY_S)
    return (time.perf_counter() - began) * 1000
