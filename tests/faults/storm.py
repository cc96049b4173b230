"""A load on two copies of every service while each of them, and each server, is killed, frozen, cut off and slowed:
``python tests/faults/storm.py [--seed 7] [--seconds 240] [--every 3.2]``. Prints the plan, a table, and
whatever is wrong."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # As conftest.py does for tests.

from backhaul_local.scratch import scratch
from backhaul_testing.apis.twilio import TwilioApi
from faults.receivers import KINDS, POLICY, Place, receiving
from faults.storm_account import Case, Journal, Verdict, judge, table
from faults.storm_schedule import EVERY_S, Planned, all_after, draw
from faults.storm_stack import Storm, storm
from faults.truth import Asking, Story
from simulators.archive import ask_for_files
from simulators.load import Load
from simulators.optouts import OptOuts
from simulators.people import Tenant, Town

LIMIT_S = 870.0
"""Whatever hangs ends here."""

MAX_SECONDS = 600
CONNECTIONS, PAUSE_S = 4, 0.15
PEOPLE, PEOPLE_EVERY_S = 4, 3.0
TEXTS, TEXTS_EVERY_S = 6, 3.0


@asynccontextmanager
async def raging(folder: Path, *, seed: int) -> AsyncIterator[Case]:
    """Everything runs in ``folder``, and is called by those of ``living``."""
    with TwilioApi(seed=seed, latency_s=0.05) as api:
        async with (
            storm(folder, {"https://api.twilio.com": api.url}) as weather,
            living(weather, api, seed=seed) as case,
        ):
            yield case


@asynccontextmanager
async def living(weather: Storm, api: TwilioApi, *, seed: int) -> AsyncIterator[Case]:
    """Two tenants have callbacks, of which one is told of each message in its order and the other in batches; one has
    people who opt out; and of one the account is asked for what nobody told of it. Where there is no notifier nobody is
    told, and where there is no reconciler nobody asked."""
    async with AsyncExitStack() as open_:
        stack = weather.stack
        modules = {service.spec.module for service in stack.services}
        town = await open_.enter_async_context(Town(weather.address, stack.admin_token))
        endpoints = await open_.enter_async_context(receiving(stack))
        endpoints.copies = ()  # Which of them calls is of no interest here.
        loaded = [await town.platform.register() for _ in range(2)]
        for tenant, gzip in zip(loaded, (False, True), strict=True):
            await ask_for_files(town.platform, tenant, with_event=True, gzip=gzip)
        kinds = zip(loaded, ("ordered", "batched"), strict=True) if "backhaul_notifier" in modules else ()
        places = [await _place(endpoints.url, tenant, kind) for tenant, kind in kinds]
        screened = await town.platform.register()
        story = await Asking(stack, town, api).story() if "backhaul_reconciler" in modules else None
        journal = Journal()
        load = Load(loaded, seed=seed, connections=CONNECTIONS, pause_s=PAUSE_S, heard=journal.note)
        people = OptOuts([screened], seed=seed)
        yield Case(weather, town, loaded, screened, story, places, endpoints, load, people, journal)


async def _place(url: Callable[[str], str], tenant: Tenant, kind: str) -> Place:
    path = f"/{tenant.id}/{kind}"
    made = await tenant.client.subscriptions.create(
        ["message.*"], http={"url": url(path)}, policy=POLICY, **KINDS[kind]
    )
    return Place(tenant, path, made, kind == "ordered")


async def blow(case: Case, plan: Sequence[Planned]) -> None:
    """Callbacks flow until all of ``plan`` has happened, and everything runs again."""
    await meanwhile(case, lambda: case.storm.carry_out(plan))


async def meanwhile(case: Case, work: Callable[[], Awaitable[None]]) -> None:
    """Callbacks flow until ``work`` is done, and a few more."""
    async with case.load, case.people:
        await case.load.more(10)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(_opt_out(case.people, over))
            if case.story is not None:
                group.create_task(_write(case.story, over))
            await work()
            over.set()
        await case.load.more(50)


async def _opt_out(people: OptOuts, over: asyncio.Event) -> None:
    while not over.is_set():
        await people.more(PEOPLE, within_s=LIMIT_S)
        await _pause(over, PEOPLE_EVERY_S)  # There are enough of them, and all are read in the end.


async def _write(story: Story, over: asyncio.Event) -> None:
    """Messages of which Twilio tells half of what it should."""
    while not over.is_set():
        await story.send(TEXTS, stops=1, silent_stops=1)
        await story.post(every=2)
        await _pause(over, TEXTS_EVERY_S)


async def _pause(over: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)


@dataclass(frozen=True, slots=True)
class Asked:
    """``seconds`` of faults, one in ``every_s``; None: until all have happened."""

    seed: int
    seconds: float | None
    every_s: float


async def run(asked: Asked, folder: Path, say: Callable[[str], None]) -> Verdict:
    """All of it, said line by line."""
    seed, every_s = asked.seed, asked.every_s
    began = time.monotonic()
    async with raging(folder, seed=seed) as case:
        targets = case.storm.targets
        seconds = asked.seconds or min(all_after(targets, every_s=every_s), MAX_SECONDS)
        plan = draw(seed, targets, seconds, every_s=every_s)
        say(f"Seed {seed}: {len(plan)} faults, one in {every_s:g} s.")
        for planned in plan:
            say(str(planned))
        await blow(case, plan)
        say(f"{time.monotonic() - began:.0f} s: the faults are over.")
        verdict = await judge(case)
        for line in table(case, verdict):
            say(line)
    say("Not 200: " + (_words(case.load.failures) or "none"))
    say("Found: " + _words(verdict.counts))
    for wrong in verdict.wrong:
        say(f"Wrong: {wrong}")
    say(f"{time.monotonic() - began:.0f} s, lost {len(verdict.lost)}, doubled {len(verdict.doubled)}, seed {seed}.")
    return verdict


def _words(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


async def _bounded(asked: Asked, folder: Path) -> Verdict:
    async with asyncio.timeout(LIMIT_S):
        return await run(asked, folder, lambda line: print(line, flush=True))


def main() -> int:
    """The exit code: 0 where nothing was lost or doubled, and everything else is true too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="what repeats a plan (default: any)")
    parser.add_argument("--seconds", type=float, default=None, help="of faults (default: until all have happened)")
    parser.add_argument(
        "--every", type=float, default=EVERY_S, help="seconds between two faults (default: %(default)g)"
    )
    parser.add_argument("--keep", type=Path, default=None, help="a new folder for data and logs, which stays")
    given = parser.parse_args()
    if given.seconds is not None and not 0 < given.seconds <= MAX_SECONDS:
        parser.error(f"--seconds is above 0, and {MAX_SECONDS} at most")
    if not given.every > 0:
        parser.error("--every is above 0")
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    asked = Asked(seed, given.seconds, given.every)
    try:
        if given.keep is not None:
            return _code(asyncio.run(_bounded(asked, given.keep.resolve())))
        with scratch() as folder:
            return _code(asyncio.run(_bounded(asked, folder)))
    except TimeoutError:
        print(f"Not over within {LIMIT_S:g} s; seed {seed}.")
        return 1


def _code(verdict: Verdict) -> int:
    return 0 if verdict.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
