"""What a provider's API may do wrong, switched on by name and drawn by a seed."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Name = Literal[
    "too_many_requests",
    "errors",
    "slow",
    "truncated",
    "cut",
    "endless",
    "iso_dates",
    "late",
    "growing",
    "vanishing",
    "circular",
]
"""
| name | what happens |
|---|---|
| ``too_many_requests`` | 429, in a storm, though no limit is reached |
| ``errors`` | ``status``, a 5xx, with the provider's error or with a proxy's page |
| ``slow`` | the answer comes ``seconds`` later, by the machine's time |
| ``truncated`` | the JSON ends in its middle, though HTTP says that it is whole |
| ``cut`` | the connection ends in the middle of the body |
| ``endless`` | the body never ends |
| ``iso_dates`` | dates are in ISO 8601 where RFC 2822 is documented |
| ``late`` | lists show what happened ``seconds`` ago, by the clock, and nothing newer |
| ``growing`` | ``rows`` new rows arrive between two pages, and as many are repeated |
| ``vanishing`` | ``rows`` rows of a page that was read are deleted, and as many of the next are skipped |
| ``circular`` | the next page names the page itself |
"""

EVERYWHERE: Final = frozenset({"too_many_requests", "errors", "slow", "truncated", "cut", "endless", "late"})
"""Those that every API knows."""


@dataclass(slots=True)
class Fault:
    """One that is on: in ``share`` of the answers of ``route`` (of all, where it is None), ``times`` at most."""

    name: Name
    share: float
    times: int | None
    route: str | None
    seconds: float
    status: int
    rows: int
    dice: random.Random
    struck: int = field(default=0)
    """How often it has happened."""


class Faults:
    """Those that are on. Each has dice of its own, so that switching one on does not move another."""

    def __init__(self, seed: int, known: frozenset[str]) -> None:
        self._seed = seed
        self._known = known
        self._lock = threading.Lock()
        self._on: dict[str, Fault] = {}

    def switch_on(
        self,
        name: Name,
        *,
        share: float = 1.0,
        times: int | None = None,
        route: str | None = None,
        seconds: float = 1.0,
        status: int = 500,
        rows: int = 1,
    ) -> Fault:
        """The fault ``name``. ValueError for one that this API cannot have, or a share beyond 0 to 1."""
        if name not in self._known:
            raise ValueError(
                f"{name!r} is nothing that this API can do wrong: choose of {', '.join(sorted(self._known))}"
            )
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share:g}: give a part of all answers, 0 to 1")
        dice = random.Random(f"{self._seed}/{name}")  # noqa: S311  # a reproducible mix, no secret.
        fault = Fault(name, share, times, route, seconds, status, rows, dice)
        with self._lock:
            self._on[name] = fault
        return fault

    def switch_off(self, *names: Name) -> None:
        """``names``; all of them, where there are none."""
        with self._lock:
            for name in names or get_args(Name):
                self._on.pop(name, None)

    def on(self, name: Name) -> Fault | None:
        """``name``, where it is on at all; the dice stay."""
        with self._lock:
            return self._on.get(name)

    def strike(self, name: Name, route: str) -> Fault | None:
        """``name``, where it happens to this answer of ``route``."""
        with self._lock:
            fault = self._on.get(name)
            if fault is None or fault.route not in (None, route) or fault.struck == fault.times:
                return None
            if fault.dice.random() >= fault.share:
                return None
            fault.struck += 1
            return fault
