"""What working endpoints shows to whoever runs it: few words, whatever endpoints answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from backhaul_notifier.schedules import RCS, Outcome
from backhaul_notifier.working.counts import Watching, word_of
from backhaul_testing.waiting import until
from prometheus_client.parser import text_string_to_metric_families
from working_rig import SECOND_US, Copy, Made, Rig, rigged

NO_RETRY = replace(RCS, steps_s=())


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


def shown(copy: Copy, name: str) -> dict[tuple[str, ...], float]:
    """The samples of a metric by the values of their labels."""
    return {
        tuple(value for label, value in sorted(sample.labels.items()) if not label.startswith("otel_")): sample.value
        for family in text_string_to_metric_families(copy.metrics.render().decode())
        for sample in family.samples
        if sample.name == f"backhaul_notifier_{name}"
    }


async def test_attempts_and_what_is_over_are_counted(rig: Rig) -> None:
    outcomes = [Outcome(200), Outcome(204), Outcome(503), Outcome(error="timeout"), Outcome(error="what_not_1234")]
    rig.calls.answer = lambda made: outcomes[made.orders[0] - 1] if made.orders[0] <= 5 else Outcome(error="no_room")
    await rig.subscribe(policy=NO_RETRY)
    by_mail = await rig.subscribe("sub_mail", policy=NO_RETRY)
    by_mail.definition.mail.addresses.append("team@example.com")
    copy = await rig.copy()
    await rig.enqueue(number=5)
    await rig.until_none_waits()
    (ours,) = await rig.enqueue(to="sub_mail")
    rig.move(600)  # Events are gathered for a mail.
    await rig.until_row(ours, attempts=1)
    assert shown(copy, "attempts_total") == {
        ("http", "2xx", "acme"): 2,
        ("http", "5xx", "acme"): 1,
        ("http", "timeout", "acme"): 1,
        ("http", "other", "acme"): 1,
        ("mail", "ours", "acme"): 1,
    }
    assert shown(copy, "deliveries_ended_total") == {("delivered", "acme"): 1, ("failed", "acme"): 4}
    assert shown(copy, "attempt_duration_seconds_count") == {(): 6}
    assert shown(copy, "delay_seconds_count") == {(): 6}


async def test_what_is_held_hangs_and_rests(rig: Rig) -> None:
    released = asyncio.Event()

    async def answer(made: Made) -> Outcome:
        if made.subscription == "sub_hangs":
            await released.wait()
        return Outcome(503 if made.subscription == "sub_fails" else 200)

    rig.calls.answer = answer
    for name in ("sub_hangs", "sub_fails", "sub_quick"):
        await rig.subscribe(name, policy=RCS, tenant=name)
        await rig.enqueue(to=name, number=30)
    copy = await rig.copy()

    async def all_shown() -> bool:
        return shown(copy, "endpoints_held") == {("working",): 1, ("hanging",): 1, ("resting",): 1}

    await until("each is shown", all_shown)
    assert shown(copy, "calls") == {(): 8}
    released.set()


async def test_how_it_stands_with_all_of_them(rig: Rig) -> None:
    copy = await rig.copy(look_s=60.0)
    await until("it has looked", _looked(copy))
    now_us = rig.clock.now_us()
    standings: list[dict[str, Any]] = [
        {"active": True},
        {"active": True, "failing_since_us": 5},
        {"active": True, "failing_since_us": 5, "rest_until_us": now_us + 60 * SECOND_US, "due_at_us": 5},
        {"active": False, "failing_since_us": 5, "due_at_us": 5},
        {"active": True, "due_at_us": now_us - 90 * SECOND_US, "owner": "another", "until": await _later(rig)},
        {"active": True, "due_at_us": now_us - 30 * SECOND_US, "owner": ""},
        {"active": True, "due_at_us": now_us + 30 * SECOND_US},
    ]
    await rig.endpoints.insert_many([{"_id": str(place), **each} for place, each in enumerate(standings)])
    await rig.enqueue(number=7, to="0")
    await Watching(rig.database, copy.working._parts.counts, rig.clock.now_us).look()
    assert shown(copy, "endpoints") == {("good",): 4, ("failing",): 1, ("resting",): 1, ("stopped",): 1}
    assert shown(copy, "waiting") == {(): 7}
    assert 30 <= shown(copy, "late_seconds")[()] < 60


def _looked(copy: Copy) -> Any:
    async def probe() -> bool:
        return copy.working._parts.counts.waiting == 0 and copy.working._clock.now_us() > 0

    return probe


async def _later(rig: Rig) -> Any:
    row = await rig.database.command("hello")
    return row["localTime"].replace(year=row["localTime"].year + 1)


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Outcome(200), "2xx"),
        (Outcome(599), "5xx"),
        (Outcome(999), "other"),
        (Outcome(200, "reset"), "reset"),
        (Outcome(error="proxy_failed"), "ours"),
        (Outcome(error="mail_server_away"), "ours"),
        (Outcome(error="mail_refused"), "mail"),
        (Outcome(error="token_timeout"), "token"),
        (Outcome(error="variable_missing"), "variable_missing"),
        (Outcome(error="something else"), "other"),
    ],
)
def test_outcomes_are_told_in_few_words(outcome: Outcome, word: str) -> None:
    assert word_of(outcome) == word
