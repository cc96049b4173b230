"""Suppression: questions by the thousand, and one by one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from backhaul_common.names import SUPPRESSION_COUNTERS_COLLECTION, SUPPRESSIONS_COLLECTION
from backhaul_local.service import Service
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_suppression.documents import row_document
from backhaul_suppression.model import EVERYTHING, Address, Family, Kind, Origin, Row, RowKey, Source
from backhaul_suppression.standing import Standing
from generators import LoadError
from grpc_health.v1 import health_pb2
from installation import Installation
from latency import percentile
from redis_server import Redis, redis
from report import Report

BATCH = 1000
_TENANT = "suppressing"
_SERVICE = "/backhaul_proto.suppression.v1.SuppressionService"
CHECK, _CHECK_BATCH = f"{_SERVICE}/Check", f"{_SERVICE}/CheckBatch"
_EMPTY = "/grpc.health.v1.Health/Check"
_IN_FLIGHT = 4
_ONE_BY_ONE = 8
_SINGLE_RATE = 1000
_PATIENCE_S = 20.0

Ask = Callable[[bytes], Awaitable[bytes]]


async def measure(site: Installation, report: Report, *, rounds: int, seconds: float, rows: int) -> None:
    """``suppression_checks_per_s`` and what belongs to it, over ``rows`` suppressed addresses."""
    await site.stop("suppression", "normalizer")
    await site.ensure("gateway")
    await site.register(_TENANT)
    await _fill(site, await site.registration(_TENANT), rows)
    began = time.perf_counter()
    await site.ensure("suppression")
    report.add("suppression_start_s", [time.perf_counter() - began], "s", note=f"until it answers, {rows:,} rows")
    report.add("suppression_resident_mb", [site.meter.resident_mb()["suppression"]], "MB", note="after that")
    async with AsyncExitStack() as stack:
        callers = Callers(await stack.enter_async_context(channel_to(site.stack.service("suppression"))), site)
        store = await stack.enter_async_context(redis(site.folder))
        await _batches(site, report, callers, store, rounds=rounds, seconds=seconds, rows=rows)
        await _one_by_one(site, report, callers, rounds=rounds, seconds=seconds)
    await site.stop("suppression")


class Callers:
    """What asks. Requests are serialised before the clock starts, and answers are read as messages."""

    def __init__(self, channel: grpc.aio.Channel, site: Installation) -> None:
        token = site.stack.service("suppression").env["BACKHAUL_INTERNAL_TOKEN"]
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._channel = channel

    def to(self, method: str) -> Ask:
        """Asks ``method``."""
        call: Any = self._channel.unary_unary(method)

        async def ask(request: bytes) -> bytes:
            answer: bytes = await call(request, timeout=_PATIENCE_S, metadata=self._metadata)
            return answer

        return ask


async def _batches(
    site: Installation, report: Report, callers: Callers, store: Redis | None, *, rounds: int, seconds: float, rows: int
) -> None:
    """Ours and the other in turn, each for ``seconds``."""
    # One in ten is suppressed: the answer says all that is known about it.
    numbers = [[number(batch * BATCH + n if n % 10 == 0 else rows + batch * BATCH + n) for n in range(BATCH)]
               for batch in range(64)]  # fmt: skip
    requests = [
        pb.CheckBatchRequest(tenant_id=_TENANT, items=[pb.CheckItem(address=one) for one in batch]).SerializeToString()
        for batch in numbers
    ]
    ask = callers.to(_CHECK_BATCH)

    async def check(request: bytes) -> None:
        results = pb.CheckBatchResponse.FromString(await ask(request)).results
        verdicts = [result.verdict for result in results]
        if (
            verdicts.count(pb.VERDICT_SUPPRESSED) != BATCH // 10
            or verdicts.count(pb.VERDICT_ALLOWED) != BATCH * 9 // 10
        ):
            raise LoadError(f"A batch was answered {sorted(set(verdicts))}.")

    ours, theirs, costs = [], [], []
    if store is not None:
        await store.fill(number(n) for n in range(rows))
    for round_ in range(rounds):
        site.say(f"batches of {BATCH}, round {round_ + 1} of {rounds}")
        before = site.meter.read()
        ours.append(BATCH * await _rate(check, requests, _IN_FLIGHT, seconds))
        costs.append(site.meter.read().per_1000(before, round(ours[-1] * seconds)))
        if store is not None:
            theirs.append(BATCH * await _rate(store.members, numbers, _IN_FLIGHT, seconds))
    note = (
        f"batches of {BATCH}, {_IN_FLIGHT} under way, over mutual TLS; one address in ten is suppressed; {rows:,} rows"
    )
    report.add("suppression_checks_per_s", ours, "checks/s", aim="≥ 200,000", note=note)
    report.cost("suppression, batches", "checks", costs)
    if theirs:
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        report.add("check_vs_redis", ratios, "ratio", note="over SMISMEMBER of as many, without TLS, same client")
    else:
        site.say("check_vs_redis is left out: there is no redis-server on this machine")


async def _one_by_one(site: Installation, report: Report, callers: Callers, *, rounds: int, seconds: float) -> None:
    requests = [pb.CheckRequest(tenant_id=_TENANT, address=number(n * 7)).SerializeToString() for n in range(1000)]
    empty = health_pb2.HealthCheckRequest().SerializeToString()
    check, floor = callers.to(CHECK), callers.to(_EMPTY)
    ratios = []
    for round_ in range(rounds):
        site.say(f"one by one, round {round_ + 1} of {rounds}")
        rate = await _rate(check, requests, _ONE_BY_ONE, seconds)
        ratios.append(rate / await _rate(floor, [empty], _ONE_BY_ONE, seconds))
    report.add("check_vs_grpc_floor", ratios, "ratio", aim="≥ 0.6", note="over an empty call of the same server")
    p99 = [percentile(await _paced(check, requests, _SINGLE_RATE, seconds), 99) for _ in range(rounds)]
    report.add("suppression_check_p99_ms", p99, "ms", aim="≤ 5", note=f"at {_SINGLE_RATE} a second, by their schedule")


async def _rate(ask: Callable[[Any], Awaitable[Any]], requests: Sequence[Any], under_way: int, seconds: float) -> float:
    """Requests a second, that many under way at any time."""
    ends = time.perf_counter() + seconds
    count = 0

    async def one(first: int) -> None:
        nonlocal count
        at = first
        while time.perf_counter() < ends:
            await ask(requests[at % len(requests)])
            count += 1
            at += under_way

    began = time.perf_counter()
    await asyncio.gather(*(one(first) for first in range(under_way)))
    return count / (time.perf_counter() - began)


async def _paced(ask: Ask, requests: Sequence[bytes], rate: int, seconds: float) -> list[float]:
    """Milliseconds of each from when it was due, whatever the others take."""
    loop = asyncio.get_running_loop()
    took: list[float] = []

    async def one(due: float, request: bytes) -> None:
        await ask(request)
        took.append((loop.time() - due) * 1000)

    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for n in range(int(rate * seconds)):
            due = began + n / rate
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            group.create_task(one(due, requests[n % len(requests)]))
    return took


async def _fill(site: Installation, registration: str, rows: int) -> None:
    """Rows as the service stores them, straight into the collection: it must not run."""
    site.say(f"{rows:,} rows")
    now = time.time_ns() // 1000
    collection = site.database[SUPPRESSIONS_COLLECTION]
    for first in range(0, rows, 10_000):
        made = [_row(registration, n, now) for n in range(first, min(rows, first + 10_000))]
        await collection.insert_many(
            [row_document(row.key.id, Standing(row.key, row, None, (now, row.fact_id))) for row in made],
            ordered=False,
        )
    counters = site.database[SUPPRESSION_COUNTERS_COLLECTION]
    await counters.insert_one({"_id": registration, "registration": registration, "position": rows})


def _row(registration: str, n: int, now: int) -> Row:
    key = RowKey(Address(registration, Family.PHONE, number(n)), Kind.STOP, EVERYTHING)
    event = f"{n:032x}"
    return Row(
        key, True, now, event, now, Origin.RECIPIENT, Source.EVENT, event_id=event, due_by_us=now, position=n + 1
    )


def number(n: int, area: int = 201) -> str:
    """The telephone number of person ``n``; other areas are other people."""
    return f"+1{area}{2_000_000 + n:07d}"


@asynccontextmanager
async def channel_to(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to a copy of a service, as services of Backhaul have one."""
    credentials = _credentials(service)
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 16 << 20)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{service.ports['grpc']}", credentials, options=options) as channel:
        yield channel


def _credentials(service: Service) -> grpc.ChannelCredentials:
    authority, key, certificate = (
        Path(service.env[f"BACKHAUL_GRPC_TLS_{name}_FILE"]).read_bytes() for name in ("CA", "KEY", "CERT")
    )
    return grpc.ssl_channel_credentials(authority, key, certificate)
