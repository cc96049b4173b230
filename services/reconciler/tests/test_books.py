"""Reports, differences and accounts of days, as they are stored and read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import (
    RECONCILED_DAYS_COLLECTION,
    RECONCILED_DIFFERENCES_COLLECTION,
    RECONCILED_RUNS_COLLECTION,
)
from backhaul_reconciler.differences import MongoDifferences
from backhaul_reconciler.model import (
    Begun,
    Cause,
    Counts,
    Day,
    DayState,
    Difference,
    DifferenceKind,
    RunState,
)
from books_rig import ACME, MINUTE_US, NOW_US, SENDGRID, THEIRS, TWILIO, Rig
from structlog.testing import capture_logs

RUN, NEXT = "1" * 32, "2" * 32
STATE, UNKNOWN = DifferenceKind.STATE, DifferenceKind.UNKNOWN_TO_PROVIDER
ONE = Difference("SM1", STATE, "delivered", "", "failed", "30006")
TWO = Difference("SM2", UNKNOWN, "sent")


async def test_a_report_begins_grows_and_ends_once(books: Rig) -> None:
    begun = Begun(RUN, Cause.CALL, 1, 2, NOW_US, dry_run=True)
    await books.store(books.reports.begin(TWILIO, begun), books.reports.update(RUN, Counts(seen=3, missing=1)))
    # Whoever goes on with it after a crash begins it again.
    await books.store(books.reports.begin(TWILIO, replace(begun, from_us=9)))
    await books.store(books.reports.update(RUN, Counts(seen=2, known=2, requests=1)))
    running = await books.reports.get(ACME.registration, RUN)
    assert running is not None
    assert (running.begun, running.channel, running.state, running.text) == (begun, "twilio", RunState.RUNNING, "")
    assert running.counts == Counts(seen=5, known=2, missing=1, requests=1)
    assert running.ended_at_us == 0

    await books.store(books.reports.end(RUN, RunState.STOPPED, "Refused.", NOW_US + 1))
    await books.store(books.reports.end(RUN, RunState.DONE, "", NOW_US + 2))
    ended = await books.reports.get(ACME.registration, RUN)
    assert ended == replace(running, state=RunState.STOPPED, text="Refused.", ended_at_us=NOW_US + 1)
    assert await books.reports.get(THEIRS.registration, RUN) is None


async def test_reports_end_after_ninety_days_by_themselves(books: Rig) -> None:
    began = 1_790_000_000_123_456
    run = await books.begin(began_at_us=began)
    collection = books.database[RECONCILED_RUNS_COLLECTION]
    row: Any = await collection.find_one({"_id": run})
    assert row["began_at"] == datetime(2026, 9, 21, 14, 13, 20, 123_000, tzinfo=UTC)
    indexes = await collection.index_information()
    assert [one["expireAfterSeconds"] for one in indexes.values() if "expireAfterSeconds" in one] == [90 * 86_400]


async def test_reports_come_newest_first_and_of_one_tenant(books: Rig) -> None:
    ours = [await books.begin(TWILIO if number % 2 else SENDGRID, NOW_US + number) for number in range(6)]
    await books.begin(THEIRS, NOW_US + 3)
    read = books.reports.page
    first, token = await read(ACME.registration, "", (0, 0), 4, "")
    rest, end = await read(ACME.registration, "", (0, 0), 4, token)
    assert [one.begun.id for one in (*first, *rest)] == ours[::-1]
    assert (bool(token), end) == (True, "")
    found, _ = await read(ACME.registration, "twilio", (NOW_US + 1, NOW_US + 5), 0, "")
    assert [one.begun.id for one in found] == [ours[3], ours[1]]
    with pytest.raises(BackhaulError) as wrong:
        await read(ACME.registration, "", (0, 0), 501, "")
    assert (wrong.value.code, wrong.value.field) == (Code.INVALID_ARGUMENT, "page_size")


async def test_a_difference_keeps_when_it_was_first_seen_and_goes_when_both_are_equal(books: Rig) -> None:
    seen, settled = books.differences.seen, books.differences.settled
    await books.store(seen(TWILIO, RUN, NOW_US, [ONE, TWO]), seen(THEIRS, RUN, NOW_US, [ONE]))
    changed = Difference("SM1", UNKNOWN, "read")
    await books.store(seen(TWILIO, NEXT, NOW_US + 5, [changed]))
    rows, token = await books.differences.page(ACME.registration, "", None, (0, 0), 0, "")
    told = {
        row.difference.message_id: (row.difference, row.first_seen_at_us, row.last_seen_at_us, row.run) for row in rows
    }
    assert told == {"SM1": (changed, NOW_US, NOW_US + 5, NEXT), "SM2": (TWO, NOW_US, NOW_US, RUN)}
    assert token == ""

    # Of messages that never differed there is nothing to settle, and nothing of others is.
    await books.store(settled(TWILIO, ["SM1", "SM9"]), settled(SENDGRID, ["SM2"]), settled(TWILIO, []))
    rows, _ = await books.differences.page(ACME.registration, "", None, (0, 0), 0, "")
    assert [row.difference for row in rows] == [TWO]
    theirs, _ = await books.differences.page(THEIRS.registration, "", None, (0, 0), 0, "")
    assert [row.difference for row in theirs] == [ONE]


async def test_differences_are_filtered_and_each_is_on_one_page(books: Rig) -> None:
    for number in range(5):
        of = SENDGRID if number == 4 else TWILIO
        kind = STATE if number % 2 else UNKNOWN
        await books.store(books.differences.seen(of, RUN, NOW_US + number, [Difference(f"SM{number}", kind, "sent")]))
    page = books.differences.page
    first, token = await page(ACME.registration, "", None, (0, 0), 2, "")
    # The one that was found first is seen again between two pages.
    again = Difference("SM0", UNKNOWN, "sent")
    await books.store(books.differences.seen(TWILIO, NEXT, NOW_US + 100, [again]))
    rest, _ = await page(ACME.registration, "", None, (0, 0), 5, token)
    assert [one.difference.message_id for one in (*first, *rest)] == ["SM4", "SM3", "SM2", "SM1", "SM0"]

    async def ids(channel: str, kind: DifferenceKind | None, span: tuple[int, int]) -> list[str]:
        rows, _ = await page(ACME.registration, channel, kind, span, 0, "")
        return [one.difference.message_id for one in rows]

    assert await ids("twilio", STATE, (0, 0)) == ["SM3", "SM1"]
    assert await ids("", None, (NOW_US + 3, NOW_US + 100)) == ["SM4", "SM3"]
    assert await ids("", None, (NOW_US + 4, 0)) == ["SM4", "SM0"]


async def test_so_many_differences_are_kept_of_a_channel_and_the_rest_is_said(books: Rig) -> None:
    differences = MongoDifferences(books.database, most=3)
    some = [Difference(f"SM{number}", UNKNOWN, "sent") for number in range(5)]
    assert await differences.full(ACME.registration, ["sendgrid", "twilio"]) == []
    with capture_logs() as logs:
        await books.store(differences.seen(TWILIO, RUN, NOW_US, some[:2]))
        assert logs == []
        await books.store(differences.seen(TWILIO, RUN, NOW_US, some))
        await books.store(differences.seen(SENDGRID, RUN, NOW_US, some[:1]))
    assert [(line["event"], line["channel"], line["left_out"]) for line in logs] == [
        ("differences_left_out", "twilio", 2)
    ]
    assert await differences.full(ACME.registration, ["sendgrid", "twilio"]) == ["twilio"]
    # Those that are there are seen on, and there is room again once some are settled.
    await books.store(differences.seen(TWILIO, NEXT, NOW_US + 1, [replace(some[0], our_state="queued")]))
    await books.store(differences.settled(TWILIO, ["SM1"]), differences.seen(TWILIO, NEXT, NOW_US + 1, some[3:]))
    rows, _ = await differences.page(ACME.registration, "twilio", None, (0, 0), 0, "")
    assert {row.difference.message_id: row.run for row in rows} == {"SM0": NEXT, "SM2": RUN, "SM3": NEXT}
    assert await books.database[RECONCILED_DIFFERENCES_COLLECTION].count_documents({}) == 4


async def test_days_are_replaced_and_open_ones_are_due(books: Rig) -> None:
    opened = Day("2026-11-23", DayState.OPEN, "2 are on their way.", 10, 7, 1, 1, 2, 0, NOW_US)
    closed = Day("2026-11-24", DayState.CLOSED, "", 5, 5, 0, 0, 0, 0, NOW_US)
    assert await books.days.latest(TWILIO) is None
    await books.store(
        books.days.compared(TWILIO, opened, NOW_US + MINUTE_US),
        books.days.compared(TWILIO, closed, None),
        books.days.compared(THEIRS, replace(closed, day="2026-11-25"), 1),
        books.days.compared(SENDGRID, replace(opened, day="2026-11-26"), 1),
    )
    assert await books.days.latest(TWILIO) == "2026-11-24"
    assert await books.days.due(TWILIO, NOW_US) is None
    assert await books.days.due(TWILIO, NOW_US + MINUTE_US) == "2026-11-23"
    assert await books.days.get(ACME.registration, "twilio", "2026-11-23") == opened
    assert await books.days.get(THEIRS.registration, "twilio", "2026-11-23") is None

    done = replace(opened, state=DayState.CLOSED, text="", equal=10, differing=0, open=0)
    await books.store(books.days.compared(TWILIO, done, None))
    assert await books.days.due(TWILIO, NOW_US + MINUTE_US) is None
    assert await books.days.get(ACME.registration, "twilio", "2026-11-23") == done


async def test_a_year_of_closed_days_costs_nothing_when_open_ones_are_looked_for(books: Rig) -> None:
    first = date(2025, 11, 1)
    days = [(first + timedelta(days=number)).isoformat() for number in range(365)]
    closed = [books.days.compared(TWILIO, Day(day, DayState.CLOSED), None) for day in days[:-1]]
    await books.store(*closed, books.days.compared(TWILIO, Day(days[-1], DayState.OPEN), 1))
    assert await books.days.due(TWILIO, NOW_US) == days[-1]
    query = {"registration": ACME.registration, "channel": "twilio", "due_at_us": {"$lte": NOW_US}}
    found = books.database[RECONCILED_DAYS_COLLECTION].find(query, sort=[("day", 1)], limit=1)
    assert (await found.explain())["executionStats"]["totalDocsExamined"] == 1
