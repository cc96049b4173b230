"""Facts in memory, as the store keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from backhaul_suppression.fold import fold
from backhaul_suppression.model import EVERYTHING, Address, Change, Fact, Row, RowKey, Target
from backhaul_suppression.ports import Recorded


class HeldFacts:
    """A ``Facts``, and a ``Narrow``.

    Registrations in ``gone`` are; after ``dies_after`` calls it raises what a killed process would.
    """

    def __init__(self) -> None:
        self.facts: dict[str, Fact] = {}
        self.rows: dict[str, Row] = {}
        self.changes: list[Change] = []
        self.gone: set[str] = set()
        self.calls: list[int] = []
        self.dies_after: int | None = None
        self._about: dict[str, list[Fact]] = {}
        self._positions: Counter[str] = Counter()

    async def commit(self, facts: Sequence[Fact]) -> Recorded:
        """See ``Facts``."""
        if self.dies_after is not None and len(self.calls) >= self.dies_after:
            raise ConnectionResetError
        self.calls.append(len(facts))
        first = len(self.changes)
        existing = {fact.id: self.facts[fact.id] for fact in facts if fact.id in self.facts}
        asked: dict[str, Row] = {}
        for fact in facts:
            if fact.address.registration in self.gone:
                continue
            for target in fact.targets:
                key = RowKey(fact.address, target.kind, target.scope)
                if fact.id not in self.facts:
                    self._take(key, fact)
                if key.id in self.rows:
                    asked[key.id] = self.rows[key.id]
            self.facts.setdefault(fact.id, fact)
        return Recorded(self.changes[first:], asked, existing, len(self.changes))

    async def record(self, facts: Sequence[Fact]) -> Recorded:
        """See ``Facts``."""
        return await self.commit(facts)

    def narrow(self, address: Address) -> Collection[Target]:
        """See ``Narrow``."""
        keys = [row.key for row in self.rows.values() if row.active and row.key.address == address]
        return {Target(key.kind, key.scope) for key in keys if key.scope != EVERYTHING}

    def _take(self, key: RowKey, fact: Fact) -> None:
        about = self._about.setdefault(key.id, [])
        about.append(fact)
        row, before = fold(key, about), self.rows.get(key.id)
        if row is None or (before is not None and replace(row, position=before.position) == before):
            return
        registration = key.address.registration
        self._positions[registration] += 1
        self.rows[key.id] = replace(row, position=self._positions[registration])
        seq = len(self.changes) + 1
        self.changes.append(Change(seq, self._positions[registration], self.rows[key.id], fact, fact.recorded_at_us))
