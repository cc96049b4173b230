"""What goes wrong in a storm, where, when and for how long: drawn from a seed before it begins."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count, islice

EVERY_S = 3.2
"""Seconds between two faults, on average. Most last longer, so that some are always at the same time."""

SHORT_S, LONG_S = (1.0, 6.0), (12.0, 24.0)
"""How long faults last. The long ones outlive leases."""

_LONG_ONE_IN = 6


class Fault(StrEnum):
    """What can happen to a process."""

    KILLED = "killed"
    """kill -9, and it is started again."""
    FROZEN = "frozen"
    """SIGSTOP, and SIGCONT."""
    CUT = "cut"
    """All its connections are reset, and no new ones are let through."""
    SILENT = "black hole"
    """Its connections stay open, and carry nothing."""
    SLOW = "slow"
    """Its connections are slow, and carry little."""


@dataclass(frozen=True, slots=True)
class Planned:
    """``at`` seconds from the beginning ``target`` is in trouble, for ``lasts_s``."""

    at: float
    fault: Fault
    target: str
    lasts_s: float

    @property
    def ends(self) -> float:
        """When it is over."""
        return self.at + self.lasts_s

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.fault:<10}  {self.target:<14}  for {self.lasts_s:4.1f} s"


def all_after(targets: Sequence[str], *, every_s: float = EVERY_S) -> float:
    """Seconds that it takes until everything has happened to each of ``targets``."""
    return every_s * len(targets) * len(Fault)


def draw(seed: int, targets: Sequence[str], seconds: float, *, every_s: float = EVERY_S) -> list[Planned]:
    """The faults of ``seconds``, in their order. By the first ``len(targets)`` each target is met once and, where these
    are enough, each fault; later nothing happens to one again before everything else has. Of one target no two are at
    once."""
    dice = random.Random(seed)  # noqa: S311  # a storm that can be repeated, no secret
    left = list(islice(_pairs(dice, targets), round(seconds / every_s)))
    free = dict.fromkeys(targets, 0.0)
    plan: list[Planned] = []
    for number in range(len(left)):
        at = (number + dice.random()) * every_s
        # Whoever has trouble already has his turn later; where all of them have, the first one is waited for.
        place = next((place for place, (_, target) in enumerate(left) if free[target] <= at), 0)
        fault, target = left.pop(place)
        at = max(at, free[target])
        lasts_s = min(dice.uniform(*(LONG_S if dice.randrange(_LONG_ONE_IN) == 0 else SHORT_S)), seconds)
        plan.append(Planned(round(at, 1), fault, target, round(lasts_s, 1)))
        free[target] = plan[-1].ends + 0.1
    return sorted(plan, key=lambda one: one.at)


def _pairs(dice: random.Random, targets: Sequence[str]) -> Iterator[tuple[Fault, str]]:
    for around in count():
        if around % len(Fault) == 0:
            order = dice.sample(list(Fault), len(Fault))
            first = {target: number for number, target in enumerate(dice.sample(list(targets), len(targets)))}
        for target in dice.sample(list(targets), len(targets)):
            yield order[(first[target] + around) % len(Fault)], target
