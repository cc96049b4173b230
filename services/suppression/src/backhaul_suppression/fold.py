"""What follows from all facts about one row."""

from __future__ import annotations

from collections.abc import Iterable

from backhaul_suppression.deadlines import due_by
from backhaul_suppression.model import Fact, Row, RowKey, Target


def fold(key: RowKey, facts: Iterable[Fact]) -> Row | None:
    """The row of ``key``; None where nothing is said about it.

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
    lifted = max((fact for fact in about if fact.lifts), key=_order, default=None)
    standing = (fact for fact in about if not fact.lifts and (lifted is None or fact.order > lifted.order))
    since = min(standing, key=_order, default=None)
    if since is not None:
        return _row(key, since, active=True)
    return _row(key, lifted, active=False) if lifted is not None else None


def _order(fact: Fact) -> tuple[int, str]:
    return fact.order


def _row(key: RowKey, fact: Fact, *, active: bool) -> Row:
    return Row(
        key=key,
        active=active,
        since_us=fact.effective_at_us,
        fact_id=fact.id,
        recorded_at_us=fact.recorded_at_us,
        origin=fact.origin,
        source=fact.source,
        event_id=fact.event_id,
        author=fact.author,
        due_by_us=due_by(fact.effective_at_us) if active else 0,
    )
