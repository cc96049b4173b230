"""The normalizer alone: from callbacks that wait in CALLBACKS to states in MongoDB and events in EVENTS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from installation import Drained, Installation
from report import Report
from traffic import EVENTS_A_POST

GROUP = 32
"""Callbacks that the gateway puts into one message when it is busy; a SendGrid post is a message of its own."""

_TENANTS = {"normalize-mix": (1, 1), "normalize-twilio": (1, 0), "normalize-sendgrid": (0, 1)}


@dataclass(frozen=True)
class Backlog:
    """Messages as the gateway stores them, each with its channel, and how many events they hold."""

    tenant: str
    messages: list[tuple[str, bytes]]
    events: int


async def backlog(site: Installation, tenant: str, events: int, shares: tuple[int, int]) -> Backlog:
    """About ``events`` events of ``tenant``, Twilio's and SendGrid's in turn.

    ``shares``: how many parts are Twilio's and how many are SendGrid's.
    """
    own = tenant, await site.registration(tenant)
    twilio = events * shares[0] // sum(shares)
    posts = events * shares[1] // sum(shares) // EVENTS_A_POST
    messages: list[tuple[str, bytes]] = []
    count = 0
    # In slices, so that one does not lie behind the other: the normalizer then gets a mix in every batch.
    slices = 20
    for _ in range(slices):
        if twilio:
            requests = site.traffic.twilio(twilio // slices)
            messages += [("twilio", one) for one in site.traffic.stored(*own, "twilio", requests, GROUP)]
            count += len(requests)
        if posts:
            requests = site.traffic.sendgrid(posts // slices)
            messages += [("sendgrid", one) for one in site.traffic.stored(*own, "sendgrid", requests, 1)]
            count += len(requests) * EVENTS_A_POST
    return Backlog(tenant, messages, count)


async def measure(site: Installation, report: Report, *, rounds: int, events: int) -> None:
    """``normalize_events_per_core_s`` and what belongs to it: the mix and its parts in turn, into an empty store."""
    await site.ensure("gateway", "normalizer")
    for tenant in _TENANTS:
        await site.register(tenant)
    backlogs = [
        await backlog(site, tenant, events if all(shares) else events // 2, shares)
        for tenant, shares in _TENANTS.items()
    ]
    measured: dict[str, list[Drained]] = {tenant: [] for tenant in _TENANTS}
    for round_ in range(rounds):
        for waiting in backlogs:
            site.say(f"{waiting.tenant}, round {round_ + 1} of {rounds}")
            await site.stop("normalizer")
            await site.purge_callbacks()
            await site.prefill(waiting.tenant, waiting.messages)
            await site.forget()
            measured[waiting.tenant].append(await site.drain(waiting.events))
    mix, twilio, sendgrid = measured.values()
    note = f"half Twilio ({GROUP} callbacks a message), half SendGrid; CPU of the normalizer"
    _per_core(report, "normalize_events_per_core_s", mix, "≥ 40,000", note)
    report.add("normalize_events_s", [one.per_second for one in mix], "events/s", note="by the clock, the same mix")
    _per_core(report, "normalize_twilio_events_per_core_s", twilio)
    _per_core(report, "normalize_sendgrid_events_per_core_s", sendgrid)
    for name, runs in (("mix", mix), ("Twilio", twilio), ("SendGrid", sendgrid)):
        report.cost(f"normalize, {name}", "events", [one.per_1000 for one in runs])
    await site.purge_callbacks()


def _per_core(report: Report, name: str, runs: Sequence[Drained], aim: str = "", note: str = "") -> None:
    report.add(name, [one.per_core_s for one in runs], "events / CPU s", aim=aim, note=note)
