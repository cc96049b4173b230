"""What follows from all facts about one row."""

from __future__ import annotations

from collections.abc import Iterable

from backhaul_suppression.deadlines import due_by
from backhaul_suppression.model import Fact, Row, RowKey, Target


def fold(key: RowKey, facts: Iterable[Fact]) -> Row | None:
    """The row of ``key``; None where nothing is said about it.

    ``facts`` are all that are stored about the row, in any order. Of several with one id the highest revision counts,
    and one without the row among its targets says nothing about it. ``position`` of the row is 0: whoever stores it
    knows better.
    """
    latest: dict[str, Fact] = {}
    for fact in facts:
        known = latest.get(fact.id)
        if known is None or known.revision < fact.revision:
            latest[fact.id] = fact
    target = Target(key.kind, key.scope)
    said = [fact for fact in latest.values() if fact.address == key.address and target in fact.targets]
    lifted = max((fact for fact in said if fact.lifts), key=lambda fact: fact.order, default=None)
    suppressing = (fact for fact in said if not fact.lifts and (lifted is None or fact.order > lifted.order))
    first = min(suppressing, key=lambda fact: fact.order, default=None)
    decides = first if first is not None else lifted
    if decides is None:
        return None
    return Row(
        key=key,
        active=first is not None,
        since_us=decides.effective_at_us,
        fact_id=decides.id,
        recorded_at_us=decides.recorded_at_us,
        origin=decides.origin,
        source=decides.source,
        event_id=decides.event_id,
        author=decides.author,
        due_by_us=due_by(decides.effective_at_us) if first is not None else 0,
    )
