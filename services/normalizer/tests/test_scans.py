"""Reads that look at many rows: how they take turns."""

from __future__ import annotations

import asyncio
import time

import pytest
from backhaul_normalizer import reads
from backhaul_normalizer.scans import AT_ONCE, Scans
from backhaul_testing import make
from backhaul_testing.waiting import until
from normalizer_rig import Rig


async def test_owners_take_turns_and_no_more_run_than_may() -> None:
    scans, order, running, most = Scans(3), [], 0, 0
    go = asyncio.Event()

    async def scan(owner: str) -> None:
        nonlocal running, most
        async with scans.turn(owner, 10) as left_s:
            assert 0 < left_s <= 10
            running += 1
            most = max(most, running)
            order.append(owner)
            await go.wait()
            await asyncio.sleep(0)
            running -= 1

    flood = [asyncio.create_task(scan("a")) for _ in range(20)]
    await asyncio.sleep(0)
    assert order == ["a", "a"], "one place is left for another tenant"
    late = [asyncio.create_task(scan(owner)) for owner in ("b", "c", "b")]
    await asyncio.sleep(0)
    assert order == ["a", "a", "b"]
    go.set()
    await asyncio.gather(*flood, *late)
    assert most == 3
    # One of each that waits, before a second of any.
    assert sorted(order[3:6]) == ["a", "b", "c"]
    assert len(order) == 23


async def test_a_lone_place_is_anybodys() -> None:
    scans = Scans(1)
    for owner in ("a", "b"):
        async with scans.turn(owner, 5) as left_s:
            assert left_s > 0


async def test_whoever_waits_too_long_or_goes_leaves_no_place_behind() -> None:
    scans = Scans(1)
    held = asyncio.Event()

    async def hold() -> None:
        async with scans.turn("a", 10):
            await held.wait()

    async def ask(within_s: float) -> float:
        async with scans.turn("b", within_s) as left_s:
            return left_s

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await ask(0.05)
    gone = asyncio.create_task(ask(10))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    held.set()
    await holder
    assert await ask(5) > 0


async def test_a_scan_whose_asker_hung_up_keeps_its_place_until_it_must_have_ended() -> None:
    scans = Scans(1)

    async def scan(within_s: float) -> None:
        async with scans.turn("a", within_s):
            await asyncio.Event().wait()

    task = asyncio.create_task(scan(0.3))
    await asyncio.sleep(0)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with scans.turn("b", 5):
        assert time.monotonic() - began >= 0.25


async def test_a_turn_that_comes_while_its_owner_goes_is_passed_on() -> None:
    scans = Scans(1)
    async with scans.turn("a", 5):
        going = asyncio.create_task(scans._begin("b", 5))
        await asyncio.sleep(0)
    going.cancel()  # Its turn has come already.
    with pytest.raises(asyncio.CancelledError):
        await going
    async with asyncio.timeout(1), scans.turn("c", 1):
        pass


async def test_slow_filters_of_two_tenants_hold_up_no_quick_read_and_no_scan_of_a_third(rig: Rig) -> None:
    tenants = [make.tenant(name) for name in ("acme", "globex", "initech")]
    await rig.register(*tenants)
    for tenant in tenants:
        for number in range(6):
            await rig.publish(tenant, make.callback(tenant, make.twilio(f"SM{number}", "delivered")))
    await rig.drained()
    acme, globex, initech = (tenant.registration for tenant in tenants)
    # A row that takes 100 ms to look at stands for a thousand that take 0.1.
    slow = {"$where": "function() { sleep(100); return false; /* a slow scan of the flood */ }"}
    store = reads.MongoReads(rig.database)
    flood = [asyncio.create_task(store.messages(one, slow, (0, 0), 50, "")) for one in [acme, globex] * 8]

    async def scanning() -> bool:
        running = await rig.client.admin.command({"currentOp": 1, "op": "query"})
        return any("a slow scan of the flood" in str(one) for one in running["inprog"])

    await until("the flood has begun", scanning)
    quick, found = [], []
    for _ in range(5):
        began = time.monotonic()
        found.append(await store.messages(initech, {}, (0, 0), 50, ""))
        quick.append(time.monotonic() - began)
    assert all(len(rows) == 6 for rows, _ in found)
    # Beside sixteen scans of 0.6 s each, of which the driver's threads would run ten at a time.
    assert min(quick) < 0.3
    assert not all(task.done() for task in flood)
    await store.messages(initech, slow, (0, 0), 50, "")
    assert sum(task.done() for task in flood) <= 2 * AT_ONCE + 2
    await asyncio.gather(*flood, return_exceptions=True)
