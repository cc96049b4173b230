"""What providers, tenants and clocks do that they should not: it is said in words, costs nobody else anything, and what
is left is asked later."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_channels.pull import Ask, Listing, NeverError, Page, Span, Transport
from backhaul_common.errors import BackhaulError, Code
from days_rig import DAY_US, HOUR_US, MINUTE_US, NOON_AFTER_US, turns
from provider_api import Answer, Keys, Messages, Request

if TYPE_CHECKING:
    from asking_rig import Rig


def always(status: int, body: bytes = b"{}", **headers: str) -> Any:
    async def answer(_: Request, __: asyncio.StreamWriter) -> Answer:
        return status, {name.replace("_", "-"): value for name, value in headers.items()}, body

    return answer


async def test_refused_credentials_stand_in_the_channels_status_until_they_are_changed(asking: Rig) -> None:
    await asking.register(token="bad")
    asking.send(5)
    copy = asking.copy()
    await copy.channels.sync()
    await copy.until_done()
    row = await asking.channel()
    assert row["standing"] == "credentials_refused"
    assert "refuses the credentials" in row["text"]
    assert row["text"].endswith(". PUT the channel with other pull_credentials; these are tried once an hour.")
    assert 55 * MINUTE_US < row["due_at_us"] - asking.now_us() < 65 * MINUTE_US
    (run,) = await asking.runs()
    assert (run["state"], run["text"]) == ("stopped", row["text"])
    assert len(asking.api.requests) == 1, "it is of no use to ask on"
    (day,) = (await asking.days()).values()
    assert (day["state"], day["text"]) == ("open", row["text"])

    await asking.register(token="good")
    await copy.channels.sync()
    await copy.until_done()
    await asking.normalizer.process()
    row = await asking.channel()
    assert (row["standing"], row["text"]) == ("asked", "")
    assert len(asking.normalizer.backfilled) == 5


async def test_what_was_counted_of_a_day_stays_when_it_cannot_be_compared_again(asking: Rig) -> None:
    await asking.register()
    now_us = asking.now_us()
    begin_us = (now_us // DAY_US - 2) * DAY_US
    asking.api.send("LOST", "delivered", begin_us + HOUR_US)
    copy = asking.copy()
    await copy.channels.sync()
    await copy.until_done()
    ((name, before),) = (await asking.days()).items()
    assert (before["state"], before["provider_messages"], before["backfilled"]) == ("open", 1, 1)
    asking.api.tokens.clear()
    await asking.due()
    await copy.until_done(at_us=now_us + 30 * MINUTE_US)
    ((same, after),) = (await asking.days()).items()
    told = ("state", "text", "due_at_us")
    assert same == name
    assert (after["state"], "refuses" in after["text"], after["due_at_us"] > now_us) == ("open", True, True)
    assert {key: after[key] for key in after if key not in told} == {
        key: before[key] for key in before if key not in told
    }


async def test_credentials_that_do_not_open_are_said_and_nothing_is_asked(asking: Rig) -> None:
    tenant = await asking.register()
    broken = tenant.channels["twilio"].model_copy(update={"pull_credentials": "gAAAAA"})
    await asking.put(tenant.model_copy(update={"channels": {"twilio": broken}}))
    copy = asking.copy()
    await copy.channels.sync()
    row = await asking.channel()
    assert row["standing"] == "failing"
    assert "gAAAAA" not in row["text"]
    assert "account" not in row
    assert not await copy.channels.due()


@pytest.mark.parametrize(
    ("answer", "standing", "words"),
    [
        (always(429, retry_after="120"), "waiting", "429"),
        (always(503), "waiting", "503"),
        (always(200, b"<html>"), "failing", "cannot be read"),
        (always(302, location="https://elsewhere.example.com"), "failing", "302"),
    ],
)
async def test_what_is_left_is_asked_later_and_from_where_it_was(
    asking: Rig, answer: Any, standing: str, words: str
) -> None:
    await asking.register()
    asking.send(25)
    copy = asking.copy()
    await copy.channels.sync()
    second_page = asyncio.Event()

    async def trouble(request: Request, writer: asyncio.StreamWriter) -> Answer | None:
        if request.params.get("page") != "10":
            return None
        second_page.set()
        told: Answer = await answer(request, writer)
        return told

    asking.api.misbehave = trouble
    await copy.turn()
    row = await asking.channel()
    assert second_page.is_set()
    assert row["standing"] == standing
    assert words in row["text"]
    assert row["due_at_us"] > asking.now_us()
    assert row["lists"]["messages"]["cursor"] == "10"
    (run,) = await asking.runs()
    assert (run["state"], run["text"]) == ("stopped", row["text"])
    # Another copy knows that the provider wants to be left alone.
    if words == "429":
        held = await asking.copy("other").accounts.take("twilio/A1")
        assert held is not None
        assert 100 < asking.copy("other").asking.ledgers(held)["api"].wait_s(held.loop_time()) < 140
        await asking.copy("third").accounts.take("twilio/A1")
        await asking.dead()

    asking.api.misbehave = None
    later = asking.copy("later")
    await later.channels.sync()
    await asking.due()
    await asking.database["reconciled_accounts"].update_many({}, {"$set": {"not_before_us": 0, "owner": ""}})
    asked = len(asking.api.requests)
    await later.until_done()
    assert asking.api.requests[asked].params["page"] == "10"
    await asking.normalizer.process()
    assert set(asking.normalizer.backfilled.values()) == {1}
    assert len(asking.normalizer.backfilled) == 25


async def test_a_list_that_leads_in_a_circle_is_left(asking: Rig) -> None:
    await asking.register()
    rows = {"rows": [], "next": "again"}
    asking.api.misbehave = always(200, json.dumps(rows).encode())
    copy = asking.copy()
    await copy.channels.sync()
    await copy.turn()
    assert len(asking.api.requests) <= 6
    assert (await asking.channel())["standing"] == "failing"


async def test_a_list_that_leads_in_a_longer_circle_is_left(asking: Rig) -> None:
    await asking.register()
    circle = {"": "one", "one": "two", "two": "three", "three": "one"}

    async def leads_on(request: Request, _: asyncio.StreamWriter) -> Answer:
        return 200, {}, json.dumps({"rows": [], "next": circle[request.params["page"]]}).encode()

    asking.api.misbehave = leads_on
    copy = asking.copy()
    await copy.channels.sync()
    await copy.turn()
    assert len(asking.api.requests) <= 10
    row = await asking.channel()
    assert (row["standing"], "circle" in row["text"]) == ("failing", True)


async def test_where_a_list_goes_on_is_no_novel(asking: Rig) -> None:
    await asking.register()
    asking.api.misbehave = always(200, json.dumps({"rows": [], "next": "x" * 100_000}).encode())
    copy = asking.copy()
    await copy.channels.sync()
    await copy.turn()
    row = await asking.channel()
    assert (row["standing"], "longer" in row["text"]) == ("failing", True)


@pytest.mark.parametrize("part", ["lists", "closing"])
async def test_a_place_in_a_list_that_is_there_no_more_is_left_for_the_lists_beginning(asking: Rig, part: str) -> None:
    """The provider forgot it, or its API has changed since."""
    await asking.register()
    days = 2 if part == "closing" else 0
    for place in range(25):
        asking.api.send(f"M{place:04}", "delivered", asking.now_us() - days * DAY_US - (place + 5) * 1_000_000)
    gone = "10"

    async def forgets(request: Request, _: asyncio.StreamWriter) -> Answer | None:
        return (400, {}, b"{}") if request.params.get("page") == gone else None

    asking.api.misbehave = forgets
    copy = asking.copy()
    await copy.channels.sync()
    for _ in range(2):
        await asking.due()
        await copy.turn()
        assert (await asking.channel())["standing"] == "failing"
    # What was the tenth row is the twelfth by now, and pages are of another size.
    asking.api.page_rows = 12
    await asking.due()
    await copy.turn()
    await asking.normalizer.process()
    assert asking.normalizer.backfilled == {("acme", f"M{place:04}", "delivered"): 1 for place in range(25)}
    if part == "closing":
        await asking.due()
        await asking.database["reconciled_days"].update_many({}, {"$set": {"due_at_us": 1}})
        await copy.until_done()
        (day,) = (await asking.days()).values()
        assert (day["state"], day["provider_messages"], day["equal"]) == ("closed", 25, 25)


async def test_what_nobody_will_ever_be_told_stops_neither_a_run_nor_the_channel(asking: Rig) -> None:
    class Never(Messages):
        async def window(
            self, transport: Transport, ask: Ask[Keys, Any], listing: str, span: Span, cursor: str = ""
        ) -> Page:
            if listing == "extra":
                raise NeverError("Buy the add-on.")
            return await super().window(transport, ask, listing, span, cursor)

        lists = (Listing("extra", "api"), Listing("messages", "api"))

    asking.ask(Never())
    await asking.register()
    asking.send(5)
    copy = asking.copy()
    await copy.channels.sync()
    await copy.until_done()
    await asking.normalizer.process()
    assert len(asking.normalizer.backfilled) == 5
    row = await asking.channel()
    assert row["standing"] == "asked"
    assert row["text"] == "Of this account is not told: the list extra. Buy the add-on."
    (day,) = (await asking.days()).values()
    assert day["state"] == "cannot_be_closed"
    assert "no complete list" in day["text"]


async def test_a_fault_in_a_puller_is_its_channels_alone(asking: Rig) -> None:
    class Faulty(Messages):
        async def message(self, transport: Transport, ask: Ask[Keys, Any], message_id: str) -> Page:
            raise KeyError("secret-token")

    asking.ask(Faulty())
    await asking.register()
    asking.normalizer.hear("acme", "M1", "sent", asking.now_us() - 20 * MINUTE_US)
    copy = asking.copy()
    await copy.channels.sync()
    await copy.until_done()
    row = await asking.channel()
    assert row["standing"] == "failing"
    assert "secret" not in row["text"]
    assert row["due_at_us"] > asking.now_us()


async def test_of_two_tenants_who_share_an_account_none_waits_for_the_other_or_sees_what_is_its(asking: Rig) -> None:
    """One of them has a list without an end."""
    await asking.register("hostile")
    await asking.register("acme")
    asking.send(25)
    asking.send(10, sender="hostile", prefix="H")

    async def endless(request: Request, _: asyncio.StreamWriter) -> Answer | None:
        if not request.headers["authorization"].startswith("A1 hostile") or request.path.startswith("/message/"):
            return None
        page = int(request.params["page"] or 0)
        row = {"id": f"H{page}", "state": "delivered", "at": int(request.params["from"])}
        return 200, {}, json.dumps({"rows": [row], "next": str(page + 1)}).encode()

    asking.api.misbehave = endless
    copy = asking.copy()
    await copy.channels.sync()
    turns = 0
    while "running" in (row := await asking.channel("acme")) or "run" not in row:
        assert await copy.turn()
        turns += 1
        assert turns <= 6
    assert (await asking.channel("acme"))["standing"] == "asked"
    await asking.normalizer.process()
    assert {message_id for tenant, message_id, _ in asking.normalizer.backfilled if tenant == "acme"} == {
        f"M{place:04}" for place in range(25)
    }
    assert all(message_id[0] == "H" for tenant, message_id, _ in asking.normalizer.backfilled if tenant == "hostile")


async def test_no_clock_of_a_copy_decides_when_a_channel_is_due(asking: Rig) -> None:
    await asking.register()
    asking.send(5)
    for name, wrong_us in (("ahead", DAY_US), ("behind", -DAY_US)):
        copy = asking.copy(name, now_us=lambda wrong_us=wrong_us: asking.now_us() + wrong_us)  # type: ignore[misc]  # bound
        await asking.database["reconciled_channels"].delete_many({})
        await copy.channels.sync()
        assert [one.account for one in await copy.channels.due()] == ["twilio/A1"]
        await copy.until_done()
        row = await asking.channel()
        assert 8 * MINUTE_US < row["due_at_us"] - asking.now_us() < 12 * MINUTE_US
        assert abs(row["lists"]["messages"]["to_us"] - asking.now_us()) < MINUTE_US
    # What was stored by a server whose clock was ahead does not keep anything from being asked.
    await asking.database["reconciled_channels"].update_many(
        {}, {"$set": {"due_at_us": 1, "lists.messages.to_us": asking.now_us() + 9 * DAY_US}}
    )
    asking.api.send("LATE", "delivered", asking.now_us() - MINUTE_US)
    # Nor does what a provider wanted by that clock.
    not_before = {"$set": {"not_before_us": asking.now_us() + 9 * DAY_US}}
    await asking.database["reconciled_accounts"].update_many({}, not_before)
    held = await copy.accounts.take("twilio/A1")
    assert held is not None
    assert max(one.not_before for one in copy.asking.ledgers(held).values()) - held.loop_time() <= 2 * 3_600
    await asking.database["reconciled_accounts"].update_many({}, {"$set": {"not_before_us": 0, "owner": ""}})
    copy = asking.copy("after")
    await copy.channels.sync()
    await copy.until_done()
    await asking.normalizer.process()
    assert ("acme", "LATE", "delivered") in asking.normalizer.backfilled


async def test_a_run_waits_where_callbacks_have_no_room(asking: Rig) -> None:
    await asking.register()
    asking.send(12)
    js = asking.nats.jetstream()
    config = (await js.stream_info("CALLBACKS")).config
    await js.update_stream(config=config.evolve(max_bytes=1_000))
    copy = asking.copy()
    await copy.channels.sync()
    await copy.turn()
    row = await asking.channel()
    assert row["standing"] == "waiting"
    assert "CALLBACKS" in row["text"]
    assert "lists" not in row, "nothing was stored of what was not told"
    await js.update_stream(config=config)
    await asking.due()
    await copy.until_done()
    await asking.normalizer.process()
    assert len(asking.normalizer.backfilled) == 12


async def test_while_the_normalizer_is_away_nothing_is_counted_or_ended(asking: Rig) -> None:
    await asking.register()
    asking.send(5)
    copy = asking.copy()
    await copy.channels.sync()
    asking.normalizer.away = True
    with pytest.raises(BackhaulError) as caught:
        await copy.turn()
    assert caught.value.code is Code.UNAVAILABLE
    (run,) = await asking.runs()
    assert run["state"] == "running"
    asking.normalizer.away = False
    await asking.dead()
    await copy.until_done()
    (run,) = await asking.runs()
    assert (run["state"], run["counts"]["missing"]) == ("done", 5)


async def test_an_open_message_that_cannot_be_asked_for_does_not_hold_up_the_others(asking: Rig) -> None:
    class Odd(Messages):
        async def message(self, transport: Transport, ask: Ask[Keys, Any], message_id: str) -> Page:
            if message_id == "ODD":
                raise NeverError("No such product.")
            return await super().message(transport, ask, message_id)

    asking.ask(Odd())
    await asking.register()
    # By a clock of its own: which days are due depends on the time of the day.
    sent_us = NOON_AFTER_US - 50 * HOUR_US
    for message_id in ("ODD", "M1", "M2"):
        asking.normalizer.hear("acme", message_id, "sent", sent_us)
        asking.api.send(message_id, "delivered", sent_us)
    await turns(asking, NOON_AFTER_US)
    assert {one for _, one, _ in asking.normalizer.backfilled} == {"M1", "M2", "ODD"}, "ODD by its day"
    (run,) = await asking.runs()
    assert run["state"] == "done"
