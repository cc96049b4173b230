"""What both sides say of a message, held against each other. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from backhaul_reconciler.model import Comparison, Counts, Difference, DifferenceKind, Verdict

_ENDS: Final = {
    **dict.fromkeys(("delivered", "answered", "completed", "read", "opened", "clicked", "complained"), "delivered"),
    **dict.fromkeys(("undelivered", "busy", "no_answer", "bounced"), "undelivered"),
    **dict.fromkeys(("failed", "rejected", "expired", "canceled", "blocked_credit", "duplicate_blocked"), "failed"),
}
"""What a message came to that is not on its way any more. Within one end one kind follows another, or stands for it."""

_TAKEN_BACK: Final = "bounced"
"""A mail server accepts and bounces afterwards, so that this is later than "delivered"."""


def is_open(state: str) -> bool:
    """Whether a message in ``state`` is on its way. One of which no state is known is not."""
    return bool(state) and state not in _ENDS and state not in ("inbound", "unknown", "subscribed", "unsubscribed")


def differs(ours: str, theirs: str) -> bool:
    """Whether the two states contradict each other: neither is a later one of the other."""
    if ours not in _ENDS or theirs not in _ENDS or _ENDS[ours] == _ENDS[theirs]:
        return False
    return not (ours == _TAKEN_BACK and _ENDS[theirs] == "delivered")


@dataclass(slots=True)
class Found:
    """What some records told. ``large`` are those of ``unreadable`` that are too large to be told of. ``equal`` are
    messages of which both sides say the same, ``ids`` all that are named, ``open_ids`` those on their way,
    ``backfilled_ids`` those that no callback told of; ``marks`` are of the records that were published."""

    seen: int = 0
    known: int = 0
    missing: int = 0
    better: int = 0
    unreadable: int = 0
    large: int = 0
    differences: list[Difference] = field(default_factory=list)
    equal: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    open_ids: list[str] = field(default_factory=list)
    backfilled_ids: list[str] = field(default_factory=list)
    delays_us: list[int] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)

    def add(self, comparison: Comparison, *, published: bool) -> None:
        """One record more. ``published``: it tells something new, and was not told of just before."""
        self.seen += 1
        self._count(comparison.verdict, published=published)
        if not comparison.message_id:
            return
        self.ids.append(comparison.message_id)
        if comparison.verdict in (Verdict.IGNORED, Verdict.UNREADABLE):
            return
        if differs(comparison.state_after, comparison.told_state):
            self.differences.append(
                Difference(
                    comparison.message_id,
                    DifferenceKind.STATE,
                    comparison.state_after,
                    comparison.stored_error_code,
                    comparison.told_state,
                    comparison.told_error_code,
                )
            )
            return
        self.equal.append(comparison.message_id)
        if is_open(comparison.told_state) and is_open(comparison.state_after):
            self.open_ids.append(comparison.message_id)
        if comparison.verdict is Verdict.KNOWN:
            if not comparison.heard_at_us:
                self.backfilled_ids.append(comparison.message_id)
            elif comparison.occurred_at_us:
                self.delays_us.append(comparison.heard_at_us - comparison.occurred_at_us)

    def add_large(self) -> None:
        """One record more, which is larger than a callback may be: it is neither compared nor published."""
        self.seen += 1
        self.unreadable += 1
        self.large += 1

    def _count(self, verdict: Verdict, *, published: bool) -> None:
        match verdict:
            case Verdict.IGNORED:
                pass
            case Verdict.MISSING if published:
                self.missing += 1
            case Verdict.BETTER if published:
                self.better += 1
            case Verdict.UNREADABLE if published:
                self.unreadable += 1
            case _:
                self.known += 1

    @property
    def counts(self) -> Counts:
        """The same as a report has it, but for requests."""
        return Counts(
            seen=self.seen,
            known=self.known,
            missing=self.missing,
            better=self.better,
            unreadable=self.unreadable,
            differing=len(self.differences),
            open=len(self.open_ids),
        )
