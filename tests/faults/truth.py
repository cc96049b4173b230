"""Two copies of the reconciler before a simulated Twilio; and whether all that Backhaul tells is what Twilio tells.

What must be true is worked out from the provider's own list, from what was answered 200, and from the documentation of
states and counts: nothing here asks the services how they compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
from backhaul_client import BackhaulError, SendIn
from backhaul_client.models import Event
from backhaul_client.reconciliationmodels import RunReport
from backhaul_local.service import ServiceSpec, default_services, service_spec
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi
from backhaul_testing.apis.twilio_rows import Text
from backhaul_testing.apis.twilio_scenario import TwilioScenario
from backhaul_testing.waiting import until
from backhaul_testing.wire import Wire
from faults.account import drained
from simulators.archive import QUICK
from simulators.people import Tenant, Town

if TYPE_CHECKING:
    from backhaul_local.stack import Stack

FIRST, SECOND = "reconciler", "second"
"""The copies' names in the stack."""

AT_ONCE = 4
"""Requests that an account of Twilio has under way at most."""

CONNECTIONS = 6
COMMUNICATION = "spring"
CHANNEL = "Twilio"
ASKED_S = 240.0
"""Seconds after which a run that has not ended is a failure of the test, whatever died in its middle."""

ENV = {
    # What a dead normalizer had in hand comes back after this time; production waits longer.
    "BACKHAUL_NORMALIZER_ACK_WAIT_S": "3",
    "BACKHAUL_SUPPRESSION_ACK_WAIT_S": "3",
    **QUICK,
}

_KINDS = {
    "queued": "queued", "sent": "sent", "delivered": "delivered", "undelivered": "undelivered", "failed": "failed",
    "received": "inbound",
}  # fmt: skip
_FULFILMENT = {"sent": "Sent", "delivered": "Delivered", "undelivered": "Undelivered", "failed": "Failed"}

Fact = tuple[str, str]
"""A message's id, and a kind of event."""


def two_copies() -> tuple[ServiceSpec, ...]:
    """All services, and the reconciler once more."""
    return (*default_services(), replace(service_spec(FIRST), name=SECOND))


@dataclass
class Story:
    """A tenant with an account at Twilio: what happened there, and whom it was told of."""

    tenant: Tenant
    account: TwilioAccount
    scenario: TwilioScenario
    began: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(minutes=5))
    sent: list[Text] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    """Numbers of people who wrote STOP, or of whom Twilio says that they did."""

    @property
    def client(self) -> Any:
        """What the tenant asks about reconciliation."""
        return self.tenant.client.reconciliation

    async def send(self, number: int, *, stops: int = 0, silent_stops: int = 0, batch: str = "", **mix: Any) -> None:
        """``number`` messages are sent and come to their ends, and so many people write STOP, or are found by Twilio to
        have. Of ``silent_stops`` in each of these ways there is no callback. All of it is of ``batch``."""
        begin = self.scenario.clock.now() - timedelta(seconds=30)
        sent = self.scenario.texts(number, begin=begin, within_s=20, **mix)
        for withhold, count in ((None, stops), (True, silent_stops)):
            for _ in range(count):
                person = self._person()
                self.scenario.reply("STOP", sender=person, at=begin, withhold=withhold)
                blocked = self._person()
                sent.append(
                    self.scenario.text(blocked, "failed", error_code=21610, at=begin, withhold=withhold),
                )
        self.sent += sent
        sends: list[SendIn] = [
            {"channel": CHANNEL, "message_id": text.sid, "recipient": text.to, "communication": COMMUNICATION}
            for text in sent
        ]
        for send in sends if batch else ():
            send["batch"] = batch

        async def taken() -> bool:
            try:
                return (await self.tenant.client.report_sends(sends)).accepted == len(sends)
            except BackhaulError:
                return False  # Something may be away. What is told again is told once.

        await until("sends to be taken", taken, within_s=60, pause_s=0.2)

    async def post(self, *, every: int = 1) -> None:
        """Twilio tells of what has happened, as it does; of the callbacks that wait one in ``every``."""
        waiting = [callback for callback in self.scenario.callbacks if not callback.taken]
        kept = [callback for place, callback in enumerate(waiting) if place % every]
        for callback in kept:
            callback.taken = True
        async with AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(Wire()) for _ in range(CONNECTIONS)]
            await self.scenario.post(*(wire.once for wire in wires))
        for callback in kept:
            callback.taken = False

    async def ask(self, meanwhile: Callable[[], Any] | None = None, *, dry_run: bool = False) -> RunReport:
        """A run over the whole story, to its end; ``meanwhile`` is done in its middle."""
        to = datetime.now(UTC)

        async def begin() -> RunReport | None:
            try:
                report: RunReport = await self.client.begin(CHANNEL, from_=self.began, to=to, dry_run=dry_run)
            except BackhaulError:
                return None  # One that is scheduled may be under way, or something not be back yet.
            return report

        report = await until("a run that begins", begin, within_s=60, pause_s=0.2)
        if meanwhile is not None:
            await meanwhile()

        async def over() -> RunReport | None:
            try:
                found: RunReport = await self.client.report(report.id)
            except BackhaulError:
                return None
            return found if found.state != "running" else None

        return await until("the run's end", over, within_s=ASKED_S, pause_s=0.2)

    def told(self) -> tuple[set[Fact], set[Fact]]:
        """What must be stored, and what may be beyond it: callbacks that nobody was answered of."""
        must = {(text.sid, "queued") for text in self.sent}
        must |= {(sid, _KINDS[word]) for sid, word in self.account.states().items()}
        may: set[Fact] = set()
        for callback in self.scenario.callbacks:
            if callback.taken:
                (must if callback.accepted else may).add((callback.message_id, _KINDS[callback.word]))
        return must, may - must

    def _person(self) -> str:
        person = f"+1502{len(self.stopped):07}"
        self.stopped.append(person)
        return person


@dataclass(frozen=True)
class Asking:
    """A stack that asks ``api``, to be broken, and the people around it."""

    stack: Stack
    town: Town
    api: TwilioApi

    async def story(self, *, api_asked: bool = True, **shares: Any) -> Story:
        """A new tenant, whose channel is of an account of its own. ``shares`` are those of a scenario."""
        tenant = await self.town.platform.register()
        account = self.api.account()
        audit = {"enabled": True, "with_event": True}
        await self.town.platform.client.put_channel(
            tenant.id, CHANNEL, secrets=[account.auth_token], settings={"audit": audit}
        )
        # Callbacks name no communication, as rows of the API do not: the sends have told of it.
        address = tenant.address(CHANNEL, fragment="rc=5&rp=all")
        story = Story(tenant, account, TwilioScenario(account, address, **shares))
        if api_asked:
            await self.have_asked(story, every_minutes=1)
        return story

    async def have_asked(self, story: Story, *, token: str = "", **reconcile: Any) -> None:
        """From now on the channel's account is asked, with its own token, unless told otherwise."""
        credentials = {"account_sid": story.account.sid, "auth_token": token or story.account.auth_token}
        settings = {"audit": {"enabled": True, "with_event": True}, "reconcile": reconcile}
        await self.town.platform.client.put_channel(
            story.tenant.id, CHANNEL, pull_credentials=credentials, settings=settings
        )

        async def known() -> bool:
            (row,) = [one for one in await story.client.channels() if one.channel == "twilio"]
            return bool(row.standing != "no_credentials")

        await until("the reconciler knows the channel", known)

    async def leave_alone(self, story: Story) -> None:
        """The channel's account is not asked any more, so that it takes nothing from the next test's."""
        await self.town.platform.client.put_channel(
            story.tenant.id, CHANNEL, settings={"reconcile": {"enabled": False}}
        )

    async def holder(self) -> str | None:
        """The copy that asks an account now."""
        async with httpx.AsyncClient() as http:
            for name in (FIRST, SECOND):
                url = f"http://127.0.0.1:{self.stack.port(name, 'metrics')}/metrics"
                text = (await http.get(url)).text
                held = [line for line in text.splitlines() if line.startswith("backhaul_reconciler_accounts{")]
                held = held or [line for line in text.splitlines() if line.startswith("backhaul_reconciler_accounts ")]
                if held and float(held[0].rpartition(" ")[2]) > 0:
                    return name
        return None

    async def again(self, name: str) -> None:
        """kill -9, and it is started anew."""
        await self.stack.kill(name)
        await self.stack.member(name).start()


@dataclass(frozen=True, slots=True)
class Truth:
    """What was found: events, those of them that only the API told, and messages."""

    events: int
    backfilled: int
    messages: int


async def unlike(story: Story) -> dict[str, tuple[str, str]]:
    """Messages of which Twilio says another thing than Backhaul, by id: what Twilio says, and what Backhaul does."""
    ours = {row.message_id: row.state for row in await story.tenant.messages(page_size=500)}
    theirs = {sid: _KINDS[word] for sid, word in story.account.states().items()}
    return {
        sid: (theirs.get(sid, ""), ours.get(sid, ""))
        for sid in ours.keys() | theirs.keys()
        if ours.get(sid) != theirs.get(sid)
    }


async def settle(stack: Stack, story: Story) -> Truth:
    """Check everything that can be read of a story that was processed; AssertionError names what is wrong."""
    assert not await unlike(story)
    events = await story.tenant.events(page_size=500)
    stored = Counter((event.message_id, event.kind) for event in events)
    twice = [fact for fact, count in stored.items() if count > 1]
    assert not twice, f"{len(twice)} are stored twice: {twice[:5]}"
    must, may = story.told()
    assert not must - stored.keys(), f"{len(must - stored.keys())} are missing: {sorted(must - stored.keys())[:5]}"
    invented = stored.keys() - must - may
    assert not invented, f"{len(invented)} were never told: {sorted(invented)[:5]}"
    assert await story.tenant.dead_letters() == []
    await _check_messages(story, stored.keys())
    await _check_communication(story, events)
    await _check_suppressions(story)
    return Truth(len(events), sum(event.source == "backfill" for event in events), len(story.account.states()))


async def _check_messages(story: Story, stored: Any) -> None:
    counts = Counter(sid for sid, _ in stored)
    rows = await story.tenant.messages(page_size=500)
    assert {row.message_id: row.event_count for row in rows} == counts
    assert len(rows) == len(counts)


async def _check_communication(story: Story, events: Sequence[Event]) -> None:
    """Every message is of the communication, whether or not Twilio told anything of it by itself."""
    sids = {text.sid for text in story.sent}
    states = Counter(_FULFILMENT[word] for sid, word in story.account.states().items() if sid in sids)
    kinds = Counter(event.kind for event in events if event.message_id in sids)
    counted = await story.tenant.communication(COMMUNICATION)
    assert counted is not None
    assert {state: count for state, count in counted.fulfilment.items() if count} == states
    assert counted.events == kinds
    assert counted.messages == len(sids)
    stats = await story.tenant.client.stats(per="day", group_by=["kind"])
    total: Counter[str | None] = Counter()
    for row in stats.rows:
        total[row.kind] += row.events
    assert total == Counter(event.kind for event in events)


async def _check_suppressions(story: Story) -> None:
    """Whoever said STOP is suppressed, once, and nobody else."""

    async def heard() -> bool:
        rows = [row async for row in story.tenant.client.suppressions(standing="active", page_size=500)]
        found = Counter(row.address for row in rows)
        assert not found.keys() - set(story.stopped), "suppressed, and never said STOP"
        assert not found or max(found.values()) == 1, "suppressed twice"
        return found.keys() == set(story.stopped)

    await until("everybody who said STOP is suppressed", heard, within_s=30, pause_s=0.2)


async def processed(stack: Stack) -> None:
    """Return when every callback and every record in CALLBACKS has become events."""
    await drained(stack, within_s=600)


async def all_reports(story: Story) -> list[RunReport]:
    """Every report. Each adds up."""
    reports = [report async for report in story.client.reports()]
    for report in reports:
        counts = report.counts
        assert counts.seen == counts.known + counts.missing + counts.better + counts.unreadable, report
        assert counts.unreadable == 0, report
    return reports
