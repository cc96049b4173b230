"""A row, and as much about the facts behind it as nearly every further fact needs: no other is read for it then.

The result is what ``fold`` makes of all facts about the row. Where that cannot be known from here, ``take`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from backhaul_suppression.fold import decided, fold
from backhaul_suppression.model import Fact, Row, RowKey

Order: TypeAlias = tuple[int, str]
"""``Fact.order``."""


@dataclass(slots=True)
class Standing:
    """How the row of ``key`` stands. ``row`` is None where nothing suppresses, and nothing did.

    ``lift`` is the order of the latest fact that lifts. No fact that suppresses is later than ``last``; the latest may
    be earlier, where a revision took one back. ``unsettled`` is the change with which it became a row that may be
    lifted by what was heard of before (``settling``), or 0 where it is none or that was looked for.
    """

    key: RowKey
    row: Row | None = None
    lift: Order | None = None
    last: Order | None = None
    unsettled: int = 0

    @property
    def known(self) -> bool:
        """Whether anything is said about the row."""
        return self.row is not None or self.lift is not None

    def take(self, fact: Fact) -> bool:
        """Take one more fact about the row. False, and nothing is taken, where all others must be looked at."""
        return self._lift(fact) if fact.lifts else self._suppress(fact)

    @classmethod
    def of(cls, key: RowKey, facts: Iterable[Fact]) -> Standing:
        """How it stands by ``facts``: all about the row, or at least the latest that lifts, the first that suppresses
        behind it, and the last that suppresses."""
        facts = list(facts)
        return cls(
            key,
            fold(key, facts),
            max((fact.order for fact in facts if fact.lifts), default=None),
            max((fact.order for fact in facts if not fact.lifts), default=None),
        )

    def _lift(self, fact: Fact) -> bool:
        order = fact.order
        if self.lift is not None and order < self.lift:
            return True
        since = self._since()
        if self.row is not None and (since is None or since < order):
            # Which suppressing fact is the next behind it?
            if self.last is not None and self.last > order:
                return False
            self.row = decided(self.key, fact)
        self.lift = order
        return True

    def _suppress(self, fact: Fact) -> bool:
        order = fact.order
        if self.row is None and self.lift is not None and order < self.lift:
            # It is lifted from the first on; the fact by which is not here.
            return False
        if self.last is None or self.last < order:
            self.last = order
        since = self._since()
        if (self.lift is None or self.lift < order) and (since is None or order < since):
            self.row = decided(self.key, fact)
        return True

    def _since(self) -> Order | None:
        return (self.row.since_us, self.row.fact_id) if self.row is not None and self.row.active else None
