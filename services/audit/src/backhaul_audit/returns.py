"""When everything is read again for the sake of buckets that were away."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 600.0

FORGOTTEN_S = 3600.0
"""How long a tenant's buckets must have kept up until the next time is the first one again."""


class Returns:
    """How often each tenant's buckets fell behind. What waits for them was dropped from memory then, and when they are
    back all tenants' events are read again. A bucket that answers and takes nothing would have that done without an
    end, and nobody's files would become old enough to be closed: so each time has to wait longer than the one before.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._fell: dict[str, tuple[int, float]] = {}
        """How often, and when last."""

    def pause_s(self, registration: str) -> float:
        """One of the tenant's buckets fell behind: how long it has to wait, though it may be back. Nothing the first
        time."""
        now = self._clock()
        self._fell = {key: fell for key, fell in self._fell.items() if now - fell[1] < FORGOTTEN_S}
        times, _ = self._fell.get(registration, (0, now))
        self._fell[registration] = times + 1, now
        return min(FIRST_PAUSE_S * 2.0 ** min(times - 1, 10), LONGEST_PAUSE_S) if times else 0.0
