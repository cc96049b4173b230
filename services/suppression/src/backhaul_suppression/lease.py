"""Until when a copy may answer from memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from backhaul_common.errors import BackhaulError, Code

LEASE_S = 3.0
"""How long a copy may answer after it last began to renew its lease."""

PATIENCE_S = 1.25 * LEASE_S
"""How long a writer waits for a copy that says nothing. The clocks of two machines may differ in speed by a quarter."""

Clock = Callable[[], float]
"""Seconds since whenever. It never goes back, nor is it set."""


def clock() -> Clock:
    """The machine's clock that also counts while the machine sleeps; where it has none, the monotonic one."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return time.monotonic
    return partial(time.clock_gettime, time.CLOCK_BOOTTIME)


class Lease:
    """Whether this copy may answer. It has run out until ``extend`` is called: until the first time, and after
    ``restart``, this copy is loading."""

    def __init__(self, clock: Clock, lapsed: Callable[[], None] = lambda: None) -> None:
        """``lapsed`` is called once for each time that it has run out instead of being renewed or ended; it must not
        block or raise."""
        self._clock = clock
        self._lapsed = lapsed
        self._until = float("-inf")
        self._begun = False

    @property
    def held(self) -> bool:
        """Whether it has not run out."""
        return self._clock() < self._until

    def check(self) -> None:
        """Returns while it has not run out; UNAVAILABLE afterwards. To be called after all that an answer rests on was
        read, with nothing waited for in between."""
        if self._clock() >= self._until:
            raise BackhaulError(
                Code.UNAVAILABLE,
                "Whether this is still so cannot be said: this copy has lost touch with the others."
                if self._begun
                else "Nothing can be said yet: this copy is still loading who is suppressed.",
                fix="Do not send. Try again later.",
                retry_after_s=1.0,
            )

    def look(self) -> None:
        """See whether it has run out."""
        if float("-inf") < self._until <= self._clock():
            self._until = float("-inf")
            self._lapsed()

    def extend(self, began: float) -> None:
        """It was renewed, by a request that was sent at ``began`` or later."""
        self.look()
        self._begun = True
        self._until = max(self._until, began + LEASE_S)

    def end(self) -> None:
        """It is over now."""
        self.look()
        self._until = float("-inf")

    def restart(self) -> None:
        """It is over now, and all that answers rest on is loaded anew before the next one."""
        self.end()
        self._begun = False
