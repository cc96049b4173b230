"""Whether what waits grows. Pure: no broker, no clock."""

from __future__ import annotations

from backhaul_common.feed import formats

JUDGED_S = 5.0
"""How often it is judged."""

_OF_WHAT_CAME = 0.1
"""What the broker has varies by less than this part of what comes where it delivers all as it comes."""


_LONGEST_S = 320.0
"""For how long that it grows is held to at most."""


class Growth:
    """What came, what was taken, and what the broker still has, in bytes.

    Counted in messages it would be wrong: a backlog of messages with a hundred callbacks each shrinks, while a flood of
    messages with one each adds more of them than are taken. What the broker has not delivered yet is estimated by the
    mean size of what it delivered. While it delivers a backlog, what comes says nothing of what is new, and nothing is
    taken to grow.

    What was judged to grow is held to for a while, whatever comes meanwhile, and for twice as long each time that it
    grows again after it: whoever does more where it grows would otherwise do so half of the time, and it would grow on.
    """

    def __init__(self) -> None:
        self._came = self._taken = self._messages = 0
        self._mean = 0.0
        self._reply = ""
        self._pending: int | None = None
        self._judged_at = 0.0
        self._grows = False
        self._held_to_s = 0.0

    def came(self, reply: str, size: int) -> None:
        """A message of ``size`` bytes was delivered, which is answered on ``reply``."""
        self._reply = reply
        self._came += size
        self._messages += 1

    def taken(self, size: int) -> None:
        """That many bytes of what came were taken, or, where it is negative, taken back."""
        self._taken += size

    def judge(self, now: float) -> bool:
        """Whether more waits than ``JUDGED_S`` before, by a monotonic clock, or did a while ago. False until that can
        be said."""
        if now < self._judged_at + (self._held_to_s if self._grows else JUDGED_S):
            return self._grows
        pending = formats.place_of(self._reply).pending if self._reply else 0
        if self._messages:
            self._mean = self._came / self._messages
        if self._grows:
            # It is looked again how it is without.
            self._grows = False
        elif self._pending is not None:
            more = pending - self._pending
            delivers_backlog = -more > self._messages * _OF_WHAT_CAME
            self._grows = not delivers_backlog and self._came - self._taken + more * self._mean > 0
            longer_s = min(_LONGEST_S, max(2 * JUDGED_S, 2 * self._held_to_s))
            self._held_to_s = longer_s if self._grows else self._held_to_s / 2
        self._pending, self._judged_at = pending, now
        self._came = self._taken = self._messages = 0
        return self._grows
