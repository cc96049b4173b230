"""What a provider does not offer to an account is said, and asked for once a day; nothing else waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from backhaul_channels.pull import Ask, Budget, Listing, NeverError, Page, Span, Transport, UnreadableAnswerError
from backhaul_reconciler.standings import Standings
from days_rig import BEGIN_US, DAY, DAY_US, HOUR_US, MINUTE_US, NOON_AFTER_US, both, turns
from provider_api import Keys, Messages
from structlog.testing import capture_logs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asking_rig import Copy, Rig

EXTRA = "Buy the add-on."


class Common(Messages):
    """What an account without the add-on gets: a list that is refused, and no single messages."""

    budgets: ClassVar[Mapping[str, Budget]] = {"api": Budget(per_minute=None, at_once=1)}
    lists: ClassVar[Sequence[Listing]] = (Listing("extra", "api"), Listing("messages", "api"))
    bought = False

    async def window(
        self, transport: Transport, ask: Ask[Keys, Any], listing: str, span: Span, cursor: str = ""
    ) -> Page:
        page = await super().window(transport, ask, listing, span, cursor)
        if listing == "extra" and not self.bought:
            raise NeverError(EXTRA)
        return Page([]) if listing == "extra" else page

    async def message(self, transport: Transport, ask: Ask[Keys, Any], message_id: str) -> Page:
        page = await super().message(transport, ask, message_id)
        if not self.bought:
            raise NeverError(EXTRA)
        return page


async def at(rig: Rig, at_us: int) -> Copy:
    """All that is due at a time, and a copy that did it."""
    rig.api.requests.clear()
    return await turns(rig, at_us)


def asked(rig: Rig) -> tuple[int, int]:
    return len(rig.api.asked("/extra")), len(rig.api.asked("/message/"))


async def test_what_the_account_lacks_is_asked_for_once_a_day_and_all_else_is_asked(asking: Rig) -> None:
    puller = Common()
    asking.ask(puller)
    tenant = await asking.register()
    for place in range(40):
        asking.normalizer.hear("acme", f"OPEN{place}", "sent", NOON_AFTER_US - 2 * HOUR_US)
    asking.api.send("LOST", "delivered", NOON_AFTER_US - HOUR_US)
    copy = await at(asking, NOON_AFTER_US)
    assert asked(asking) == (1, 3)
    assert asking.normalizer.backfilled == {("acme", "LOST", "delivered"): 1}
    (run,) = await asking.runs()
    row = await asking.channel()
    text = f"Of this account is not told: the list extra, single messages. {EXTRA}"
    assert (run["state"], run["text"], row["standing"], row["text"]) == ("done", text, "asked", text)
    known = copy.channels.known(row)
    assert known is not None
    standings = Standings(asking.database, copy.channels._knowing, _Nobody())
    (standing,) = await standings.of(tenant)
    assert (standing.text, standing.discovered_to_us) == (text, row["lists"]["messages"]["to_us"])

    await at(asking, NOON_AFTER_US + HOUR_US)
    assert asked(asking) == (0, 0)
    # Nor by a run that somebody asks for.
    asking.api.requests.clear()
    await copy.ask(tenant)
    await copy.until_done()
    assert asked(asking) == (0, 0)
    await at(asking, NOON_AFTER_US + DAY_US + HOUR_US)
    assert asked(asking) == (1, 3)

    puller.bought = True
    await at(asking, NOON_AFTER_US + 2 * DAY_US)
    assert asked(asking) == (0, 0)
    await at(asking, NOON_AFTER_US + 2 * DAY_US + 2 * HOUR_US)
    assert asked(asking)[0] == 1
    assert asked(asking)[1] >= 40, "those that waited"
    row = await asking.channel()
    assert (row["never"], row["text"]) == ({}, "")


async def test_changed_settings_have_what_the_account_lacked_asked_for(asking: Rig) -> None:
    asking.ask(Common())
    await asking.register()
    copy = asking.copy()
    await copy.channels.sync()
    await copy.until_done()
    assert "extra" in (await asking.channel())["never"]
    await asking.register()
    await copy.channels.sync()
    assert "never" not in await asking.channel()
    await copy.until_done()
    assert len(asking.api.asked("/extra")) == 2


async def test_messages_that_the_puller_does_not_ask_for_hold_up_no_others(asking: Rig) -> None:
    class Named(Messages):
        async def message(self, transport: Transport, ask: Ask[Keys, Any], message_id: str) -> Page:
            if message_id.startswith("ODD"):
                raise NeverError("No such name.")
            return await super().message(transport, ask, message_id)

    asking.ask(Named())
    await asking.register()
    for place in range(5):
        asking.normalizer.hear("acme", f"ODD{place}", "sent", asking.now_us() - 50 * HOUR_US)
    asking.normalizer.hear("acme", "M1", "sent", asking.now_us() - 90 * HOUR_US)
    asking.normalizer.hear("acme", "M2", "sent", asking.now_us() - 51 * HOUR_US)
    with capture_logs() as lines:
        await turns(asking, 0)
    (run,) = await asking.runs()
    assert (run["state"], run["text"]) == ("done", "")
    assert "/message/M2" in {one.path for one in asking.api.requests}
    told = [(one["messages"], one["why"]) for one in lines if one["event"] == "messages_not_told"]
    assert (5, "No such name.") in told


async def test_who_tells_something_after_all_is_asked_for_the_rest(asking: Rig) -> None:
    """Four are asked for at once, of which three tell nothing and the fourth is slow."""
    odd: list[str] = []

    class Some(Messages):
        async def message(self, transport: Transport, ask: Ask[Keys, Any], message_id: str) -> Page:
            page = await super().message(transport, ask, message_id)
            if len(odd) < 3 or message_id in odd:
                odd.append(message_id)
                raise UnreadableAnswerError("What is this?")
            return page

    asking.ask(Some())
    await asking.register()
    for place in range(12):
        asking.normalizer.hear("acme", f"M{place:02}", "sent", asking.now_us() - 20 * MINUTE_US)
        asking.api.send(f"M{place:02}", "delivered", asking.now_us() - 30 * DAY_US)
    copy = asking.copy()
    await copy.channels.sync()
    await copy.until_done()
    await asking.normalizer.process()
    assert len(asking.normalizer.backfilled) == 9
    (run,) = await asking.runs()
    assert run["state"] == "done"


async def test_a_day_of_whose_messages_one_is_not_told_is_not_closed(asking: Rig) -> None:
    class Odd(Messages):
        async def message(self, transport: Transport, ask: Ask[Keys, Any], message_id: str) -> Page:
            await super().message(transport, ask, message_id)
            raise UnreadableAnswerError("What is this?")

    asking.ask(Odd())
    await asking.register()
    both(asking, "M1", "delivered", BEGIN_US + HOUR_US)
    asking.normalizer.hear("acme", "OURS", "delivered", BEGIN_US + HOUR_US)
    await turns(asking, NOON_AFTER_US)
    day = (await asking.days())[DAY]
    assert (day["state"], day["unknown_to_provider"]) == ("open", 0)
    assert "1 of which the provider did not tell" in day["text"]


async def test_a_day_whose_messages_cannot_be_asked_for_singly_cannot_be_closed(asking: Rig) -> None:
    class Whole(Common):
        lists = (Listing("messages", "api", whole=True),)

    asking.ask(Whole())
    await asking.register()
    for place in range(5):
        asking.normalizer.hear("acme", f"OURS{place}", "delivered", BEGIN_US + HOUR_US)
    await turns(asking, NOON_AFTER_US)
    day = (await asking.days())[DAY]
    assert (day["state"], day["text"]) == ("cannot_be_closed", EXTRA)
    assert await asking.database["reconciled_seen"].count_documents({}) == 0


class _Nobody:
    async def of(self, tenant_id: str) -> Mapping[str, Any]:
        return {}
