"""NATS or MongoDB away for a while, and back: no provider hears no meanwhile, and all heals by itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from faults.account import drained, spooled
from simulators.people import Tenant, Town

if TYPE_CHECKING:
    from backhaul_local.member import Member
    from backhaul_local.stack import Stack

pytestmark = pytest.mark.faults

OUTAGE_S = 6.0
LONG_OUTAGE_S = 30.0
"""How long a server is away. Nothing below depends on the figure, but for its being longer than every timeout."""

MAX_ANSWER_S = 5.0


class _Posting:
    """Callbacks of one tenant, one after another on a few connections, with the answer and the time of each."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self.answers: dict[str, httpx.Response] = {}
        self.longest_s = 0.0

    async def one(self) -> httpx.Response:
        sid = new_sid()
        post = self._tenant.twilio.status(self._tenant.address("Twilio"), sid, "sent")
        began = time.perf_counter()
        answer = self.answers[sid] = await self._tenant.send(post)
        self.longest_s = max(self.longest_s, time.perf_counter() - began)
        return answer

    async def during(self, seconds: float, *, connections: int = 4) -> None:
        """Post for ``seconds``; returns when the last one is answered."""

        async def keep_posting(until_s: float) -> None:
            while time.perf_counter() < until_s:
                await self.one()
                await asyncio.sleep(0.2)  # There are enough of them, and all are read in the end.

        ends = time.perf_counter() + seconds
        await asyncio.gather(*(keep_posting(ends) for _ in range(connections)))

    def sids(self, status: int) -> set[str]:
        return {sid for sid, answer in self.answers.items() if answer.status_code == status}


async def _keep_reading(tenant: Tenant, stop: asyncio.Event) -> list[float]:
    """Read until told to stop, asserting that every read succeeds; how long each took."""
    took = []
    while not stop.is_set():
        began = time.perf_counter()
        assert (await tenant.get("/v1/messages")).status_code == 200
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.05)
    return took


async def _ready(stack: Stack) -> tuple[int, dict[str, str]]:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{stack.gateway_url}/readyz", timeout=10)
    return answer.status_code, answer.json()["failing"]


async def _reachable(stack: Stack, value: int) -> bool:
    async with httpx.AsyncClient() as http:
        metrics = (await http.get(f"{stack.gateway_url}/metrics", timeout=10)).text
    (line,) = [line for line in metrics.splitlines() if line.startswith("backhaul_gateway_store_reachable")]
    return float(line.split()[-1]) == value


async def _away(member: Member, how: str) -> None:
    if how == "paused":
        member.pause()
    else:
        await member.kill()


async def _back(member: Member, how: str) -> None:
    if how == "paused":
        member.resume()
    else:
        await member.start()


async def _all_stored(tenant: Tenant, sids: set[str]) -> None:
    async def probe() -> bool:
        return sids <= {row.message_id for row in await tenant.messages()}

    await until(f"all {len(sids)} messages that were answered 200", probe, within_s=30, pause_s=0.1)


@pytest.mark.parametrize(("how", "outage_s"), [("paused", OUTAGE_S), ("killed", LONG_OUTAGE_S)])
async def test_nats_is_away_for_a_while(breakable: Stack, how: str, outage_s: float) -> None:
    stack = breakable
    async with Town(stack.gateway_url, stack.admin_token) as town:
        tenant = await town.platform.register()
        nats_server = stack.member("nats")
        services = [service.pid for service in stack.services]
        before, outage = _Posting(tenant), _Posting(tenant)
        await before.during(0.5)
        assert len(before.sids(200)) == len(before.answers) >= 4
        await _all_stored(tenant, before.sids(200))

        await _away(nats_server, how)
        stop_reading = asyncio.Event()
        reading = asyncio.create_task(_keep_reading(tenant, stop_reading))
        await outage.during(outage_s)
        # It takes callbacks, so it is ready, and keeps them on its disk.
        assert await _ready(stack) == (200, {})
        assert await spooled(stack) > 0
        stop_reading.set()
        reads = await reading
        assert len(reads) >= 10
        assert max(reads) < MAX_ANSWER_S
        assert len(outage.answers) >= 8
        assert outage.sids(200) == outage.answers.keys()
        assert outage.longest_s < MAX_ANSWER_S

        await _back(nats_server, how)
        after = _Posting(tenant)
        await after.during(0.5)
        assert after.sids(200) == after.answers.keys()
        await drained(stack)
        posted = [sid for posting in (before, outage, after) for sid in posting.answers]
        await _all_stored(tenant, set(posted))
        # Each of them once, and nothing else.
        assert sorted(row.message_id for row in await tenant.events()) == sorted(posted)
        assert [service.pid for service in stack.services if service.running] == services


@pytest.mark.parametrize("how", ["paused", "killed"])
async def test_mongod_is_away_for_a_while(breakable: Stack, how: str) -> None:
    stack = breakable
    async with Town(stack.gateway_url, stack.admin_token) as town:
        said_before = {service.name: service.log_path.stat().st_size for service in stack.services}
        tenant = await town.platform.register()
        mongod = stack.member("mongod")
        services = [service.pid for service in stack.services]
        posting = _Posting(tenant)
        await posting.during(0.5)
        await _all_stored(tenant, posting.sids(200))
        before = len(posting.answers)

        await _away(mongod, how)
        reading = asyncio.create_task(tenant.get("/v1/messages"))
        await posting.during(OUTAGE_S)
        # It takes callbacks, so it is ready; what is away is seen in the metric.
        assert await _ready(stack) == (200, {})
        await until("the metric", partial(_reachable, stack, 0))
        # Reads say that it is not their fault, in time.
        answer = await reading
        assert answer.status_code in (503, 504)
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(posting.answers) >= before + 8
        # The gateway knows its tenants: every callback is taken, and nobody waits for the database.
        assert posting.sids(200) == posting.answers.keys()
        assert posting.longest_s < 2.0

        await _back(mongod, how)
        await until("the metric", partial(_reachable, stack, 1), within_s=15)
        await drained(stack)
        await _all_stored(tenant, posting.sids(200))
        stored = [row.message_id for row in await tenant.events()]
        assert sorted(stored) == sorted(posting.answers)
        # An outage is expected: no error, no traceback, and each thing that it interrupts is said once with its reason.
        for service in stack.services:
            said_since = service.log_path.read_bytes()[said_before[service.name] :].decode()
            lines = [json.loads(line) for line in said_since.splitlines() if line.startswith("{")]
            assert [line for line in lines if line["level"] == "error" or "exception" in line] == []
            said = Counter((line["event"], line.get("task")) for line in lines if line["level"] == "warning")
            assert max((said[event, task] for event, task in said if event != "not_ready"), default=0) <= 4, said
        assert [service.pid for service in stack.services if service.running] == services
