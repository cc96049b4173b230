"""MongoDB or NATS hangs or dies while suppression is asked: nobody is allowed for want of knowledge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from backhaul_client.suppression import Kind
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from faults.copies import ALLOWED, LEASE_S, SUPPRESSED, UNAVAILABLE, Copy, Pair
from simulators.people import Tenant

pytestmark = [pytest.mark.faults, pytest.mark.timed]

OUTAGE_S, WITHOUT_NATS_S = LEASE_S + 2.0, 3.0
"""How long MongoDB is away, and NATS."""

MOMENT_S = 0.3
"""How long it may take until a signal has stopped a process."""

ROOM_S = 2.0
"""What a busy machine may take for what takes milliseconds."""

BACK_S = 10.0
"""Within which everything goes on by itself."""

STOPPED, FREE, ADDED, SAID = "+15005550001", "+15005550002", "+15005550003", "+15005550004"


@dataclass(frozen=True)
class Answer:
    number: str
    began: float
    ended: float
    verdict: str


@dataclass
class Asking:
    """``async with Asking(copies, tenant) as asking``: each copy is asked about two people all the time."""

    copies: list[Copy]
    tenant: Tenant
    answers: list[Answer] = field(default_factory=list)

    @asynccontextmanager
    async def all_the_time(self) -> AsyncIterator[None]:
        over = asyncio.Event()

        async def keep_asking(copy: Copy, number: str) -> None:
            while not over.is_set():
                began = time.perf_counter()
                verdict = await copy.verdict(self.tenant, number)
                self.answers.append(Answer(number, began, time.perf_counter(), verdict))
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            for copy in self.copies:
                for number in (STOPPED, FREE):
                    group.create_task(keep_asking(copy, number))
            try:
                yield
            finally:
                over.set()

    def between(self, began: float, ended: float) -> list[Answer]:
        """Those to questions that began and were answered in between."""
        return [one for one in self.answers if began <= one.began and one.ended <= ended]


async def _away(pair: Pair, name: str, how: str) -> None:
    if how == "hung":
        pair.stack.member(name).pause()
    else:
        await pair.stack.kill(name)


async def _back(pair: Pair, name: str, how: str) -> None:
    if how == "hung":
        pair.stack.member(name).resume()
    else:
        await pair.stack.member(name).start()


async def _over_rest(tenant: Tenant, number: str) -> httpx.Response:
    headers = {"X-Api-Key": tenant.api_key}
    return await tenant.http.post(f"{tenant.base_url}/v1/suppressions/check", json={"address": number}, headers=headers)


async def _says_stop(tenant: Tenant) -> None:
    post = tenant.twilio.inbound(tenant.address("Twilio"), new_sid(), "STOP", sender=SAID)
    assert (await tenant.send(post)).status_code == 200


async def _known_everywhere(pair: Pair, tenant: Tenant, number: str) -> None:
    for copy in pair.copies:

        async def known(copy: Copy = copy) -> bool:
            return await copy.verdict(tenant, number) == SUPPRESSED

        await until(f"the STOP by {copy.name}", known, within_s=BACK_S)


@pytest.mark.parametrize("how", ["hung", "killed"])
async def test_while_mongod_is_away_nobody_is_allowed(pair: Pair, how: str) -> None:
    tenant, _ = await pair.two_tenants()
    writer = pair.copies[0]
    await writer.client.add(tenant.id, STOPPED, Kind.STOP)
    assert (await _over_rest(tenant, FREE)).json()["verdict"] == ALLOWED
    asking = Asking(list(pair.copies), tenant)
    async with asking.all_the_time():
        await _away(pair, "mongod", how)
        away = time.perf_counter()
        adding = asyncio.create_task(writer.client.add(tenant.id, ADDED, Kind.STOP, timeout_s=40))
        await _says_stop(tenant)
        await asyncio.sleep(OUTAGE_S)
        answer = await _over_rest(tenant, FREE)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await _over_rest(tenant, STOPPED)).status_code == 503
        ends = time.perf_counter()
        await _back(pair, "mongod", how)
        for copy in pair.copies:
            await copy.answers(tenant, within_s=BACK_S)
        await _known_everywhere(pair, tenant, SAID)
        assert (await adding).suppression.active
        await _known_everywhere(pair, tenant, ADDED)
        assert (await _over_rest(tenant, FREE)).json()["verdict"] == ALLOWED
    assert {one.verdict for one in asking.answers if one.number == STOPPED} == {SUPPRESSED, UNAVAILABLE}
    without = asking.between(away + LEASE_S + MOMENT_S, ends)
    assert len(without) > 20
    assert {one.verdict for one in without} == {UNAVAILABLE}
    assert max(one.ended - one.began for one in asking.answers) < ROOM_S


@pytest.mark.parametrize("how", ["hung", "killed"])
async def test_while_nats_is_away_questions_and_additions_go_on(pair: Pair, how: str) -> None:
    tenant, _ = await pair.two_tenants()
    writer, other = pair.copies
    await writer.client.add(tenant.id, STOPPED, Kind.STOP)
    asking = Asking(list(pair.copies), tenant)
    async with asking.all_the_time():
        await _away(pair, "nats", how)
        ends = time.perf_counter() + WITHOUT_NATS_S
        added = 0
        while time.perf_counter() < ends:
            number = f"+1415{added:07}"
            began = time.perf_counter()
            await writer.client.add(tenant.id, number, Kind.MANUAL)
            assert await other.verdict(tenant, number) == SUPPRESSED
            await other.client.lift(tenant.id, number, Kind.MANUAL)
            assert await writer.verdict(tenant, number) == ALLOWED
            assert time.perf_counter() - began < 2 * ROOM_S
            added += 1
        assert added > 3
        assert (await _over_rest(tenant, STOPPED)).json()["verdict"] == SUPPRESSED
        await _back(pair, "nats", how)

        async def said() -> bool:
            post = tenant.twilio.inbound(tenant.address("Twilio"), new_sid(), "STOP", sender=SAID)
            return (await tenant.send(post)).status_code == 200

        await until("a callback that is taken", said, within_s=BACK_S)
        await _known_everywhere(pair, tenant, SAID)
    wanted = {STOPPED: SUPPRESSED, FREE: ALLOWED}
    assert [one for one in asking.answers if one.verdict != wanted[one.number]] == []
    assert max(one.ended - one.began for one in asking.answers) < ROOM_S
