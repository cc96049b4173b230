"""What ``backhaul bench`` has measured so far, and what that comes to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

HELD = "held"
"""What is over the tenant's rate is held by the gateway first, and answered as ever; 429 comes when that is full."""
_PARTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass
class Measured:
    """What was measured so far, in ms from the time at which each callback was due."""

    came_due: int = 0
    sent: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    """By status, or by what went wrong where nothing was answered."""
    answered_ms: list[float] = field(default_factory=list)
    """Of those that were answered with success."""
    unanswered: dict[int, float] = field(default_factory=dict)
    """When each of those was due that has no answer, be it that it was never sent, by its number."""
    late_ms: float = 0.0
    """The longest that this machine itself was behind when it began a call: that much is not Backhaul's."""
    ended_by: str = ""
    """The status that ended it before all was sent, or ``HELD``."""
    held: int | None = None
    """So many callbacks of the tenant, at most, lay at the gateway as they were over its rate, beside those that lay
    there before; None where it does not say."""
    ended_at: float = 0.0
    elapsed_s: float = 0.0
    told_ms: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    """Each time that the stream may have left events out, in its words: they are never told."""
    due: dict[str, float] = field(default_factory=dict)
    """When each callback that was taken and is not told yet was due, by its id."""
    _told: dict[str, float] = field(default_factory=dict)
    """When an event of any other callback was told: its answer may come later."""

    @property
    def never_sent(self) -> int:
        """How many were due, and waited for a connection for too long, or until it ended."""
        return self.came_due - self.sent

    @property
    def unanswered_ms(self) -> list[float]:
        """How long, at least, it took each that was not answered."""
        return [(self.ended_at - due) * 1000 for due in self.unanswered.values()]

    @property
    def untold_ms(self) -> list[float]:
        """How long, at least, it took until each was told that was not, or of which nobody knows."""
        return [*((self.ended_at - due) * 1000 for due in self.due.values()), *self.unanswered_ms]

    def taken(self, callback_id: str, due: float) -> None:
        """Such a callback was answered with success."""
        if (told := self._told.pop(callback_id, None)) is not None:
            self.told_ms.append((told - due) * 1000)
        else:
            self.due[callback_id] = due

    def told(self, callback_id: str, at: float) -> None:
        """An event of such a callback was told."""
        if (due := self.due.pop(callback_id, None)) is not None:
            self.told_ms.append((at - due) * 1000)
        else:
            self._told.setdefault(callback_id, at)


def percentiles(found: Sequence[float], never_came: Sequence[float] = ()) -> dict[str, float | None]:
    """``p50``, ``p90``, ``p99`` and ``max`` by nearest rank, behind which ``never_came`` stands; None where that has
    the rank, or nothing was measured."""
    ranked = sorted(found)
    number = len(found) + len(never_came)
    ranks = {name: math.ceil(part * number) - 1 for name, part in _PARTS.items()}
    return {name: round(ranked[rank], 1) if 0 <= rank < len(ranked) else None for name, rank in ranks.items()}
