"""Whoever hangs, never ends or cannot be asked by this version keeps no other account from being asked."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from backhaul_common.lifecycle import cancel
from backhaul_reconciler.asking import Asking
from backhaul_testing.waiting import until
from provider_api import Answer, Request

if TYPE_CHECKING:
    from asking_rig import Copy, Rig

CHANNELS, ACCOUNTS = "reconciled_channels", "reconciled_accounts"


def few_places(copy: Copy, rig: Rig, most: int, held_s: float = 60.0) -> Asking:
    """A loop with ``most`` places."""
    return Asking(
        copy.channels, copy.accounts, copy.turns, rig.adapters, copy.metrics, look_s=0.05, most=most, held_s=held_s
    )


async def asked_once(rig: Rig, asking: Asking, tenant: str) -> int:
    """Run the loop until a run of ``tenant`` is done; how many accounts that hang were asked at once meanwhile."""
    hanging = 0

    async def done() -> bool:
        nonlocal hanging
        hanging = max(hanging, sum("hangs" in account for account in asking._held))
        return any(run["tenant"] == tenant and run["state"] == "done" for run in await rig.runs())

    loop = asyncio.create_task(asking.run())
    try:
        await until(f"{tenant} to be asked", done, within_s=60)
    finally:
        await cancel(loop)
    return hanging


async def test_who_hangs_takes_half_of_the_places_at_most(asking: Rig) -> None:
    hanging = [f"hangs-{place}" for place in range(9)]
    for tenant in hanging:
        await asking.register(tenant, account=tenant)
    await asking.register("acme")
    asking.send(5)
    copy = asking.copy()
    await copy.channels.sync()
    rows = asking.database[CHANNELS]
    await rows.update_many({"tenant": {"$in": hanging}}, {"$set": {"standing": "waiting", "due_at_us": 1}})
    await rows.update_many({"tenant": "acme"}, {"$set": {"due_at_us": 2}})
    assert (await copy.channels.due())[0].account == "twilio/A1"

    async def hang(request: Request, _: asyncio.StreamWriter) -> Answer | None:
        if request.headers["authorization"].startswith("hangs"):
            await asking.api.hang()
        return None

    asking.api.misbehave = hang
    loop = few_places(copy, asking, 4)
    await rows.update_many({"tenant": "acme"}, {"$set": {"due_at_us": asking.now_us() + 1_000_000}})
    assert await asked_once(asking, loop, "acme") == 2


async def test_who_never_ends_gives_its_place_to_others(asking: Rig) -> None:
    for tenant in ("endless-1", "endless-2"):
        await asking.register(tenant, account=tenant)
    copy = asking.copy()
    await copy.channels.sync()

    async def endless(request: Request, _: asyncio.StreamWriter) -> Answer | None:
        if not request.headers["authorization"].startswith("endless"):
            return None
        row = {"id": "E", "state": "delivered", "at": int(request.params["from"])}
        return 200, {}, json.dumps({"rows": [row], "next": str(int(request.params["page"] or 0) + 1)}).encode()

    asking.api.misbehave = endless
    copy.turns._turn_s = 0.3
    loop = few_places(copy, asking, 2, held_s=0.5)
    running = asyncio.create_task(loop.run())
    try:

        async def all_places_are_taken() -> bool:
            return len(loop._held) == 2

        await until("all places to be taken", all_places_are_taken)
        await asking.register("acme")

        async def done() -> bool:
            return any(run["tenant"] == "acme" and run["state"] == "done" for run in await asking.runs())

        await until("acme to be asked", done, within_s=60)
    finally:
        await cancel(running)


async def test_a_run_that_somebody_asked_for_ends_after_a_day(asking: Rig) -> None:
    tenant = await asking.register()
    copy = asking.copy()
    await copy.channels.sync()
    copy.turns._turn_pages = 2
    asking.send(45)
    report = await copy.ask(tenant)
    assert await copy.turn()
    assert [run["state"] for run in await asking.runs()] == ["running"]
    assert await copy.turn(at_us=asking.now_us() + 25 * 3_600_000_000)
    (run,) = await asking.runs()
    assert (run["_id"], run["state"], "a day" in run["text"]) == (report, "stopped", True)
    assert "running" not in await asking.channel()


async def test_an_account_of_a_provider_that_only_a_newer_version_knows_is_left_to_it(asking: Rig) -> None:
    await asking.register("acme")
    asking.send(5)
    copy = asking.copy()
    await copy.channels.sync()
    rows = asking.database[CHANNELS]
    row = await rows.find_one({})
    assert row is not None
    await rows.insert_one({**row, "_id": "r9/newer", "provider": "newer", "account": "newer/A9"})
    await asked_once(asking, few_places(copy, asking, 2), "acme")
    assert await asking.database[ACCOUNTS].distinct("_id") == ["twilio/A1"]


async def test_a_fault_with_one_account_is_not_met_again_at_once(asking: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await asking.register("acme")
    copy = asking.copy()
    await copy.channels.sync()
    loop = few_places(copy, asking, 2)
    taken = 0
    take = copy.accounts.take

    async def counted(account: str) -> object:
        nonlocal taken
        taken += 1
        return await take(account)

    def fails(_: object) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(copy.accounts, "take", counted)
    monkeypatch.setattr(loop, "ledgers", fails)
    for _ in range(5):
        await loop.look()
        await asyncio.gather(*loop._held.values(), return_exceptions=True)
        await asyncio.sleep(0)
    assert taken == 1
