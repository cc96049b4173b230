"""What Twilio kept to itself: found by asking its API, for which a simulator stands in, as for its callbacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

import httpx
from backhaul_client import AsyncAdminClient
from backhaul_client.models import Message
from backhaul_client.reconciliationmodels import Day, RunReport
from backhaul_client.statusmodels import ChannelStatus
from backhaul_client.suppressionmodels import Checked
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi
from backhaul_testing.apis.twilio_scenario import TwilioScenario
from backhaul_testing.posts import over

from backhaul_local.demo_asking import Account, if_there, poll

LABEL: Final = "Alerts"
"""The channel whose provider is asked."""

SILENT: Final = "Coupons"
"""The channel on which Acme sends, and hears nothing: Twilio has another address of it, say."""

RUN: Final = "POST /v1/reconciliation/runs"

ASKED: Final[Mapping[str, Any]] = {"reconcile": {"calls": True}}

CALLED = ("+15005550151", "+15005550152", "+15005550153")
"""Whom Acme called the day before yesterday. Twilio told of each call, and when it happened."""

REPLIER = "+15005550164"
"""Who writes STOP, and whose reply is lost on the way."""

_AGO: Final = timedelta(minutes=1)
_SENT_AGO: Final = timedelta(minutes=20)
"""Callbacks come within seconds; that one is missing is said when something was sent five minutes ago."""

_SILENT_SID: Final = "SM9e52436bfad781caea41738f0ab4253d"


@dataclass(frozen=True)
class Alert:
    """A message over ``LABEL``. ``withheld`` are Twilio's words that no callback told; ``before`` and ``after`` is what
    must be known of it before the provider is asked, and then."""

    story: str
    to: str
    outcome: str
    withheld: tuple[str, ...]
    before: str
    after: str


ALERTS = (
    Alert("a text, and Twilio tells all of it", "+15005550161", "delivered", (), "delivered", "delivered"),
    Alert("a text, and “delivered” is lost", "+15005550162", "delivered", ("delivered",), "sent", "delivered"),
    Alert(
        "a text, and “undelivered” is lost",
        "+15005550163",
        "undelivered",
        ("undelivered",),
        "sent",
        "undelivered, error 30003",
    ),
    Alert("somebody replies STOP, which is lost", REPLIER, "received", ("received",), "not there", "inbound"),
)

MISSING = sum(len(alert.withheld) for alert in ALERTS)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The channels are there, and Twilio may be asked. ``day`` is the one before yesterday, as the API names it."""

    scenario: TwilioScenario
    day: str
    statuses: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """What was found by asking. ``before`` and ``after`` say of each of ``ALERTS`` what was known; ``writer`` is
    whether ``REPLIER`` may be contacted afterwards. ``day`` is the account of ``day_name``, ``silent`` the status of
    the channel ``SILENT``."""

    lost: int
    before: Sequence[str]
    report: RunReport
    after: Sequence[str]
    writer: Checked
    differences: int
    day_name: str
    day: Day | None
    silent: ChannelStatus


def origins(api: TwilioApi) -> Mapping[str, str]:
    """Settings of the reconciler that has Twilio's API asked where its simulator listens."""
    return {"BACKHAUL_RECONCILER_ORIGINS": json.dumps({"https://api.twilio.com": api.url})}


async def open_channels(
    http: httpx.AsyncClient, address: str, platform: AsyncAdminClient, account: TwilioAccount, acme: Account
) -> Opened:
    """Open both channels; Twilio posts to ``address`` what happened the day before yesterday, and is asked from now on.

    What was sent on the other one is told by Acme, as every sender may.
    """
    scenario = TwilioScenario(account, address)
    own: dict[str, Any] = {"provider": "twilio", "secrets": [account.auth_token], "verification": "enforce"}
    for label, settings in ((LABEL, ASKED), (SILENT, {})):
        await platform.put_channel(acme.tenant.id, label, **own, settings=settings)
    now = scenario.clock.now()
    await acme.client.report_sends(
        [{"channel": SILENT, "message_id": _SILENT_SID, "recipient": REPLIER, "sent_at": now - _SENT_AGO}]
    )
    noon = (now - timedelta(days=2)).replace(hour=12, minute=0, second=0, microsecond=0)
    calls = [scenario.call(person, at=noon) for person in CALLED]
    posted = await scenario.post(over(http))
    for call in calls:
        await poll(partial(_message, acme, call.sid), partial(_has, len(call.steps)))
    access = {"account_sid": account.sid, "auth_token": account.auth_token}
    await platform.put_channel(acme.tenant.id, LABEL, pull_credentials=access)
    return Opened(
        scenario=scenario,
        day=f"{noon:%Y-%m-%d}",
        statuses=[status for one in posted.sendings for status in one.outcomes if isinstance(status, int)],
    )


async def reconcile(http: httpx.AsyncClient, acme: Account, opened: Opened) -> Reconciled:
    """Have callbacks lost, and ask Twilio."""
    scenario, asked = opened.scenario, acme.client.reconciliation

    async def reports() -> list[RunReport]:
        return [report async for report in asked.reports(channel=LABEL)]

    # The first run by itself closes the day, and must not find what the one that is shown is to find.
    await poll(reports, lambda seen: bool(seen) and all(report.state != "running" for report in seen))
    at, sids = scenario.clock.now() - _AGO, []
    for alert in ALERTS:
        if alert.outcome == "received":
            sids.append(scenario.reply("STOP", sender=alert.to, at=at, withhold=alert.withheld).sid)
        else:
            sids.append(scenario.text(alert.to, alert.outcome, at=at, withhold=alert.withheld).sid)
    await scenario.post(over(http))

    async def known() -> list[str]:
        return [_told_of(await _message(acme, sid)) for sid in sids]

    before = await poll(known, lambda seen: seen == [alert.before for alert in ALERTS])
    report = [one async for one in asked.run(LABEL)][-1]
    return Reconciled(
        lost=len(scenario.withheld),
        before=before,
        report=report,
        after=await poll(known, lambda seen: seen == [alert.after for alert in ALERTS]),
        writer=await poll(lambda: acme.client.check(REPLIER), lambda checked: not checked.allowed),
        differences=len([one async for one in asked.differences(channel=LABEL)]),
        day_name=opened.day,
        day=await if_there(asked.day(LABEL, opened.day)),
        silent=await poll(lambda: acme.client.channel_status(SILENT), lambda seen: seen.state == "Error"),
    )


def told_of_day(day: Day | None) -> str:
    """The account of a day, in one line."""
    if day is None:
        return "not looked at"
    return f"{day.state.replace('_', ' ')}: {day.equal} of {day.provider_messages} are equal"


def told_of_silence(status: ChannelStatus) -> str:
    """What the status says of callbacks, in one line."""
    callbacks = status.parts.callbacks
    return f"{callbacks.state}: {(callbacks.silence or '').replace('_', ' ')}"


async def _message(acme: Account, sid: str) -> Message | None:
    return await if_there(acme.client.message(LABEL, sid))


def _has(events: int, message: Message | None) -> bool:
    return message is not None and message.event_count == events


def _told_of(message: Message | None) -> str:
    if message is None:
        return "not there"
    return f"{message.state}" + (f", error {message.error_code}" if message.error_code else "")
