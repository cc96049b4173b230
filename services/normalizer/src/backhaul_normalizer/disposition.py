"""What becomes of stream messages whose processing failed: the one place that decides it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from backhaul_common.feed import StreamMessage
from backhaul_common.outages import is_outage

MOST_TRIES = 5
"""How often a stream message is processed that fails for a reason which waiting does not mend."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 15.0
_REMEMBERED = 10_000


class Disposition(Enum):
    """What to do about a failure."""

    LATER = "later"
    """A part is away, slow or full. Everything waits, and is tried for as long as it takes."""
    ISOLATE = "isolate"
    """Something in it is refused. The part at fault is looked for and set aside; it is not tried for ever."""


def disposition(exc: BaseException) -> Disposition:
    """What ``exc`` asks for."""
    return Disposition.LATER if is_outage(exc) else Disposition.ISOLATE


def pause_s(times: int) -> float:
    """How long to wait after the ``times``-th failure in a row, the first being 1."""
    return min(FIRST_PAUSE_S * 2.0 ** min(times - 1, 10), LONGEST_PAUSE_S)


class Tries:
    """How often each stream message failed in this process, by its position. Another copy counts by itself."""

    def __init__(self) -> None:
        self._failures: dict[int, int] = {}

    def failed(self, stream_seq: int) -> int:
        """One more failure; how many there are now."""
        count = self._failures.pop(stream_seq, 0) + 1
        if len(self._failures) >= _REMEMBERED:
            del self._failures[next(iter(self._failures))]
        self._failures[stream_seq] = count
        return count

    def apart(self, deliveries: Sequence[StreamMessage]) -> list[Sequence[StreamMessage]]:
        """``deliveries`` in batches: those that failed twice each by itself, so that one does not take others along."""
        suspect = {one.stream_seq for one in deliveries if self._failures.get(one.stream_seq, 0) > 1}
        if not suspect:
            return [deliveries]
        innocent = [one for one in deliveries if one.stream_seq not in suspect]
        alone: list[Sequence[StreamMessage]] = [[one] for one in deliveries if one.stream_seq in suspect]
        return [innocent, *alone] if innocent else alone

    def done(self, stream_seqs: Sequence[int]) -> None:
        """They are done with."""
        if self._failures:
            for seq in stream_seqs:
                self._failures.pop(seq, None)
