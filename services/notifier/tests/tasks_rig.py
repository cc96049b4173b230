"""What tests of tasks ask for, and wait for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from backhaul_notifier.deliveries.redelivering import Chosen, Which
from backhaul_testing.waiting import until
from working_rig import SECOND_US, Rig

RESET: dict[str, Any] = {"counted": 1, "ours": 1, "call": b"\x01" * 16}


def ended(rig: Rig, state: str = "failed") -> dict[str, Any]:
    now_us = rig.clock.now_us()
    return {
        **RESET,
        "state": state,
        "attempts": 3,
        "tries": [{"number": 3}],
        "ended_at_us": now_us,
        "ends_at": datetime.fromtimestamp(now_us / SECOND_US + 86_400, UTC),
    }


async def ask(rig: Rig, which: Which, *, to: str = "sub_1", from_us: int = 0, to_us: int = 0, **more: Any) -> None:
    """As a redelivery and a resumption do."""
    now_us = rig.clock.now_us()
    task = Chosen(which, from_us, to_us or now_us + 1, **more).task()
    update = {"$push": {"tasks": task}, "$inc": {"told": 1}, "$min": {"due_at_us": now_us}}
    await rig.endpoints.update_one({"_id": to}, update)
    await rig.say_changed(to)


async def until_done(rig: Rig, within_s: float = 100.0) -> None:
    async def probe() -> bool:
        return not await rig.endpoints.count_documents({"tasks.0": {"$exists": True}})

    await until("no task is left", probe, within_s=within_s)


async def free(rig: Rig) -> None:
    """The lease of a dead copy is over."""
    await rig.endpoints.update_many({}, [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}])


async def dues(rig: Rig) -> list[int]:
    rows = rig.deliveries.find({"state": "waiting"}).sort("order", 1)
    return [row["due_at_us"] async for row in rows]


async def ask_silently(rig: Rig, which: Which, **more: Any) -> None:
    said, rig.copies = rig.copies, []
    try:
        await ask(rig, which, **more)
    finally:
        rig.copies = said
