"""Days are held against the provider's list, and open messages asked for, as time goes on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_channels.pull import Listing
from backhaul_common.metrics import RECONCILER_CALLBACK_DELAY_SECONDS, RECONCILER_RECORDS
from backhaul_reconciler.judging import Found, differs, is_open
from backhaul_reconciler.model import Comparison, Verdict
from days_rig import BEGIN_US, DAY, DAY_US, HOUR_US, MINUTE_US, NOON_AFTER_US, SECOND_US, both, turns
from provider_api import Answer, Messages, Request

if TYPE_CHECKING:
    from asking_rig import Rig


async def test_a_day_is_closed_when_both_sides_are_equal(asking: Rig) -> None:
    await asking.register()
    for place in range(30):
        both(asking, f"M{place}", "delivered", BEGIN_US + place * 40 * MINUTE_US)
    # The first and the last moment of the day are its own, and their neighbours are not.
    both(asking, "FIRST", "delivered", BEGIN_US)
    both(asking, "LAST", "delivered", BEGIN_US + DAY_US - 1)
    both(asking, "BEFORE", "delivered", BEGIN_US - 1)
    both(asking, "AFTER", "delivered", BEGIN_US + DAY_US)
    # It was sent on the day before, and heard of on this one: the list of this day does not name it.
    asking.api.send("LATE", "failed", BEGIN_US - 10 * SECOND_US)
    asking.normalizer.hear("acme", "LATE", "failed", BEGIN_US + SECOND_US)
    copy = await turns(asking, NOON_AFTER_US)
    day = (await asking.days())[DAY]
    assert (day["state"], day["provider_messages"], day["equal"]) == ("closed", 32, 32)
    assert (day["backfilled"], day["differing"], day["open"], day["unknown_to_provider"]) == (0, 0, 0, 0)
    assert "due_at_us" not in day
    assert await asking.database["reconciled_seen"].count_documents({}) == 0
    assert "closing" not in await asking.channel()
    name = f"{RECONCILER_CALLBACK_DELAY_SECONDS.name}_seconds_sum"
    (told,) = [line for line in copy.metrics.render().decode().splitlines() if line.startswith(name)]
    assert float(told.rpartition(" ")[2]) == 32 * 3
    # A closed day is looked at no more; the next one is when it is two days ago.
    asked = len(asking.api.asked("/messages"))
    await turns(asking, NOON_AFTER_US + HOUR_US)
    assert len(asking.api.asked("/messages")) == asked + 1, "discovery alone"
    await turns(asking, NOON_AFTER_US + DAY_US)
    assert (await asking.days()).keys() == {DAY, "2026-03-30"}


async def test_what_was_found_by_the_day_alone_is_counted_and_the_day_closes(asking: Rig) -> None:
    await asking.register()
    for place in range(15):
        both(asking, f"M{place}", "delivered", BEGIN_US + place * HOUR_US)
    asking.api.send("LOST", "delivered", BEGIN_US + HOUR_US)
    await turns(asking, NOON_AFTER_US)
    day = (await asking.days())[DAY]
    assert (day["state"], day["backfilled"], day["provider_messages"], day["equal"]) == ("open", 1, 16, 15)
    assert day["text"] == "It is compared again, since of its messages there are 1 just backfilled."
    assert day["due_at_us"] == pytest.approx(NOON_AFTER_US + 10 * MINUTE_US, abs=MINUTE_US)
    await turns(asking, NOON_AFTER_US + 15 * MINUTE_US)
    day = (await asking.days())[DAY]
    assert (day["state"], day["backfilled"], day["provider_messages"], day["equal"]) == ("closed", 1, 16, 16)
    assert asking.normalizer.backfilled == {("acme", "LOST", "delivered"): 1}


async def test_what_cannot_be_read_is_told_once_and_keeps_no_day_open(asking: Rig) -> None:
    await asking.register()
    asking.api.send("ODD", "no such state", BEGIN_US + HOUR_US)
    await turns(asking, NOON_AFTER_US)
    assert (await asking.days())[DAY]["state"] == "open"
    await turns(asking, NOON_AFTER_US + 15 * MINUTE_US)
    assert (await asking.days())[DAY]["state"] == "closed"
    assert asking.normalizer.backfilled == {("acme", "ODD", "no such state"): 1}


async def test_what_differs_is_listed_until_it_does_not(asking: Rig) -> None:
    await asking.register()
    both(asking, "SAME", "delivered", BEGIN_US + HOUR_US)
    both(asking, "TWO", "delivered", BEGIN_US + HOUR_US)
    asking.api.send("TWO", "undelivered", BEGIN_US + HOUR_US)
    asking.normalizer.hear("acme", "TWO", "undelivered", BEGIN_US + HOUR_US)
    both(asking, "WAY", "sent", BEGIN_US + HOUR_US)
    asking.normalizer.hear("acme", "OURS", "delivered", BEGIN_US + HOUR_US)
    await turns(asking, NOON_AFTER_US)
    day = (await asking.days())[DAY]
    assert (day["state"], day["provider_messages"], day["equal"]) == ("open", 3, 1)
    assert (day["differing"], day["open"], day["unknown_to_provider"]) == (1, 1, 1)
    assert day["text"] == (
        "It is compared again, since of its messages there are 1 differing, 1 on their way at the provider, "
        "1 unknown to the provider."
    )
    found = await asking.differences()
    assert found.keys() == {"TWO", "OURS"}
    assert (found["TWO"]["kind"], found["TWO"]["our_state"], found["TWO"]["provider_state"]) == (
        "state",
        "delivered",
        "undelivered",
    )
    assert (found["OURS"]["kind"], found["OURS"]["our_state"]) == ("unknown_to_provider", "delivered")
    (run,) = await asking.runs()
    assert (run["counts"]["differing"], run["counts"]["unknown_to_provider"]) == (1, 1)
    asking.api.send("TWO", "delivered", BEGIN_US + HOUR_US)
    asking.api.send("OURS", "delivered", BEGIN_US + HOUR_US)
    asking.api.send("WAY", "delivered", BEGIN_US + HOUR_US)
    asking.normalizer.hear("acme", "WAY", "delivered", BEGIN_US + 30 * HOUR_US)
    # The older a day is, the less it changes.
    await turns(asking, NOON_AFTER_US + 12 * HOUR_US)
    assert (await asking.days())[DAY]["state"] == "open"
    for hours in range(4):  # Days that were never looked at come first.
        await turns(asking, NOON_AFTER_US + 3 * DAY_US + hours * HOUR_US)
    assert (await asking.days())[DAY]["state"] == "closed"
    assert await asking.differences() == {}


@pytest.mark.parametrize("step", range(1, 40, 3))
async def test_a_day_is_compared_whatever_was_done_when_a_copy_died(asking: Rig, step: int) -> None:
    from asking_rig import Killed

    await asking.register()
    for place in range(25):
        both(asking, f"M{place:02}", "delivered", BEGIN_US + place * 30 * MINUTE_US)
    asking.normalizer.hear("acme", "OURS", "failed", BEGIN_US + HOUR_US)
    first, left = asking.copy("first"), step
    await first.channels.sync()

    def die(_: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    first.step = die
    try:
        await first.until_done(at_us=NOON_AFTER_US)
    except Killed:
        await asking.dead()
    other = asking.copy("other")
    await other.channels.sync()
    await other.until_done(at_us=NOON_AFTER_US)
    day = (await asking.days())[DAY]
    assert (day["state"], day["provider_messages"], day["equal"], day["unknown_to_provider"]) == ("open", 25, 25, 1)
    assert await asking.database["reconciled_seen"].count_documents({}) == 0
    assert sum(run["counts"]["unknown_to_provider"] for run in await asking.runs()) == 1


async def test_days_are_made_up_for_and_those_out_of_reach_are_said_to_be(asking: Rig) -> None:
    class Short(Messages):
        reaches_back_days = 4

    asking.ask(Short())
    await asking.register()
    await turns(asking, NOON_AFTER_US)
    for hours in range(8):
        await turns(asking, NOON_AFTER_US + 5 * DAY_US + hours * HOUR_US)
    days = await asking.days()
    assert {day: row["state"] for day, row in days.items()} == {
        DAY: "closed",
        "2026-03-30": "cannot_be_closed",
        "2026-03-31": "cannot_be_closed",
        "2026-04-01": "cannot_be_closed",
        "2026-04-02": "closed",
        "2026-04-03": "closed",
    }
    assert "4 days" in days["2026-03-30"]["text"]


async def test_open_messages_are_asked_for_at_each_age_once(asking: Rig) -> None:
    await asking.register()
    await turns(asking, NOON_AFTER_US)
    asking.normalizer.hear("acme", "M1", "sent", NOON_AFTER_US)
    asking.api.send("M1", "sent", NOON_AFTER_US)
    asked = []
    for minutes in (5, 16, 26, 36, 59, 61, 100, 361, 400, 1441, 1500, 4321, 4400):
        before = len(asking.api.asked("/message/"))
        await turns(asking, NOON_AFTER_US + minutes * MINUTE_US)
        if len(asking.api.asked("/message/")) > before:
            asked.append(minutes)
    # The day that it was of is compared, too; the list names it then.
    assert asked == [16, 61, 361, 1441, 4321]


async def test_many_open_messages_are_looked_for_in_the_list_of_their_time(asking: Rig) -> None:
    await asking.register()
    asking.api.page_rows = 1_000

    class Wide(Messages):
        lists = (Listing("messages", "api", whole=True, rows=1_000),)

    asking.ask(Wide())
    await turns(asking, NOON_AFTER_US)
    for place in range(60):
        at_us = NOON_AFTER_US + place * SECOND_US
        asking.normalizer.hear("acme", f"M{place:02}", "sent", at_us + SECOND_US)
        asking.api.send(f"M{place:02}", "delivered", at_us)
    asking.normalizer.hear("acme", "ALONE", "sent", NOON_AFTER_US + SECOND_US)
    asking.api.send("ALONE", "delivered", NOON_AFTER_US - 5 * HOUR_US)
    await turns(asking, NOON_AFTER_US + 20 * MINUTE_US)
    assert [one.path for one in asking.api.asked("/message/")] == ["/message/ALONE"]
    assert len(asking.normalizer.backfilled) == 61


async def test_rows_without_a_message_are_believed_only_when_they_are_old(asking: Rig) -> None:
    class Late(Messages):
        lists = (Listing("messages", "api", waits_s=3_600),)

    asking.ask(Late())
    await asking.register()
    now_us = asking.now_us()
    asking.api.send("NEW", "delivered", now_us - 10 * MINUTE_US)
    asking.api.send("OLD", "delivered", now_us - 2 * HOUR_US)
    await turns(asking, now_us)
    assert asking.normalizer.backfilled.keys() == {("acme", "OLD", "delivered")}
    await turns(asking, now_us + 55 * MINUTE_US)
    assert asking.normalizer.backfilled.keys() == {("acme", "OLD", "delivered"), ("acme", "NEW", "delivered")}


def _told(copy: Any) -> str:
    """The metrics of a copy, without what describes them."""
    lines: list[str] = copy.metrics.render().decode().splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


async def test_a_run_that_somebody_asked_for_comes_first_and_its_dry_run_tells_nothing(asking: Rig) -> None:
    tenant = await asking.register()
    now_us = asking.now_us()
    for place in range(25):
        asking.api.send(f"M{place:02}", "delivered", now_us - 5 * DAY_US + place * MINUTE_US)
    copy = asking.copy()
    await copy.channels.sync()
    span = (now_us - 5 * DAY_US, now_us - 4 * DAY_US)
    dry = await copy.ask(tenant, span, dry_run=True)
    (begun,) = await asking.runs()
    assert (begun["_id"], begun["state"], begun["dry_run"]) == (dry, "running", True)
    await copy.turn()
    (run,) = await asking.runs()
    assert (run["state"], run["counts"]["missing"], run["counts"]["seen"]) == ("done", 25, 25)
    await asking.normalizer.process()
    assert not asking.normalizer.backfilled
    # An alert is about these figures: who only looks, however often, must not raise it.
    assert RECONCILER_RECORDS.name not in _told(copy)
    wet = await copy.ask(tenant, span)
    await copy.until_done()
    await asking.normalizer.process()
    runs = {run["_id"]: run for run in await asking.runs()}
    assert (runs[wet]["state"], runs[wet]["counts"]["missing"]) == ("done", 25)
    assert len(asking.normalizer.backfilled) == 25
    (told,) = [line for line in _told(copy).splitlines() if line.startswith(RECONCILER_RECORDS.name)]
    assert (float(told.rpartition(" ")[2]), 'outcome="missing"' in told) == (25, True)
    # What is scheduled goes on as ever.
    await asking.due()
    await copy.until_done()
    runs = {run["_id"]: run for run in await asking.runs()}
    assert {run["cause"] for run in runs.values()} == {"call", "schedule"}


async def test_a_run_that_somebody_asked_for_leaves_it_when_the_channel_is_due(asking: Rig) -> None:
    tenant = await asking.register()
    await turns(asking, 0)
    before = await asking.channel()
    assert before["due_at_us"] > asking.now_us()
    copy = asking.copy()
    await copy.channels.sync()
    await copy.ask(tenant)
    await copy.until_done()
    after = await asking.channel()
    assert [run["cause"] for run in await asking.runs()] == ["schedule", "call"]
    assert abs(after["due_at_us"] - before["due_at_us"]) < 2 * MINUTE_US
    # Before the first scheduled run nothing is put off by it.
    other = await asking.register("globex", account="A2")
    await copy.channels.sync()
    await copy.ask(other)
    assert await copy.turn("twilio/A2")
    assert (await asking.channel("globex"))["due_at_us"] < asking.now_us() + MINUTE_US


async def test_a_run_asks_singly_for_no_message_that_its_lists_named(asking: Rig) -> None:
    tenant = await asking.register()
    now_us = asking.now_us()
    for message_id, sent_us in (("LISTED", now_us - HOUR_US), ("OTHER", now_us - 30 * HOUR_US)):
        asking.normalizer.hear("acme", message_id, "sent", now_us - HOUR_US)
        asking.api.send(message_id, "delivered", sent_us)
    copy = asking.copy()
    await copy.channels.sync()
    report = await copy.ask(tenant)
    assert await copy.turn()
    (run,) = await asking.runs()
    assert (run["_id"], run["state"], run["counts"]["missing"]) == (report, "done", 2)
    assert [one.path for one in asking.api.asked("/message/")] == ["/message/OTHER"]


async def test_what_is_backfilled_carries_the_trace_of_its_page(asking: Rig) -> None:
    await asking.register()
    asking.api.send("M1", "delivered", asking.now_us() - 5 * MINUTE_US)
    await turns(asking, asking.now_us())
    (trace,) = asking.normalizer.traces
    assert json.dumps(trace).startswith('"00-')


@pytest.mark.parametrize(
    ("ours", "theirs", "differ"),
    [
        ("delivered", "delivered", False),
        ("read", "delivered", False),
        ("delivered", "sent", False),
        ("sent", "delivered", False),
        ("bounced", "delivered", False),
        ("delivered", "bounced", True),
        ("delivered", "undelivered", True),
        ("undelivered", "failed", True),
        ("failed", "canceled", False),
        ("", "delivered", False),
        ("inbound", "delivered", False),
    ],
)
def test_states_differ_where_neither_is_a_later_one_of_the_other(ours: str, theirs: str, *, differ: bool) -> None:
    assert differs(ours, theirs) is differ


def test_what_is_on_its_way_is_open() -> None:
    assert is_open("queued")
    assert is_open("deferred")
    assert not any(map(is_open, ("delivered", "failed", "inbound", "unknown", "")))


def test_every_record_is_counted_once() -> None:
    found = Found()
    for verdict in Verdict:
        for published in (True, False):
            found.add(Comparison(verdict, "M1", told_state="delivered", state_after="delivered"), published=published)
    counts = found.counts
    assert counts.seen == 10
    assert (counts.known, counts.missing, counts.better, counts.unreadable) == (5, 1, 1, 1)


async def test_a_message_that_two_pages_name_is_one(asking: Rig) -> None:
    """A list shifts while it is read: what was the last of a page is the first of the next."""
    await asking.register()
    for place, (ours, theirs) in enumerate(
        (("delivered", "undelivered"), ("sent", "sent"), ("delivered", "delivered"))
    ):
        asking.normalizer.hear("acme", f"M{place}", ours, BEGIN_US + HOUR_US)
        asking.api.send(f"M{place}", theirs, BEGIN_US + HOUR_US)
    asking.normalizer.hear("acme", "M0", "undelivered", BEGIN_US + HOUR_US)
    asking.normalizer.messages["acme", "twilio"]["M2"].kinds["delivered"] = 0  # which was backfilled

    async def twice(request: Request, _: object) -> Answer | None:
        if request.path != "/messages" or request.params["from"] != str(BEGIN_US):
            return None
        page = int(request.params["page"] or 0)
        rows = list(asking.api.rows["acme"].values())
        return 200, {}, json.dumps({"rows": rows, "next": str(page + 1) if page < 2 else ""}).encode()

    asking.api.misbehave = twice
    await turns(asking, NOON_AFTER_US)
    day = (await asking.days())[DAY]
    assert (day["provider_messages"], day["equal"], day["backfilled"]) == (3, 1, 1)
    assert (day["differing"], day["open"]) == (1, 1)
    assert "1 differing, 1 on their way" in day["text"]
