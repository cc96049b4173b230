"""What providers did not tell is found, told once, and accounted for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from asking_rig import Rig

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


def minutes_ago(rig: Rig, minutes: float) -> int:
    return rig.now_us() - int(minutes * MINUTE_US)


def send_all(rig: Rig, number: int, *, lost_every: int = 4) -> set[str]:
    """Messages that were delivered since yesterday, some of whose callbacks are lost; the ids of these."""
    lost = set()
    for place in range(number):
        message_id, at_us = f"M{place:04}", minutes_ago(rig, 5 + place)
        rig.api.send(message_id, "delivered", at_us)
        rig.normalizer.hear("acme", message_id, "queued", at_us)
        if place % lost_every:
            rig.normalizer.hear("acme", message_id, "delivered", at_us + 2_000_000)
        else:
            lost.add(message_id)
    return lost


async def test_what_no_callback_told_is_backfilled_once_and_counted(asking: Rig) -> None:
    await asking.register()
    lost = send_all(asking, 45)
    copy = asking.copy()
    await copy.channels.sync()
    await copy.until_done()
    await asking.normalizer.process()
    assert asking.normalizer.backfilled == {("acme", message_id, "delivered"): 1 for message_id in lost}
    assert asking.normalizer.urls <= {"backfill:messages", "backfill:message"}
    (run,) = await asking.runs()
    assert (run["state"], run["cause"], run["text"]) == ("done", "schedule", "")
    assert run["counts"]["missing"] == len(lost)
    assert run["counts"]["requests"] == len(asking.api.requests)
    assert run["counts"]["seen"] == run["counts"]["known"] + len(lost)
    row = await asking.channel()
    assert (row["standing"], "running" in row, row["run"]) == ("asked", False, run["_id"])
    assert row["lists"]["messages"]["to_us"] == run["to_us"]
    assert 9 * MINUTE_US < row["due_at_us"] - run["began_at_us"] < 11 * MINUTE_US

    # All of it is known now, and nothing is asked for that was but what may be told late.
    await asking.due()
    asked = len(asking.api.requests)
    await copy.until_done()
    await asking.normalizer.process()
    assert sum(asking.normalizer.backfilled.values()) == len(lost)
    assert len(asking.api.requests) - asked <= 4
    _, second = await asking.runs()
    assert (second["state"], second["counts"].get("missing", 0)) == ("done", 0)
    assert second["from_us"] == run["to_us"] - 15 * MINUTE_US


async def test_what_is_not_processed_yet_is_not_found_again(asking: Rig) -> None:
    await asking.register()
    lost = send_all(asking, 12)
    copy = asking.copy()
    await copy.channels.sync()
    for _ in range(3):
        await copy.until_done()
        await asking.due()
    await asking.normalizer.process()
    assert sum(asking.normalizer.backfilled.values()) == len(lost)
    assert sum(run["counts"].get("missing", 0) for run in await asking.runs()) == len(lost)


@pytest.mark.parametrize("step", range(1, 45, 2))
async def test_whatever_was_done_when_a_copy_died_another_one_ends_the_run(asking: Rig, step: int) -> None:
    """Before and after each request, comparison, publish and commit of a run."""
    from asking_rig import Killed

    await asking.register()
    lost = {("acme", message_id, "delivered") for message_id in send_all(asking, 25, lost_every=3)}
    asking.normalizer.hear("acme", "OPEN", "sent", minutes_ago(asking, 3000))
    asking.api.send("OPEN", "undelivered", minutes_ago(asking, 3000))
    lost.add(("acme", "OPEN", "undelivered"))
    first, left = asking.copy("first"), step
    await first.channels.sync()

    def die(_: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    first.step = die
    with pytest.raises(Killed):
        await first.until_done()
    other = asking.copy("other")
    await other.channels.sync()
    assert not await other.turn(), "the dead one holds the account"
    await asking.dead()
    # What was published before is processed, or not.
    if step % 4 == 1:
        await asking.normalizer.process()
    await other.until_done()
    await asking.normalizer.process()
    assert asking.normalizer.backfilled == dict.fromkeys(lost, 1)
    (run,) = await asking.runs()
    assert run["state"] == "done"
    assert run["counts"]["seen"] == run["counts"]["known"] + run["counts"].get("missing", 0)
    assert (await asking.channel())["lists"]["messages"]["to_us"] == run["to_us"]


async def test_a_copy_that_slept_stores_nothing_once_another_one_has_the_account(asking: Rig) -> None:
    from backhaul_common.leases import LostError

    await asking.register()
    lost = send_all(asking, 25)
    slow, quick = asking.copy("slow"), asking.copy("quick")
    await slow.channels.sync()
    reached, wake = asyncio.Event(), asyncio.Event()
    publish = slow.parts.backfill.publish

    async def sleeps(*args: object, **more: object) -> None:
        await publish(*args, **more)  # type: ignore[arg-type]  # whatever it is called with
        reached.set()
        await wake.wait()

    slow.parts.backfill.__dict__["publish"] = sleeps
    held = await slow.accounts.take("twilio/A1")
    assert held is not None
    sleeping = asyncio.create_task(slow.turn_of(held))
    await reached.wait()
    await asking.dead()
    await quick.until_done()
    before = await asking.channel()
    wake.set()
    with pytest.raises(LostError):
        await sleeping
    assert await asking.channel() == before
    with pytest.raises(LostError):
        await slow.accounts.renew(held)
    await asking.normalizer.process()
    assert {message_id for _, message_id, _ in asking.normalizer.backfilled} == lost
    assert sum(run["counts"].get("missing", 0) for run in await asking.runs()) == len(lost)


async def test_a_copy_that_slept_asks_nothing_before_it_knows_that_the_account_is_still_its(asking: Rig) -> None:
    from backhaul_common.leases import LEASE_S, LostError

    await asking.register()
    send_all(asking, 25)
    slow, quick = asking.copy("slow"), asking.copy("quick")
    await slow.channels.sync()
    slow.turns._turn_pages = 1
    assert await slow.turn()
    assert "running" in await asking.channel()
    held = await slow.accounts.take("twilio/A1")
    assert held is not None
    # It is stopped before it goes on, for longer than its lease.
    await asking.dead()
    assert await quick.accounts.take("twilio/A1") is not None
    held.until -= LEASE_S
    asked = len(asking.api.requests)
    with pytest.raises(LostError):
        await slow.turn_of(held)
    assert len(asking.api.requests) == asked


async def test_a_run_that_is_asked_for_while_another_one_ends_is_not_left_until_the_next(asking: Rig) -> None:
    tenant = await asking.register()
    send_all(asking, 5)
    copy = asking.copy()
    await copy.channels.sync()
    publish = copy.parts.backfill.publish
    wanted: list[str] = []

    async def asks(*args: object, **more: object) -> None:
        if not wanted:
            span = (minutes_ago(asking, 60), asking.now_us())
            wanted.append(await copy.ask(tenant, span))
        await publish(*args, **more)  # type: ignore[arg-type]  # whatever it is called with

    copy.parts.backfill.__dict__["publish"] = asks
    await copy.until_done()
    states = {run["_id"]: run["state"] for run in await asking.runs()}
    assert (len(states), states[wanted[0]]) == (2, "done")
