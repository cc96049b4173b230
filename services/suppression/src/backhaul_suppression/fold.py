"""What follows from all facts about one row."""

from __future__ import annotations

from collections.abc import Iterable

from backhaul_suppression.deadlines import due_by
from backhaul_suppression.model import Fact, Row, RowKey, Target


def fold(key: RowKey, facts: Iterable[Fact]) -> Row | None:
    """The row of ``key``; None where nothing suppresses, and nothing did that was lifted.

    ``facts`` are all that are stored about the row, in any order. Of several with one id the highest revision counts,
    and one without the row among its targets says nothing about it any more. ``position`` of the row is 0: whoever
    stores it knows better.
    """
    latest: dict[str, Fact] = {}
    for fact in facts:
        known = latest.get(fact.id)
        if known is None or known.revision < fact.revision:
            latest[fact.id] = fact
    target = Target(key.kind, key.scope)
    about = [fact for fact in latest.values() if fact.address == key.address and target in fact.targets]
    if all(fact.lifts for fact in about):
        # Most who say START never said STOP, and nothing is lifted by it.
        return None
    lifted = max((fact for fact in about if fact.lifts), key=_order, default=None)
    standing = (fact for fact in about if not fact.lifts and (lifted is None or fact.order > lifted.order))
    decides = min(standing, key=_order, default=lifted)
    return decided(key, decides) if decides is not None else None


def decided(key: RowKey, fact: Fact) -> Row:
    """The row of ``key`` where ``fact`` decides about it: it is suppressed by it, or was lifted."""
    return Row(
        key=key,
        active=not fact.lifts,
        since_us=fact.effective_at_us,
        fact_id=fact.id,
        recorded_at_us=fact.recorded_at_us,
        origin=fact.origin,
        source=fact.source,
        event_id=fact.event_id,
        author=fact.author,
        due_by_us=0 if fact.lifts else due_by(fact.effective_at_us),
    )


def _order(fact: Fact) -> tuple[int, str]:
    return fact.order
