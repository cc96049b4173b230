"""How fast somebody may go on."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final

MAX_IDEMPOTENCY_KEY: Final = 255
"""Characters of the key under which a request is carried out once: the gateway takes as many as the services do."""


class TokenBucket:
    """``burst`` requests at once, ``rate`` a second in the long run. Time comes from ``clock``, in seconds."""

    __slots__ = ("_burst", "_clock", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._tokens = self._burst
        self._updated = clock()

    def take(self) -> float:
        """0 when the request may pass; otherwise the seconds until one may."""
        now = self._clock()
        tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        if tokens >= 1.0:
            self._tokens = tokens - 1.0
            return 0.0
        self._tokens = tokens
        return (1.0 - tokens) / self._rate

    def take_many(self, count: int, *, taken: int = 0) -> float:
        """The same of ``count`` at once. More than ``burst`` pass when nothing is spent, and those that follow wait
        until all of them are paid for. ``taken`` of them were taken a moment ago, and stay so where the rest may not
        pass: who comes again takes as many anew before."""
        now = self._clock()
        tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        self._tokens = tokens
        lacking = min(float(count), self._burst) - tokens
        if lacking <= taken:
            self._tokens = tokens + taken - count
            return 0.0
        return lacking / self._rate

    def take_spare(self, most: int) -> int:
        """How many of ``most`` that can wait may pass now: half of what is left, so that who comes next need not."""
        now = self._clock()
        tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        taken = min(most, ceil(tokens / 2)) if tokens >= 1.0 else 0
        self._tokens = tokens - taken
        return taken

    def adjusted(self, rate: float, burst: int) -> TokenBucket:
        """A bucket with other limits that remembers what was spent: changing a tenant's name refills nothing."""
        if rate == self._rate and burst == self._burst:
            return self
        bucket = TokenBucket(rate, burst, self._clock)
        # What is owed stays owed; beyond that a lower burst makes nobody wait for what was free before.
        bucket._tokens = max(min(0.0, self._tokens), bucket._burst - (self._burst - self._tokens))
        return bucket
