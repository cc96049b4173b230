"""Twilio keeps callbacks to itself while everything is killed: once it was asked, Backhaul tells what Twilio tells."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from backhaul_testing.waiting import until
from faults import filed
from faults.truth import AT_ONCE, FIRST, SECOND, Asking, Story, all_reports, processed, settle, unlike

pytestmark = pytest.mark.faults

MESSAGES = int(os.environ.get("TRUTH_MESSAGES", "1000"))
"""``TRUTH_MESSAGES=20000 make test ARGS="-s tests/faults/test_truth.py"`` tries as many as a busy day has."""

WAVES = 5
STOPS, SILENT_STOPS = 4, 2
"""Of each wave."""

SHARES: dict[str, Any] = {"withheld": 0.05, "doubled": 0.3, "shuffled": True}


async def _told(asking: Asking, story: Story) -> None:
    """All happens, and is told as far as Twilio tells it, while what reads it is killed."""
    for victim in (None, "normalizer", "nats", "mongod", FIRST):
        await story.send(MESSAGES // WAVES, stops=STOPS, silent_stops=SILENT_STOPS)
        if victim is not None:
            await asking.stack.kill(victim)
        if victim == "nats":
            await asking.stack.member(victim).start()
        await story.post()
        if victim not in (None, "nats"):
            await asking.stack.member(victim).start()


async def _killed(asking: Asking, story: Story) -> list[str]:
    """Whatever takes part in a run dies in its middle; who that was."""
    asked, before = asking.api.requests, asking.api.requests.count(key=story.account.sid)
    victims: list[str] = []

    async def come_to(requests: int) -> None:
        async def probe() -> bool:
            return asked.count(key=story.account.sid) >= before + requests

        await until(f"request {requests} of the run", probe, within_s=90)

    await come_to(2)
    holder = await until("the copy that asks", asking.holder)
    for requests, victim in ((2, holder), (4, "normalizer"), (12, "nats"), (24, "mongod")):
        await come_to(requests)
        await asking.again(victim)
        victims.append(victim)
    return victims


@pytest.mark.timeout(1800 if MESSAGES > 5_000 else 600)
async def test_what_twilio_lists_is_known_after_one_cycle_whatever_was_killed(asking: Asking) -> None:
    story = await asking.story(seed=7, **SHARES)
    await _told(asking, story)
    await processed(asking.stack)
    assert await unlike(story), "nothing was withheld that a cycle could find"
    cycles = 0
    victims: list[str] = []

    async def killed() -> None:
        victims.extend(await _killed(asking, story))

    while cycles < 5 and await unlike(story):
        report = await story.ask(killed if not cycles else None)
        assert report.state == "done", report
        cycles += 1
        await processed(asking.stack)
    differences = [row async for row in story.client.differences()]
    # With -s it tells what it found, in the words of the bench.
    sys.stdout.write(f"truth_cycles {cycles}, truth_differences {len(differences)}, killed {', '.join(victims)}\n")
    assert (cycles, differences) == (1, [])
    assert set(victims) - {FIRST, SECOND} == {"normalizer", "nats", "mongod"}
    truth = await settle(asking.stack, story)
    assert truth.messages >= MESSAGES
    assert truth.backfilled > MESSAGES // 50
    await filed.settle(asking.stack, story.tenant)
    # Once everything is known, asking again finds nothing.
    again = await story.ask(dry_run=True)
    assert (again.counts.missing, again.counts.better, again.counts.differing) == (0, 0, 0)
    assert again.counts.known == again.counts.seen > MESSAGES // 2
    reports = await all_reports(story)
    assert sum(report.counts.missing for report in reports) >= 1
    # Of those that were killed some requests are counted nowhere.
    asked = asking.api.requests.count(key=story.account.sid)
    assert 0 < sum(report.counts.requests for report in reports) <= asked
    assert asking.api.requests.most_in_flight(story.account.sid) <= AT_ONCE
