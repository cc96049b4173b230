"""The normalizer alone: from callbacks that wait in CALLBACKS to states in MongoDB and events in EVENTS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import floors
from backhaul_common.names import channel_key
from backhaul_testing.posts import Post
from installation import Installation
from normalized import Drained
from report import Report
from traffic import EVENTS_A_POST, Traffic

GROUP = 32
"""Callbacks that the gateway puts into one message when it is busy; a SendGrid post is a message of its own."""

_TENANTS = {
    "normalize-mix": ("Twilio", "SendGrid"),
    "normalize-twilio": ("Twilio",),
    "normalize-sendgrid": ("SendGrid",),
    "normalize-rcs": ("RCS",),
    "normalize-generic": ("Parcels",),
}
"""Whose callbacks are of which channels."""


@dataclass(frozen=True)
class Backlog:
    """Messages as the gateway stores them, each with its channel, and how many events they hold."""

    tenant: str
    messages: list[tuple[str, bytes]]
    events: int


@dataclass(frozen=True)
class Posted:
    """Posts of one channel that follow each other, and how many events they hold."""

    label: str
    posts: list[Post]
    events: int


def posted(traffic: Traffic, events: int, labels: Sequence[str]) -> list[Posted]:
    """About ``events`` events, as many of each of these channels, in turn."""
    made = []
    # In slices, so that one does not lie behind the other: the normalizer then gets a mix in every batch.
    slices = 20
    for _ in range(slices):
        for label in labels:
            posts, events_a_post = _posts(traffic, label, events // len(labels) // slices)
            made.append(Posted(label, posts, len(posts) * events_a_post))
    return made


async def backlog(site: Installation, tenant: str, posts: Sequence[Posted]) -> Backlog:
    """``posts`` as the gateway stores them of ``tenant``."""
    own = tenant, await site.registration(tenant)
    messages: list[tuple[str, bytes]] = []
    for one in posts:
        group = GROUP if one.events == len(one.posts) else 1
        stored = site.traffic.stored(*own, one.label, one.posts, group)
        messages += [(channel_key(one.label), message) for message in stored]
    return Backlog(tenant, messages, sum(one.events for one in posts))


def _posts(traffic: Traffic, label: str, events: int) -> tuple[list[Post], int]:
    """Posts of about so many events, and how many events each has."""
    if label == "SendGrid":
        return traffic.sendgrid(events // EVENTS_A_POST), EVENTS_A_POST
    makers = {"Twilio": traffic.twilio, "RCS": traffic.rcs, "Parcels": traffic.generic}
    return makers[label](events), 1


async def measure(site: Installation, report: Report, *, rounds: int, events: int) -> None:
    """``normalizer_vs_codecs`` and what belongs to it: the mix and its parts in turn, into an empty store."""
    await site.ensure("gateway", "normalizer")
    for tenant in _TENANTS:
        await site.register(tenant)
    backlogs = [
        await backlog(site, tenant, posted(site.traffic, events if len(labels) > 1 else events // 2, labels))
        for tenant, labels in _TENANTS.items()
    ]
    measured: dict[str, list[Drained]] = {tenant: [] for tenant in _TENANTS}
    least: list[float] = []
    for round_ in range(rounds):
        for waiting in backlogs:
            site.say(f"{waiting.tenant}, round {round_ + 1} of {rounds}")
            await site.stop("normalizer")
            await site.purge_callbacks()
            await site.prefill(waiting.tenant, waiting.messages)
            await site.forget()
            measured[waiting.tenant].append(await site.drain(waiting.events))
            if waiting is backlogs[0]:
                payloads = await floors.published(site, waiting.tenant, waiting.events)
                least.append(floors.decoded_us([message for _, message in waiting.messages], payloads))
    mix, twilio, sendgrid, rcs, generic = measured.values()
    note = f"half Twilio ({GROUP} callbacks a message), half SendGrid; CPU of the normalizer"
    _per_core(report, "normalize_events_per_core_s", mix, "≥ 40,000", note)
    ratios = [one.per_1000["normalizer"] * 1000 / us for one, us in zip(mix, least, strict=True)]
    report.add(
        "normalizer_vs_codecs",
        ratios,
        "ratio of CPU",
        aim="≤ 5",
        note="an event of the same mix, over parsing, decoding, serialising and encoding alone",
    )
    report.add("normalizer_codecs_us", least, "us / event", note="that floor")
    report.add("normalize_events_s", [one.per_second for one in mix], "events/s", note="by the clock, the same mix")
    _per_core(report, "normalize_twilio_events_per_core_s", twilio)
    _per_core(report, "normalize_sendgrid_events_per_core_s", sendgrid)
    _per_core(report, "normalize_rcs_events_per_core_s", rcs)
    _per_core(report, "normalize_generic_events_per_core_s", generic, note="a mapped webhook with an envelope")
    rows = {"mix": mix, "Twilio": twilio, "SendGrid": sendgrid, "RCS": rcs, "generic": generic}
    for name, runs in rows.items():
        report.cost(f"normalize, {name}", "events", [one.per_1000 for one in runs])
    await site.purge_callbacks()


def _per_core(report: Report, name: str, runs: Sequence[Drained], aim: str = "", note: str = "") -> None:
    report.add(name, [one.per_core_s for one in runs], "events / CPU s", aim=aim, note=note)
