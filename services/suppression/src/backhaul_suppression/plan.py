"""What rows become by the facts of one commit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from backhaul_suppression.model import Change, Fact, Kind, Row, RowKey
from backhaul_suppression.standing import Standing

SETTLED = frozenset({Kind.HARD_BOUNCE, Kind.INVALID_ADDRESS})
"""Kinds of rows about which the normalizer is asked for a delivery that was heard of before: see ``settling``."""


class _Step(NamedTuple):
    """A row became ``row`` by ``fact``; None: nothing is said about it any more."""

    row_id: str
    row: Row | None
    fact: Fact


@dataclass(slots=True)
class Numbers:
    """The last numbers that were given to changes: of all, and by registration."""

    seq: int
    positions: dict[str, int]

    def next(self, registration: str) -> tuple[int, int]:
        """The next ones of a registration."""
        self.seq += 1
        self.positions[registration] = self.positions.get(registration, 0) + 1
        return self.seq, self.positions[registration]


class Plan:
    """Takes facts, one after another, and says what rows become by them.

    ``standings`` are the rows that are stored, by id, of all that the facts are about.
    """

    def __init__(self, standings: Mapping[str, Standing]) -> None:
        self._before = {row_id: replace(standing) for row_id, standing in standings.items()}
        self.standings = dict(standings)
        """How they stand now, by id."""
        self.apart: dict[str, RowKey] = {}
        """Rows that cannot be told from what is here: all facts about each must be looked at."""
        self._about: dict[str, list[Fact]] = defaultdict(list)
        self._steps: list[_Step] = []
        self.turned: list[Change] = []
        """Those of ``changes`` by which a row began, or ceased, to suppress."""

    def replace(self, fact: Fact, rows: Mapping[str, RowKey]) -> None:
        """``fact`` replaces a lower revision of itself. ``rows`` are those that either is about."""
        self.apart.update(rows)
        for row_id in rows:
            self._about[row_id].append(fact)

    def take(self, fact: Fact, rows: Mapping[str, RowKey]) -> None:
        """``fact``, which is about ``rows``, is new."""
        for row_id, key in rows.items():
            self._about[row_id].append(fact)
            if row_id in self.apart:
                continue
            standing = self.standings.get(row_id)
            if standing is None:
                standing = self.standings[row_id] = Standing(key)
            before = standing.row
            if not standing.take(fact):
                self.apart[row_id] = key
            elif standing.row is not before:
                self._steps.append(_Step(row_id, standing.row, fact))

    def look(self, facts: Mapping[str, Sequence[Fact]]) -> None:
        """``facts`` are those about the rows ``apart``, by id, with those that were taken: see ``Standing.of``."""
        if not self.apart:
            return
        self._steps = [step for step in self._steps if step.row_id not in self.apart]
        for row_id, key in self.apart.items():
            before = self._before.get(row_id)
            standing = self.standings[row_id] = Standing.of(key, facts.get(row_id, ()))
            old = before.row if before is not None else None
            new = standing.row
            if new is not None and old is not None:
                new = standing.row = replace(new, position=old.position)
                standing.unsettled = before.unsettled if before is not None else 0
            if new != old:
                self._steps.append(_Step(row_id, new, self._decisive(row_id, new)))

    def changes(self, numbers: Numbers, now_us: int) -> Sequence[Change]:
        """The changes, with the next of ``numbers``. To be asked once; ``standings`` are as they are stored then."""
        changes = []
        active = {row_id for row_id, one in self._before.items() if one.row is not None and one.row.active}
        for row_id, row, fact in self._steps:
            standing = self.standings[row_id]
            seq, position = numbers.next(fact.address.registration)
            shown = replace(row if row is not None else _gone(standing.key, fact), position=position)
            changes.append(Change(seq, position, shown, fact, now_us))
            if shown.active != (row_id in active):
                self.turned.append(changes[-1])
                active ^= {row_id}
            if row is not None:
                self._settle(row_id, standing, row, seq)
                standing.row = shown
        return changes

    def written(self) -> Iterable[tuple[str, Standing, bool]]:
        """What is to be written: rows by id, how they stand, and whether they are stored already. One about which
        nothing is known any more is to be deleted."""
        for row_id, standing in self.standings.items():
            before = self._before.get(row_id)
            if standing != before and (standing.known or before is not None):
                yield row_id, standing, before is not None

    def _decisive(self, row_id: str, row: Row | None) -> Fact:
        about = self._about[row_id]
        return next((fact for fact in about if row is not None and fact.id == row.fact_id), about[-1])

    def _settle(self, row_id: str, standing: Standing, row: Row, seq: int) -> None:
        if row.key.kind not in SETTLED:
            return
        before = self._before.get(row_id)
        old = before.row if before is not None else None
        if not row.active:
            standing.unsettled = 0
        elif old is None or not old.active or old.since_us != row.since_us:
            standing.unsettled = seq


def _gone(key: RowKey, fact: Fact) -> Row:
    """What is told of a row about which, by ``fact``, nothing is said any more."""
    return Row(
        key=key,
        active=False,
        since_us=fact.effective_at_us,
        fact_id=fact.id,
        recorded_at_us=fact.recorded_at_us,
        origin=fact.origin,
        source=fact.source,
        event_id=fact.event_id,
        author=fact.author,
    )
