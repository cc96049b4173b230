"""The account of a storm: what was answered against what is there, each claim by itself, and a table of both."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter, defaultdict
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from backhaul_testing import broker, streams
from backhaul_testing.posts import ACCEPTED
from backhaul_testing.waiting import until
from faults import account, copies, filed, receivers, truth
from faults.alike import alike
from simulators.recounting import recounted

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from faults.receivers import Place, Receivers
    from faults.storm_stack import Happened, Storm
    from faults.truth import Story
    from simulators.load import Key, Load
    from simulators.optouts import OptOuts
    from simulators.people import Tenant, Town

DRAINED_S = 150.0
"""So long after the last fault everything has been processed, or something is stuck."""

LEAST_S = 10.0
MAX_SAID = 2000
"""Letters of what is said of one claim."""


@dataclass
class Journal:
    """Every try of a load: its outcome, and when it began and ended, as unix times in seconds."""

    tries: list[tuple[int | str, float, float]] = field(default_factory=list)

    def note(self, outcome: int | str, began: float, ended: float) -> None:
        self.tries.append((outcome, began, ended))

    def during(self, began: float, ended: float) -> list[int | str]:
        """The outcomes of tries of which a part was in this time."""
        return [outcome for outcome, first, last in self.tries if last >= began and first <= ended]

    def longest_pause(self, began: float, ended: float) -> float:
        """The longest time between two answers 200 of which a part was in this time."""
        answers = sorted(last for outcome, _, last in self.tries if outcome == ACCEPTED)
        return max(
            (after - before for before, after in pairwise(answers) if before <= ended and after >= began), default=0
        )


@dataclass(frozen=True)
class Verdict:
    """``lost`` were answered 200 and have no event, ``doubled`` have several; ``wrong`` is whatever else was found, in
    words. ``counts`` are how much there was to find."""

    lost: Collection[Key]
    doubled: Collection[Key]
    wrong: Sequence[str]
    counts: Mapping[str, int]

    @property
    def good(self) -> bool:
        """Whether nothing is wrong, of something of each kind: a claim about nothing holds always."""
        return not (self.lost or self.doubled or self.wrong) and all(self.counts.values())


@dataclass(frozen=True)
class Case:
    """Who called whom in a storm. ``loaded`` have callbacks, ``screened`` has people who opt out, and the account of
    ``story`` is asked by the reconciler, if there is one."""

    storm: Storm
    town: Town
    loaded: Sequence[Tenant]
    screened: Tenant
    story: Story | None
    places: Sequence[Place]
    receivers: Receivers
    load: Load
    people: OptOuts
    journal: Journal


async def judge(case: Case, *, drained_s: float = DRAINED_S, with_overview: bool = True) -> Verdict:
    """Wait until everything that was answered is processed, and account for it."""
    stack = case.storm.stack
    wrong: list[str] = []
    counts: Counter[str] = Counter(answered=len(case.load.answered))
    loop = asyncio.get_running_loop()
    ends = loop.time() + drained_s

    def left_s() -> float:
        # What comes after something that is stuck is looked at, and hardly waited for.
        return max(ends - loop.time(), LEAST_S)

    async def hold(claim: str, found: Awaitable[int]) -> None:
        try:
            counts[claim] += await found
        except Exception as exc:  # noqa: BLE001  # Whatever it is, the claim does not hold, and hides no other.
            wrong.append(f"{claim}: {''.join(traceback.format_exception(exc, limit=-1))}"[:MAX_SAID])

    await hold("processed", _processed(stack, left_s()))
    lost, doubled = await reckon(case)
    for tenant in case.loaded:
        await hold("events, messages and communications", _settled(stack, case.load, tenant))
        await hold("lists, counts and EVENTS", _alike(stack, tenant))
        await hold("recounts", _recounted(case.load, tenant))
    await hold("audit files and digests", filed.settle(stack, *case.loaded))
    for place in case.places:
        await hold("deliveries", _delivered(stack, case.receivers, place, left_s()))
    asked = [] if case.story is None else [case.story]
    for story in asked:
        await hold("what Twilio tells", _like_twilio(stack, story))
    for tenant in (*case.loaded, case.screened, *(story.tenant for story in asked)) if with_overview else ():
        await hold("overview", _overview(tenant, left_s()))
    await hold("suppressions", _screened(case))
    return Verdict(lost, doubled, wrong, counts)


async def reckon(case: Case) -> tuple[set[Key], set[Key]]:
    """What was answered and is nowhere, and what is there several times."""
    lost: set[Key] = set()
    doubled: set[Key] = set()
    for tenant in case.loaded:
        stored = Counter(account.key_of(tenant, row) for row in await tenant.events(page_size=500))
        lost |= {key for key in case.load.answered if key[0] == tenant.id} - stored.keys()
        doubled |= {key for key, count in stored.items() if count > 1}
    return lost, doubled


async def _processed(stack: Stack, within_s: float) -> int:
    await copies.heard(stack, within_s=within_s)
    return 1


async def _settled(stack: Stack, load: Load, tenant: Tenant) -> int:
    return (await account.settle(stack, load, tenant)).events


async def _alike(stack: Stack, tenant: Tenant) -> int:
    return len((await alike(stack, tenant))[tenant.id])


async def _recounted(load: Load, tenant: Tenant) -> int:
    """Each communication counts what is listed in it, by the audit service's own recount too."""
    names = {fact.communication for key, fact in load.attempted.items() if key[0] == tenant.id}
    events = 0
    for name in sorted(names):
        found = await recounted(tenant, name)
        assert found.equal, f"{name} of {tenant.id}: {found}"
        events += found.events
    return events


async def _delivered(stack: Stack, endpoints: Receivers, place: Place, within_s: float) -> int:
    connection = await broker.connect(stack.nats_url)
    try:
        published = await streams.published(connection)
    finally:
        await connection.close()
    events = {(event.id, event.revision) for event in published if event.tenant_id == place.tenant.id}
    deliveries = await receivers.told(place, events, within_s=within_s)
    receivers.check_calls(endpoints.of(place.path), deliveries)
    return len(deliveries)


async def _like_twilio(stack: Stack, story: Story) -> int:
    await story.ask()
    await truth.processed(stack)
    return (await truth.settle(stack, story)).events


async def _overview(tenant: Tenant, within_s: float) -> int:
    """Nothing is left to be done for anybody, and nobody is away."""

    async def probe() -> bool:
        seen = await tenant.client.overview()
        left = (seen.spooled, seen.held, seen.dead_letters.open, seen.deliveries.waiting, seen.deliveries.failed)
        assert not seen.dead_letters.open, f"dead letters of {tenant.id}"
        return not any(left) and not seen.away

    await until(f"an overview of {tenant.id} that has nothing left to do", probe, within_s=within_s, pause_s=0.5)
    return 1


async def _screened(case: Case) -> int:
    stack, tenant = case.storm.stack, case.screened
    async with copies.asked(stack, case.town.platform, "suppression", "suppression-2") as both:
        return await copies.settle(stack, both, case.people, tenant)


COLUMNS = ("target", "fault", "times", "tries", "200", "not 200", "longest pause", "lost", "doubled")
WIDTHS = (14, 10, 5, 6, 6, 7, 13, 4, 7)


def table(case: Case, verdict: Verdict) -> Iterator[str]:
    """The faults, and what came of what was sent meanwhile. What was sent during several counts for each."""
    groups: dict[tuple[str, str], list[Happened]] = defaultdict(list)
    for one in case.storm.happened:
        groups[one.planned.target, one.planned.fault].append(one)
    yield _line(COLUMNS)
    for (target, fault), times in sorted(groups.items()):
        outcomes = [outcome for one in times for outcome in case.journal.during(one.began, one.ended)]
        answered = sum(outcome == ACCEPTED for outcome in outcomes)
        pause = max(case.journal.longest_pause(one.began, one.ended) for one in times)
        lost, doubled = (
            sum(_during(case.load, key, times) for key in keys) for keys in (verdict.lost, verdict.doubled)
        )
        refused = len(outcomes) - answered
        yield _line((target, fault, len(times), len(outcomes), answered, refused, f"{pause:.1f} s", lost, doubled))
    tries = Counter(outcome == ACCEPTED for outcome, _, _ in case.journal.tries)
    whole = case.journal.longest_pause(0, float("inf"))
    sums = (tries.total(), tries[True], tries[False], f"{whole:.1f} s", len(verdict.lost), len(verdict.doubled))
    yield _line(("all", "", len(case.storm.happened), *sums))


def _during(load: Load, key: Key, times: Sequence[Happened]) -> bool:
    answered = load.answered.get(key)
    return answered is not None and any(one.began <= answered.timestamp() <= one.ended for one in times)


def _line(cells: Sequence[object]) -> str:
    return "  ".join(
        f"{cell!s:<{width}}" for cell, width in zip(cells, (14, 10, 5, 6, 6, 7, 13, 4, 7), strict=True)
    ).rstrip()
