"""How fast an endpoint is called, and by how many calls at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from backhaul_common.limits import TokenBucket

CONCURRENCY: Final = 8
"""Calls at once of a subscription that does not say."""

_BURST_S: Final = 0.05
"""What was not called in time is made up for within a bound that no endpoint feels: timers are late now and then."""


class Pace:
    """What a subscription allows, and less of it after an endpoint has asked for less. ``clock`` gives seconds."""

    __slots__ = ("_bucket", "_clock", "_concurrency", "_rate", "_slow", "_slow_until")

    def __init__(self, clock: Callable[[], float], slow_until: float = 0.0) -> None:
        """``slow_until`` is how long an endpoint has asked for less, as a copy before has heard it."""
        self._clock = clock
        self._rate = 0
        self._concurrency = CONCURRENCY
        self._bucket: TokenBucket | None = None
        self._slow = TokenBucket(1.0, 1, clock)
        self._slow_until = slow_until

    def allow(self, rate_per_s: int, concurrency: int) -> None:
        """What the subscription says; 0: as fast as it goes, and ``CONCURRENCY``."""
        self._concurrency = concurrency or CONCURRENCY
        if rate_per_s == self._rate:
            return
        self._rate = rate_per_s
        if not rate_per_s:
            self._bucket = None
            return
        burst = max(1, int(rate_per_s * _BURST_S))
        bucket = self._bucket
        self._bucket = bucket.adjusted(rate_per_s, burst) if bucket else TokenBucket(rate_per_s, burst, self._clock)

    def slow_down(self, seconds: float) -> None:
        """For so long from now on: one call at a time, and one a second."""
        if not self._is_slow:
            self._slow = TokenBucket(1.0, 1, self._clock)
            self._slow.take()
        self._slow_until = max(self._slow_until, self._clock() + seconds)

    @property
    def at_once(self) -> int:
        """How many calls may be under way."""
        return 1 if self._is_slow else self._concurrency

    def take(self) -> float:
        """0 where a call may begin, which it then must; otherwise in how many seconds one may."""
        if self._is_slow and (wait_s := self._slow.take()):
            return wait_s
        # While it is slow, a call a second is within every rate.
        return self._bucket.take() if self._bucket and not self._is_slow else 0.0

    @property
    def _is_slow(self) -> bool:
        return self._clock() < self._slow_until
