"""What reading costs in a full store: the timeline of an old message, and the newest events."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from backhaul_testing.wire import Connection
from filling import copied_id
from generators import LoadError
from installation import Installation
from normalizing import Posted
from report import Report

_TIMELINES, _PAGES = 300, 100
_EVENTS, _NEWEST = 3, 50


@dataclass(frozen=True)
class _Read:
    """``count`` reads of what ``path`` says each time; the answer's ``field`` must be a list of ``events``."""

    path: Callable[[], str]
    count: int
    field: str
    events: int


async def measure(
    site: Installation,
    report: Report,
    key: str,
    posts: Sequence[Posted],
    copies: int,
    database: str,
    *,
    rounds: int,
    stored: int,
) -> None:
    """``read_timeline…`` and ``read_newest…``, by the tenant of ``key`` whose ``posts`` were stored and copied."""
    site.stack.service("normalizer").env["BACKHAUL_MONGO_DATABASE"] = database
    await site.stop("normalizer")
    await site.ensure("gateway", "normalizer")
    told = Counter(
        parse_qs(post.body.decode())["MessageSid"][0] for one in posts if one.label == "Twilio" for post in one.posts
    )
    sids = [sid for sid, events in told.items() if events == _EVENTS]
    chosen = random.Random(1)  # noqa: S311  # repeatable, no secret

    def timeline() -> str:
        return f"/v1/messages/twilio/{copied_id(chosen.choice(sids), chosen.randrange(1, copies + 1))}"

    def newest() -> str:
        return f"/v1/events?limit={_NEWEST}"

    reads = {
        "read_timeline": _Read(timeline, _TIMELINES, "timeline", _EVENTS),
        "read_newest": _Read(newest, _PAGES, "events", _NEWEST),
    }
    notes = {
        "read_timeline": f"GET of a random old message of {_EVENTS} events",
        "read_newest": f"GET of the newest {_NEWEST} events",
    }
    measured: dict[str, list[tuple[float, dict[str, float]]]] = {name: [] for name in reads}
    connection = await Connection.open("127.0.0.1", site.gateway_port)
    try:
        for _ in range(rounds):
            for name, read in reads.items():
                measured[name].append(await _reading(site, connection, key, read))
    finally:
        connection.close()
    for name, what in notes.items():
        note = f"{what}, {stored:,} stored, one at a time"
        report.add(f"{name}_ms_p50", [ms for ms, _ in measured[name]], "ms", note=note)
        costs = [cost for _, cost in measured[name]]
        cpu = [(one.get("mongod", 0.0) + one.get("normalizer", 0.0)) * 1000 for one in costs]
        report.add(f"{name}_cpu_us", cpu, "us / read", note="of mongod and the normalizer")
        report.cost(name.replace("_", " "), "reads", costs)


async def _reading(site: Installation, connection: Connection, key: str, read: _Read) -> tuple[float, dict[str, float]]:
    """Milliseconds of the read in the middle, and the processes' CPU seconds per 1,000."""
    took = []
    before = site.meter.read()
    for _ in range(read.count):
        path = read.path()
        request = f"GET {path} HTTP/1.1\r\nHost: {site.host}\r\nX-Api-Key: {key}\r\n\r\n".encode()
        began = time.perf_counter()
        answer = await connection.ask(request)
        took.append((time.perf_counter() - began) * 1000)
        if answer.status != 200 or len(json.loads(answer.body)[read.field]) != read.events:
            raise LoadError(f"{path} was to answer {read.events} events: {answer.status} {answer.body[:500]!r}")
    return sorted(took)[len(took) // 2], site.meter.read().per_1000(before, read.count)
