"""Members: what registering them costs, and joining messages to them; and a communication with very many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import floors
from backhaul_common.names import MEMBERS_COLLECTION, channel_key
from backhaul_normalizer.communications.adding import CHUNK_LINES
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2
from backhaul_testing.posts import Post
from generators import LoadError
from installation import Installation
from normalized import Normalized
from normalizing import GROUP
from registry import Registry, lines, registry
from report import Report
from suppressing import number
from traffic import STATUSES

_REGISTERING, _JOINING, _MANY = "members-registering", "members-joining", "members-many"
_PLAIN = "members-plain"
"""A tenant that registers nothing."""

_SMS, _MAIL = "Twilio", "SendGrid"
_BATCH = "many"
_PARTS = {
    "register": "JSON lines over gRPC, one call",
    "complete": "from the first event until it is complete, one event a member, 500 to a post",
    "list": "until one call has told of all, each with its message",
}
_PAGE, _TURNS = 1000, 25
_POSTS, _POST_EVENTS = 20, 500
_AHEAD = 100_000
_LOOK_S = 0.05
_PATIENCE_S = 3600.0


@asynccontextmanager
async def _tenants(site: Installation, *tenants: str) -> AsyncIterator[None]:
    """The normalizer runs, and these tenants have registered and sent nothing. All of it is gone afterwards."""
    await _empty(site)
    await site.ensure("gateway", "normalizer")
    for tenant in tenants:
        await site.register(tenant)
    yield
    await _empty(site)


async def _empty(site: Installation) -> None:
    await site.stop("normalizer")
    await site.purge_callbacks()
    await site.forget()


async def measure_registering(site: Installation, report: Report, *, rounds: int, members: int) -> None:
    """``members_per_s`` and what belongs to it: ``members`` a round, and the floor, in turn."""
    rates, ratios, cpu, floor_us = [], [], [], []
    costs = []
    async with _tenants(site, _REGISTERING), registry(site, _REGISTERING) as known:
        for n in range(rounds):
            site.say(f"registering {members:,} members, round {n + 1} of {rounds}")
            batch = f"registered-{n}"
            file = list(lines(_people(members)))
            await known.open("registered", batch, channel_key(_MAIL), members)
            await site.checkpoint()
            before, began = site.meter.read(), time.perf_counter()
            await known.add(batch, file)
            rates.append(members / (time.perf_counter() - began))
            used = site.meter.read()
            costs.append(used.per_1000(before, members))
            stored = await site.database[MEMBERS_COLLECTION].find({"batch_id": batch}).to_list(None)
            least = await floors.inserted(site, MEMBERS_COLLECTION, stored, CHUNK_LINES)
            ratios.append(rates[-1] / least.per_second)
            cpu.append(_us(costs[-1]))
            floor_us.append(least.cpu_us)
    note = "by the clock, JSON lines of 0.2 KB over gRPC, one call"
    report.add("members_per_s", rates, "members/s", note=note)
    note = "of the same documents, inserted as many to a transaction, into a collection with the same indexes"
    report.add("members_vs_floor", ratios, "ratio", note=f"rate over that {note}")
    over = [one / other for one, other in zip(cpu, floor_us, strict=True)]
    report.add(
        "members_cpu_vs_floor", over, "ratio of CPU", note=f"normalizer and mongod, over driver and mongod {note}"
    )
    report.add("members_cpu_us", cpu, "us / member", note="of the normalizer and mongod")
    report.cost("registering members", "members", costs)


@dataclass(frozen=True)
class _Way:
    """How messages find their members; ``batch`` names the batch in them, if at all."""

    name: str
    names: bool
    note: str


_WAYS = (
    _Way("recipient", names=False, note="found by their recipients"),
    _Way("named", names=True, note="their callbacks name batch and member"),
)


async def measure_joining(site: Installation, report: Report, *, rounds: int, messages: int) -> None:
    """``join_cost_…``: messages whose members are registered, and the same of a tenant who registered nothing, in turn;
    ``messages`` of each a round."""
    measured: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {way.name: [] for way in _WAYS}
    async with _tenants(site, _JOINING, _PLAIN), registry(site, _JOINING) as known:
        for n in range(rounds):
            for way in _WAYS:
                site.say(f"joining by {way.name}, round {n + 1} of {rounds}")
                batch = f"joined-{way.name}-{n}"
                people = [number(n * messages + one) for one in range(messages)]
                await known.open(batch, batch, channel_key(_SMS), messages)
                await known.add(batch, lines((one.removeprefix("+"), one) for one in people))
                posts = site.traffic.of_people(people, batch, batch_id=batch if way.names else "")
                without = await _fed(site, _PLAIN, posts)
                joined = await _fed(site, _JOINING, posts)
                _require_done(await known.batch(batch), messages)
                measured[way.name].append((without, joined))
    for way in _WAYS:
        pairs = measured[way.name]
        ratios = [_us(joined) / _us(without) for without, joined in pairs]
        note = (
            f"normalizer and mongod, checkpoint included; messages of three events, over the same without; {way.note}"
        )
        report.add(f"join_cost_{way.name}", ratios, "ratio of CPU", aim="≤ 1.3", note=note)
        for process in ("normalizer", "mongod"):
            parts = [joined[process] / without[process] for without, joined in pairs]
            report.add(f"join_cost_{way.name}_{process}", parts, "ratio of CPU", note="its part")
        for place, label in enumerate(("no members", f"members by {way.name}")):
            report.cost(f"messages, {label}", "messages", [pair[place] for pair in pairs])


async def _fed(site: Installation, tenant: str, posts: list[Post]) -> dict[str, float]:
    """CPU seconds of each process per 1,000 messages. The normalizer runs, and finds all of it at once."""
    stored = site.traffic.stored(tenant, await site.registration(tenant), _SMS, posts, GROUP)
    service = site.stack.service("normalizer")
    normalized = Normalized(service)
    await site.checkpoint()
    service.pause()
    try:
        await site.prefill(tenant, [(channel_key(_SMS), one) for one in stored])
        before = site.meter.read()
    finally:
        service.resume()
    await normalized.until(len(posts))
    messages = len(posts) // len(STATUSES)
    used = site.meter.read().per_1000(before, messages)
    used["mongod"] += (await site.checkpoint())["mongod"] / messages * 1000
    return used


async def measure_many(site: Installation, report: Report, *, members: int) -> None:
    """``many_members_…``: one batch of so many, from its registration to the list of what became of each.

    The normalizer begins anew for each part, so that its memory is that part's.
    """
    async with _tenants(site, _MANY):
        for part, work in (("register", _register), ("complete", _complete), ("list", _list)):
            site.say(f"{members:,} members in one batch: {part}")
            await site.stop("normalizer")
            await site.checkpoint()
            await site.ensure("normalizer")
            before = site.meter.read()
            async with registry(site, _MANY) as known:
                seconds = await work(site, known, members)
            report.add(
                f"many_members_{part}_s", [seconds], "s", note=f"{members:,} members in one batch: {_PARTS[part]}"
            )
            note = "resident memory of the normalizer at its highest, meanwhile"
            report.add(f"many_members_{part}_mb", [_peak_mb(site)], "MB", note=note)
            report.cost(f"very many members: {part}", "members", [site.meter.read().per_1000(before, members)])
            if part == "register":
                await _sizes(site, report, members)
        async with registry(site, _MANY) as known:
            ratio = await _paged(known, members)
        note = "the last page of 1,000, or the middle one, whichever takes longer, over the first; by turns"
        report.add("many_members_page_growth", [ratio], "ratio", aim="≤ 1.5", note=note)


async def _register(_: Installation, known: Registry, members: int) -> float:
    await known.open(_BATCH, _BATCH, channel_key(_MAIL), members)
    began = time.perf_counter()
    await known.add(_BATCH, lines(_people(members)))
    return time.perf_counter() - began


async def _complete(site: Installation, known: Registry, members: int) -> float:
    """Have every member's mail be delivered: seconds until the batch is complete."""
    registration = await site.registration(_MANY)
    normalized = Normalized(site.stack.service("normalizer"))
    began_us = time.time_ns() // 1000
    for first in range(0, members, _POSTS * _POST_EVENTS):
        until = min(first + _POSTS * _POST_EVENTS, members)
        posts = [
            site.traffic.delivered_mails([_mail(n) for n in range(at, min(at + _POST_EVENTS, until))], _BATCH)
            for at in range(first, until, _POST_EVENTS)
        ]
        stored = site.traffic.stored(_MANY, registration, _MAIL, posts, 1)
        await site.prefill(_MANY, [(channel_key(_MAIL), one) for one in stored])
        await normalized.until(until - _AHEAD)  # The stream need not hold all of it.
    # It tells nobody but by a notice, so it is asked, this often.
    async with asyncio.timeout(_PATIENCE_S):
        while (found := await known.batch(_BATCH)).status != pb.BATCH_STATUS_COMPLETE:  # noqa: ASYNC110  # another process tells no event
            await asyncio.sleep(_LOOK_S)
    _require_done(found, members)
    return (found.completed_at_us - began_us) / 1e6


async def _list(_: Installation, known: Registry, members: int) -> float:
    began, listed, held = time.perf_counter(), 0, 0
    async for some in known.members(_BATCH):
        listed += len(some)
        held += sum(one.destinations[0].HasField("message") for one in some)
    if (listed, held) != (members, members):
        raise LoadError(f"{listed} of {members} members were listed, {held} with a message.")
    return time.perf_counter() - began


async def _paged(known: Registry, members: int) -> float:
    """How much longer a page takes that has many before it than the first one, asked for by turns."""
    tokens, listed = [""], 0
    while len(tokens) == 1 or tokens[-1]:
        answer = await known.page(_BATCH, _PAGE, tokens[-1])
        listed += len(answer.members)
        tokens.append(answer.next_page_token)
    if listed != members:
        raise LoadError(f"{listed} of {members} members were listed by pages.")
    took: dict[str, list[float]] = {token: [] for token in ("", tokens[len(tokens) // 2], tokens[-2])}
    for _ in range(_TURNS):
        for token, times in took.items():
            began = time.perf_counter()
            await known.page(_BATCH, _PAGE, token)
            times.append(time.perf_counter() - began)
    first, *later = map(median, took.values())
    return max(later) / first


def _require_done(batch: pb.Batch, members: int) -> None:
    """LoadError where it is not complete by what was told of each of its ``members``."""
    states = {one.state: one.count for one in batch.progress.fulfilment if one.count}
    if batch.completed_by != pb.COMPLETED_BY_CONDITION or states != {
        normalizer_pb2.FULFILMENT_STATE_DELIVERED: members
    }:
        raise LoadError(f"All of {members} members were to be delivered to: {batch}")


def _peak_mb(site: Installation) -> float:
    """Resident memory of the normalizer since it started, at its highest."""
    for line in Path(f"/proc/{site.stack.service('normalizer').pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LoadError("The kernel does not tell of a process's highest memory.")


async def _sizes(site: Installation, report: Report, members: int) -> None:
    await site.checkpoint()
    told = await site.database.command("collStats", MEMBERS_COLLECTION)
    report.add("many_members_bytes", [told["size"] / members], "bytes", note="a member's document")
    note = "what it takes in MongoDB, compressed, with its place in the indexes"
    report.add("many_members_stored_bytes", [told["totalSize"] / members], "bytes", note=note)


def _people(count: int) -> Iterator[tuple[str, str]]:
    return ((f"customer-{n:07d}", _mail(n)) for n in range(count))


def _mail(n: int) -> str:
    return f"person{n}@example.com"


def _us(per_1000: Mapping[str, float]) -> float:
    """CPU microseconds of the normalizer and mongod for each."""
    return (per_1000["normalizer"] + per_1000["mongod"]) * 1000
