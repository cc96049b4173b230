"""By which of a provider's lists a day is closed, and which of its messages are in none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from backhaul_channels.pull import Ask, Listing, Page, Span, Transport
from backhaul_common.sizes import MAX_BODY_BYTES
from days_rig import BEGIN_US, DAY, HOUR_US, MINUTE_US, NOON_AFTER_US, SECOND_US, both, turns
from provider_api import Keys, Messages

if TYPE_CHECKING:
    from asking_rig import Rig


async def test_a_list_that_needs_time_is_gone_on_with_when_it_is_there(asking: Rig) -> None:
    class Export(Messages):
        lists = (Listing("messages", "api"), Listing("export", "api", whole=True, discovers=False))

        async def window(
            self, transport: Transport, ask: Ask[Keys, Any], listing: str, span: Span, cursor: str = ""
        ) -> Page:
            if listing == "export":
                if not cursor:
                    return Page([], "job", 3_600.0)
                assert cursor == "job"
            return await super().window(transport, ask, "messages", span, "")

    asking.ask(Export())
    await asking.register()
    both(asking, "M1", "delivered", BEGIN_US + HOUR_US)
    await turns(asking, NOON_AFTER_US)
    assert await asking.days() == {}
    assert [run["state"] for run in await asking.runs()] == ["done"]
    await turns(asking, NOON_AFTER_US + 30 * MINUTE_US)
    assert await asking.days() == {}
    await turns(asking, NOON_AFTER_US + 2 * HOUR_US)
    day = (await asking.days())[DAY]
    assert (day["state"], day["provider_messages"]) == ("closed", 1)


class Exporting(Messages):
    """Closes days by a file that is made for that, beside a list of whole pages."""

    lists = (
        Listing("messages", "api", whole=True, rows=1_000, closes=False),
        Listing("export", "api", whole=True, discovers=False),
    )


async def test_a_list_that_is_made_for_a_day_is_not_made_again_within_a_day(asking: Rig) -> None:
    asking.ask(Exporting())
    await asking.register()
    asking.api.send("LOST", "delivered", BEGIN_US + HOUR_US)
    asking.api.send("WAY", "sent", BEGIN_US + HOUR_US)
    made = []
    for hours in range(0, 51, 3):
        before = len(asking.api.asked("/export"))
        await turns(asking, NOON_AFTER_US + hours * HOUR_US)
        made += [hours] * (len(asking.api.asked("/export")) - before)
        if hours == 0:
            day = (await asking.days())[DAY]
            assert (day["state"], day["backfilled"]) == ("open", 2)
            asking.api.send("WAY", "delivered", BEGIN_US + HOUR_US)
    # Those of the two days that follow, as soon as they are two days ago, and that of the open day once more.
    assert len(made) == 4
    assert made[:2] == [0, 12]
    assert {day: row["state"] for day, row in (await asking.days()).items()} == dict.fromkeys(
        (DAY, "2026-03-30", "2026-03-31"), "closed"
    )


async def test_open_messages_are_looked_for_in_a_whole_list_that_closes_no_day(asking: Rig) -> None:
    asking.ask(Exporting())
    asking.api.page_rows = 1_000
    await asking.register()
    await turns(asking, NOON_AFTER_US)
    for place in range(60):
        at_us = NOON_AFTER_US + place * SECOND_US
        asking.normalizer.hear("acme", f"M{place:02}", "sent", at_us + SECOND_US)
        asking.api.send(f"M{place:02}", "delivered", at_us)
    await turns(asking, NOON_AFTER_US + 20 * MINUTE_US)
    assert not asking.api.asked("/message/")
    assert len(asking.normalizer.backfilled) == 60


async def test_a_record_that_is_too_large_is_counted_and_its_day_cannot_be_closed(
    asking: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    class Large(Messages):
        async def window(
            self, transport: Transport, ask: Ask[Keys, Any], listing: str, span: Span, cursor: str = ""
        ) -> Page:
            page = await super().window(transport, ask, listing, span, cursor)
            return Page([one + b" " * MAX_BODY_BYTES if b"LARGE" in one else one for one in page.records], page.cursor)

    asking.ask(Large())
    await asking.register()
    both(asking, "M1", "delivered", BEGIN_US + HOUR_US)
    asking.api.send("LARGE", "delivered", BEGIN_US + HOUR_US)
    asking.api.send("LOST", "delivered", BEGIN_US + HOUR_US)
    copy = asking.copy()
    await copy.channels.sync()
    for minutes, state in ((0, "open"), (15, "cannot_be_closed")):
        await asking.due()
        await copy.until_done(at_us=NOON_AFTER_US + minutes * MINUTE_US)
        await asking.normalizer.process()
        day = (await asking.days())[DAY]
        assert (day["state"], day["provider_messages"]) == (state, 3)
        assert "1 records of the provider's are larger than 4 MiB" in day["text"]
    assert "due_at_us" not in day
    assert asking.normalizer.backfilled == {("acme", "LOST", "delivered"): 1}
    assert [run["counts"].get("unreadable") for run in await asking.runs()] == [1, 1]
    assert capsys.readouterr().out.count("record_too_large") == 1


async def test_what_a_sender_alone_told_of_is_no_message_of_the_providers(asking: Rig) -> None:
    await asking.register()
    both(asking, "M1", "delivered", BEGIN_US + HOUR_US)
    asking.normalizer.hear("acme", "SM1", "rejected", BEGIN_US + HOUR_US)
    # One that could not be made has failed, under an id that was made for it here.
    asking.normalizer.hear("acme", "unsent-0a", "failed", BEGIN_US + HOUR_US)
    asking.normalizer.hear("acme", "unsent-0b", "rejected", BEGIN_US + HOUR_US)
    await turns(asking, NOON_AFTER_US)
    day = (await asking.days())[DAY]
    assert (day["state"], day["unknown_to_provider"]) == ("closed", 0)
    assert not asking.api.asked("/message/")
    assert await asking.differences() == {}
