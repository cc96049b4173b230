"""What becomes of a stream message whose processing failed: the one place that decides it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from backhaul_common.feed.message import StreamMessage
from backhaul_common.outages import is_outage

MAX_TRIES = 5
"""How often a stream message is processed that fails for a reason which waiting does not mend."""

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 15.0
_REMEMBERED = 10_000


class Disposition(Enum):
    """What to do with a message."""

    DONE = "done"
    """It is acknowledged."""
    AWAY = "away"
    """A part is away, slow or full. Everything waits, and is tried for as long as it takes."""
    LATER = "later"
    """Something in it, or in the code, is at fault. It is tried again after a pause, a bounded number of times."""
    DEAD_LETTER = "dead_letter"
    """It was tried often enough: it is set aside for people to look at, and acknowledged."""


def disposition(error: BaseException | None, tries: int = 1) -> Disposition:
    """What to do with a message whose processing ended with ``error``, None being success, for the ``tries``-th time.

    Nothing but an outage is waited for without end.
    """
    if error is None:
        return Disposition.DONE
    if is_outage(error):
        return Disposition.AWAY
    return Disposition.LATER if tries < MAX_TRIES else Disposition.DEAD_LETTER


def pause_s(times: int) -> float:
    """How long to wait after the ``times``-th failure in a row, the first being 1."""
    return min(FIRST_PAUSE_S * 2.0 ** min(times - 1, 10), MAX_PAUSE_S)


class Tries:
    """How often each stream message failed in this process, by its position. Another copy counts by itself."""

    def __init__(self) -> None:
        self._failures: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._failures)

    def failed(self, stream_seq: int) -> int:
        """One more failure; how many there are now."""
        count = self._failures.pop(stream_seq, 0) + 1
        if len(self._failures) >= _REMEMBERED:
            del self._failures[next(iter(self._failures))]
        self._failures[stream_seq] = count
        return count

    def apart(self, messages: Sequence[StreamMessage]) -> list[Sequence[StreamMessage]]:
        """``messages`` in batches: those that failed twice each by itself, so that one does not take others along."""
        suspect = {one.stream_seq for one in messages if self._failures.get(one.stream_seq, 0) > 1}
        if not suspect:
            return [messages]
        innocent = [one for one in messages if one.stream_seq not in suspect]
        alone: list[Sequence[StreamMessage]] = [[one] for one in messages if one.stream_seq in suspect]
        return [innocent, *alone] if innocent else alone

    def done(self, messages: Sequence[StreamMessage]) -> None:
        """They are done with."""
        if self._failures:
            for message in messages:
                self._failures.pop(message.stream_seq, None)
