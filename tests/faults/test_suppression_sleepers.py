"""A copy of suppression that is stopped (SIGSTOP) while rows change: it says nothing that is not so any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import pytest
from backhaul_client.suppression import Evidence, Kind, Source
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from faults.copies import ALLOWED, LEASE_S, PATIENCE_S, SUPPRESSED, UNAVAILABLE, Copy, Pair
from simulators.people import Tenant

pytestmark = [pytest.mark.faults, pytest.mark.timed]

ROOM_S = 2.0
"""What a busy machine may take for what takes milliseconds."""

ADDED, LIFTED, STOPPED = "+15005550001", "+15005550002", "+15005550003"
TURNS = 2


async def _timed(work: Awaitable[Any]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def _becomes(copy: Copy, tenant: Tenant, number: str, verdict: str, *, within_s: float = 60.0) -> None:
    async def probe() -> bool:
        return await copy.verdict(tenant, number) == verdict

    await until(f"{verdict} by {copy.name}", probe, within_s=within_s)


async def _stop_by_callback(tenant: Tenant, number: str) -> None:
    post = tenant.twilio.inbound(tenant.address("Twilio"), new_sid(), "STOP", sender=number)
    assert (await tenant.send(post)).status_code == 200


def _evidence() -> Evidence:
    return Evidence(source=Source.WEB, at=datetime.now(UTC), reference="form 12")


async def test_a_holder_that_slept_says_nothing_that_is_not_so_any_more(pair: Pair) -> None:
    writer, holder = pair.copies
    tenant, _ = await pair.two_tenants()
    await writer.client.add(tenant.id, LIFTED, Kind.STOP)
    assert [await holder.verdict(tenant, number) for number in (ADDED, LIFTED)] == [ALLOWED, SUPPRESSED]

    pair.stack.member(holder.name).pause()
    before = asyncio.create_task(holder.verdict(tenant, ADDED))
    # The first waits for the lease of the one that sleeps, and from then on nobody does.
    assert await _timed(writer.client.add(tenant.id, ADDED, Kind.STOP)) < PATIENCE_S + ROOM_S
    lifting = writer.client.lift(tenant.id, LIFTED, Kind.STOP, evidence=_evidence())
    assert await _timed(lifting) < ROOM_S
    await _stop_by_callback(tenant, STOPPED)
    await _becomes(writer, tenant, STOPPED, SUPPRESSED)
    verdicts = [await writer.verdict(tenant, number) for number in (ADDED, LIFTED)]
    assert verdicts == [SUPPRESSED, ALLOWED]
    after = {number: asyncio.create_task(holder.verdict(tenant, number)) for number in (ADDED, LIFTED, STOPPED)}
    pair.stack.member(holder.name).resume()

    assert await before in (UNAVAILABLE, SUPPRESSED)
    assert await after[ADDED] in (UNAVAILABLE, SUPPRESSED)
    assert await after[STOPPED] in (UNAVAILABLE, SUPPRESSED)
    assert await after[LIFTED] in (UNAVAILABLE, ALLOWED)
    await holder.answers(tenant, within_s=LEASE_S + ROOM_S)
    assert [await holder.verdict(tenant, number) for number in (ADDED, LIFTED, STOPPED)] == [
        SUPPRESSED, ALLOWED, SUPPRESSED,
    ]  # fmt: skip


async def test_a_writer_that_slept_lets_nobody_answer_what_is_not_so_any_more(pair: Pair) -> None:
    writer, other = pair.copies
    tenant, _ = await pair.two_tenants()
    # The other one sleeps first, so that the writer is caught while it waits for it.
    pair.stack.member(other.name).pause()
    adding = asyncio.create_task(writer.client.add(tenant.id, ADDED, Kind.STOP, timeout_s=30))

    async def written() -> bool:
        return await writer.verdict(tenant, ADDED) == SUPPRESSED

    await until("the row in the writer's memory", written, within_s=LEASE_S)
    pair.stack.member(writer.name).pause()
    pair.stack.member(other.name).resume()
    assert not adding.done()
    asked = [asyncio.create_task(writer.verdict(tenant, number)) for number in (ADDED, STOPPED)]
    # Whoever is left goes on, also with what the one that sleeps has in hand.
    await _becomes(other, tenant, ADDED, SUPPRESSED)
    assert await _timed(other.client.add(tenant.id, LIFTED, Kind.STOP)) < PATIENCE_S + ROOM_S
    await _stop_by_callback(tenant, STOPPED)
    await _becomes(other, tenant, STOPPED, SUPPRESSED)
    pair.stack.member(writer.name).resume()

    for verdict in await asyncio.gather(*asked):
        assert verdict in (UNAVAILABLE, SUPPRESSED)
    assert (await adding).suppression.active
    await writer.answers(tenant, within_s=LEASE_S + ROOM_S)
    for copy in pair.copies:
        for number in (ADDED, LIFTED, STOPPED):
            assert await copy.verdict(tenant, number) == SUPPRESSED


@pytest.mark.parametrize("sleeps_s", [0.5, LEASE_S + 0.5], ids=["for less than a lease", "for more"])
async def test_no_question_that_begins_after_an_add_overlooks_it(pair: Pair, sleeps_s: float) -> None:
    writer, holder = pair.copies
    tenant, _ = await pair.two_tenants()
    added: list[str] = []
    answers: dict[str, int] = dict.fromkeys((ALLOWED, SUPPRESSED, UNAVAILABLE), 0)
    over = asyncio.Event()

    async def keep_adding() -> None:
        while not over.is_set():
            number = f"+1415{len(added):07}"
            await writer.client.add(tenant.id, number, Kind.STOP, timeout_s=30)
            added.append(number)

    async def keep_asking() -> None:
        while not over.is_set():
            if added:
                answers[await holder.verdict(tenant, added[-1])] += 1
            await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as group:
        for work in (keep_adding, keep_asking, keep_asking, keep_asking):
            group.create_task(work())
        for _ in range(TURNS):
            pair.stack.member(holder.name).pause()
            await asyncio.sleep(sleeps_s)
            pair.stack.member(holder.name).resume()
            await holder.answers(tenant, within_s=LEASE_S + ROOM_S)
            known = len(added)

            async def one_more(known: int = known) -> bool:
                return len(added) > known

            await until("an Add after the sleep", one_more)
        over.set()
    assert answers[ALLOWED] == 0
    assert answers[SUPPRESSED] > TURNS
    if sleeps_s > LEASE_S:
        assert answers[UNAVAILABLE] >= TURNS
