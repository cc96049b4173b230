"""An upgrade from the version before and back, service by service, under load, with both versions running:
``python tests/upgrade/rolling.py [--before COMMIT] [--seed 7] [--keep FOLDER]``. Prints what happens, and whatever is
wrong. Ends with 0, and says why, where the version before is not to be had."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # As conftest.py does for tests.

from backhaul_local.scratch import scratch
from backhaul_local.service import default_services
from backhaul_local.stack import Stack
from backhaul_testing.apis.twilio import TwilioApi
from backhaul_testing.posts import ACCEPTED
from faults.storm import living, meanwhile
from faults.storm_account import Case, Verdict, judge
from faults.storm_stack import Storm
from upgrade.earlier import BEFORE, MissingError, checked_out
from upgrade.logged import errors
from upgrade.versions import ORDER, Versions, both, installed, names
from upgrade.witness import Witness, unlike

LIMIT_S = 870.0
"""Whatever hangs ends here."""

POSTS, POSTS_BOTH = 10, 40
"""Answered 200 after a service was replaced, and while both versions of one run."""

RESET_S = 3.0
FIRST, SECOND = "", "-2"


@dataclass
class Upgrade:
    """One of it. ``wrong`` is whatever was found, in words."""

    versions: Versions
    case: Case
    witness: Witness
    say: Callable[[str], None]
    wrong: list[str] = field(default_factory=list)
    resets: list[float] = field(default_factory=list)
    """When connections to the gateways were reset, as unix times in seconds."""
    began: float = field(default_factory=time.monotonic)

    async def there_and_back(self) -> None:
        """Service by service: its first copy, then both versions for a while, then its second; and the same back."""
        before, after = self.versions.before, self.versions.after
        await self.witness.hear()
        # While both run, the second copies are those of the version before, whichever way it goes.
        await self._roll(after, ORDER, FIRST, SECOND)
        await self.case.load.more(POSTS_BOTH)
        await self.witness.hear()
        await self._roll(before, ORDER[::-1], SECOND, FIRST)
        await self.witness.hear()

    async def _roll(self, to: Stack, services: Sequence[str], one: str, other: str) -> None:
        for name in services:
            await self._swap(f"{name}{one}", to)
            if name in names(self.versions.before):
                if name == "gateway":
                    self.resets.append(time.time())
                self.versions.connect_anew(name)
                await self.case.load.more(POSTS_BOTH)
            if name in ("normalizer", "gateway"):
                await self.witness.hear()
                await self._compare(name)
            await self._swap(f"{name}{other}", to)
            await self.case.load.more(POSTS)

    async def _swap(self, copy: str, to: Stack) -> None:
        at = time.time()
        await self.versions.swap(copy, to)
        took = time.time() - at
        pause = self.case.journal.longest_pause(at, at + took)
        version = "this version" if to is self.versions.after else "the version before"
        there = "" if copy in names(to) else ", which has none"
        self.tell(f"{copy} is of {version}{there}: {took:.1f} s, longest pause {pause:.1f} s")

    async def _compare(self, name: str) -> None:
        """What both versions answer of what either has written."""
        ask = self.witness.read if name == "gateway" else self.witness.read_normalizer
        old = await ask(self.versions.before, f"{name}{SECOND}")
        new = await ask(self.versions.after, f"{name}{FIRST}")
        found = [said for what in old for said in unlike(old[what], new.get(what), f"{name} {what}")]
        self.wrong += found
        self.tell(f"both answer the same to {len(old)} questions" if not found else f"they answer otherwise: {found}")

    def refused(self) -> Counter[int | str]:
        """Tries that were not answered 200, but for those on connections that were reset here: the next one on such a
        connection may begin a little later."""
        tries = self.case.journal.tries
        return Counter(
            outcome
            for outcome, began, ended in tries
            if outcome != ACCEPTED and not any(began - RESET_S <= reset <= ended for reset in self.resets)
        )

    def tell(self, line: str) -> None:
        """With the time."""
        self.say(f"{time.monotonic() - self.began:5.0f} s  {line}")


@dataclass(frozen=True, slots=True)
class Asked:
    """Which version it is from, and the seed of the load."""

    before: str
    seed: int


async def run(asked: Asked, earlier: Path, folder: Path, say: Callable[[str], None]) -> bool:
    """All of it, said line by line; whether nothing is wrong."""
    async with AsyncExitStack() as open_:
        api = open_.enter_context(TwilioApi(seed=asked.seed, latency_s=0.05))
        origins = {"https://api.twilio.com": api.url}
        versions = await open_.enter_async_context(both(folder, installed(earlier), default_services(), origins))
        weather = Storm(versions.before, {}, versions.address)
        case = await open_.enter_async_context(living(weather, api, seed=asked.seed))
        witness = Witness(await case.town.platform.register(), case.town.platform)
        upgrade = Upgrade(versions, case, witness, say)
        upgrade.tell(f"the version before runs: {', '.join(names(versions.before))}")
        await meanwhile(case, upgrade.there_and_back)
        upgrade.tell("gone back")
        verdicts = [await _judged(upgrade, "the version before", case)]
        for copy in names(versions.after):
            await versions.swap(copy, versions.after)
        verdicts.append(
            await _judged(upgrade, "this version", replace(case, storm=Storm(versions.after, {}, versions.address)))
        )
        upgrade.wrong += errors(service.log_path for service in (*versions.before.services, *versions.after.services))
    for wrong in upgrade.wrong:
        say(f"Wrong: {wrong}")
    tries = len(case.journal.tries)
    refused = ", ".join(f"{name}: {count}" for name, count in upgrade.refused().items())
    say(f"Tries: {tries}, of which not 200, but for connections that were reset on purpose: {refused or 'none'}")
    good = not upgrade.wrong and all(verdict.good for verdict in verdicts)
    say(f"{time.monotonic() - upgrade.began:.0f} s, {'good' if good else 'not good'}, seed {asked.seed}.")
    return good


async def _judged(upgrade: Upgrade, who: str, case: Case) -> Verdict:
    # What a gateway is not asked for by this name has none.
    described = await case.town.http.get(f"{case.storm.address}/openapi.json")
    verdict = await judge(case, with_overview="/v1/overview" in described.json()["paths"])
    upgrade.tell(f"by {who}: lost {len(verdict.lost)}, doubled {len(verdict.doubled)}")
    upgrade.say("Found: " + ", ".join(f"{name}: {count}" for name, count in verdict.counts.items()))
    for wrong in verdict.wrong:
        upgrade.say(f"Wrong, by {who}: {wrong}")
    return verdict


async def _bounded(asked: Asked, earlier: Path, folder: Path) -> bool:
    async with asyncio.timeout(LIMIT_S):
        return await run(asked, earlier, folder, partial(print, flush=True))


def main() -> int:
    """The exit code: 0 where nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default=BEFORE, help="a commit (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the load (default: %(default)s)")
    parser.add_argument("--keep", type=Path, default=None, help="a new folder for data and logs, which stays")
    given = parser.parse_args()
    asked = Asked(given.before, given.seed)
    try:
        earlier = checked_out(asked.before)
    except MissingError as exc:
        print(f"skipped: {exc}")
        return 0
    try:
        if given.keep is not None:
            return 0 if asyncio.run(_bounded(asked, earlier, given.keep.resolve())) else 1
        with scratch() as folder:
            return 0 if asyncio.run(_bounded(asked, earlier, folder)) else 1
    except TimeoutError:
        print(f"Not over within {LIMIT_S:g} s; seed {asked.seed}.")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
