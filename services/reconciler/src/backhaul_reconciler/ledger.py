"""How much may be asked of an account at a provider: arithmetic over a clock that it is given, in seconds.

A request counts for its minute from when it begins until a minute after it has ended. Wherever between its two ends the
provider counted it, so it never counts more of them in any minute than its budget allows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from random import uniform
from typing import Any, Final

from backhaul_channels.pull import Budget

MINUTE_S: Final = 60.5
"""A minute by the provider's clock, which may go a little faster than this one."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0
MAX_RETRY_AFTER_S: Final = 3600.0
"""For how long a provider may ask to be left alone; it is asked again then."""

_MORE_EVERY_S = 60.0

_MAX_DIGITS = 9
"""Of a number that a provider tells."""


class Ledger:
    """What one budget of an account still allows.

    Whoever asks waits until ``wait_s`` is 0, and tells with ``begin`` and ``end`` what it did. All numbers called
    ``now`` are of one clock that never goes back.
    """

    def __init__(
        self,
        budget: Budget,
        now: float,
        *,
        spent: bool = False,
        left: Mapping[str, Any] | None = None,
        left_s: float = 0.0,
        spread: Callable[[float, float], float] = uniform,
    ) -> None:
        """``spent``: nobody knows what was asked during the last minute, so it was all that may be. ``left`` is how
        another ledger of this budget was left, ``left_s`` seconds ago. ``spread`` draws a number between two."""
        self._per_minute = budget.per_minute
        self._most = budget.at_once
        self._busy_header = budget.busy_header
        self._busy_at = budget.busy_at
        self._at_once = budget.at_once
        self._changed_at = now
        self._running = 0
        self._ended: deque[float] = deque([now] * (budget.per_minute or 0) if spent else ())
        self._not_before = now
        self._failures = 0
        self._spread = spread
        if left is not None:
            self._ended = deque(now - left_s - ago_s for ago_s in left["ended_s"])
            self._at_once = max(1, min(self._most, left["at_once"]))
            self._changed_at = now - left_s - left["changed_s"]
            self._failures = left["failures"]

    def left(self, now: float) -> dict[str, Any]:
        """What whoever goes on must know, but for ``not_before``, as it can be stored: how long ago each request of the
        last minute has ended, and when ``at_once`` changed, in seconds."""
        return {
            "ended_s": [now - at for at in self._ended if now - at < MINUTE_S],
            "at_once": self.at_once(now),
            "changed_s": now - self._changed_at,
            "failures": self._failures,
        }

    @property
    def not_before(self) -> float:
        """Until when the provider wants to be left alone; a time that has passed where it does not."""
        return self._not_before

    def at_once(self, now: float) -> int:
        """How many requests may be under way."""
        grown = int((now - self._changed_at) / _MORE_EVERY_S)
        if grown > 0:
            self._at_once = min(self._most, self._at_once + grown)
            self._changed_at += grown * _MORE_EVERY_S
        return self._at_once

    def wait_s(self, now: float) -> float:
        """How long a request must wait; ``inf``: until one of those that are under way has ended."""
        while self._ended and self._ended[0] <= now - MINUTE_S:
            self._ended.popleft()
        if self._running >= self.at_once(now):
            return inf
        wait_s = max(0.0, self._not_before - now)
        if self._per_minute is not None:
            excess = self._running + len(self._ended) - self._per_minute
            if excess >= len(self._ended) and excess >= 0:
                return inf
            if excess >= 0:
                wait_s = max(wait_s, self._ended[excess] + MINUTE_S - now)
        return wait_s

    def begin(self) -> None:
        """A request begins."""
        self._running += 1

    def end(self, now: float) -> None:
        """One has ended, whatever came of it."""
        self._running -= 1
        if self._per_minute is not None:
            self._ended.append(now)

    def answered(self) -> None:
        """The provider answered what it was asked."""
        self._failures = 0

    def told(self, now: float, headers: Mapping[str, str]) -> None:
        """An answer, before it counts as ended, had these headers; names are in lower case.

        Where it tells how many requests of the account are under way, as many of ours may be as there is room below
        ``Budget.busy_at`` beside everybody else's, and one in any case. As after a refusal there may be one more a
        minute, unless another answer says that there is no room.
        """
        under_way = headers.get(self._busy_header, "") if self._busy_header else ""
        if not (under_way.isascii() and under_way.isdecimal()) or len(under_way) > _MAX_DIGITS:
            return
        others = max(0, int(under_way) - self._running)
        room = max(1, self._busy_at - others)
        if room <= self.at_once(now):
            self._at_once, self._changed_at = room, now

    def later(self, now: float, retry_after_s: float | None) -> None:
        """The provider cannot answer now."""
        self._failures += 1
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10))
        pause_s = self._spread(pause_s / 2, pause_s)
        if retry_after_s is not None:
            # Not exactly then either: it may have told many the same.
            pause_s = max(pause_s, min(retry_after_s, MAX_RETRY_AFTER_S) * self._spread(1.0, 1.1))
        self._not_before = max(self._not_before, now + pause_s)

    def too_often(self, now: float, retry_after_s: float | None) -> None:
        """The provider was asked too often, or for too much at once."""
        # What was asked together is refused together: it is told once.
        if self._failures == 0 or now >= self._not_before:
            self._at_once = max(1, self.at_once(now) // 2)
        self._changed_at = now
        self.later(now, retry_after_s)

    def leave_until(self, not_before: float) -> None:
        """Another copy was told that the provider wants to be left alone until then."""
        self._not_before = max(self._not_before, not_before)
