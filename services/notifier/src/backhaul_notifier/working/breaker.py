"""When an endpoint that only fails is left alone, and asked again by a single call."""

from __future__ import annotations

from typing import Final

FAILURES: Final = 10
"""In a row, after which an endpoint rests."""

RESTS_S: Final = (5, 10, 20, 40, 60)
"""How long each next rest is; the last one again and again."""


class Breaker:
    """Counts failures in a row. After ``FAILURES`` nothing is called before the rest is over, and then one probe, whose
    success ends it and whose failure is the next rest. Times are unix time in microseconds."""

    __slots__ = ("_failures", "_probing", "_turn", "rest_until_us", "rests")

    def __init__(self, rest_until_us: int = 0, rests: int = 0) -> None:
        """As a copy before left it."""
        self.rest_until_us = rest_until_us
        self.rests = rests
        self._failures = 0
        self._probing = False
        # What was called before a rest began says nothing of how the endpoint is after it.
        self._turn = 0

    def may_call(self, now_us: int) -> bool:
        """Whether a call may begin."""
        return not self.rests or (not self._probing and now_us >= self.rest_until_us)

    @property
    def probes_at_us(self) -> int:
        """When a call may begin again; 0 where that is not a matter of time."""
        return self.rest_until_us if self.rests and not self._probing else 0

    def begun(self) -> int:
        """A call begins. What is returned goes to ``ended``."""
        self._probing = bool(self.rests)
        return self._turn

    def ended(self, turn: int, *, failed: bool, charged: bool, now_us: int) -> None:
        """A call has ended. One that is not ``charged`` says nothing of the endpoint."""
        if turn != self._turn:
            return
        self._probing = False
        if not charged:
            return
        if not failed:
            self._failures = 0
            if self.rests:
                self.rests, self.rest_until_us = 0, 0
                self._turn += 1
            return
        self._failures += 1
        if self.rests or self._failures >= FAILURES:
            pause_s = RESTS_S[min(self.rests, len(RESTS_S) - 1)]
            self.rests += 1
            self.rest_until_us = now_us + pause_s * 1_000_000
            self._failures = 0
            self._turn += 1
