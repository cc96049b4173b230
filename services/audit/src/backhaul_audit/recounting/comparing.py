"""What of a communication's events lies in files, and why the rest does not: pure, whoever has listed and looked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from backhaul_audit.model import EventId
from backhaul_audit.recounting.ports import Counts, KindCount, Listed, Recounted

MAX_MISSING_IDS = 100

MAX_DOUBTS = 20_000
"""Events that may be missing and are looked for once more: some 5 MB. Of more nobody need be in doubt."""


@dataclass(frozen=True, slots=True)
class FilingState:
    """How it stands with a tenant's files.

    ``asking`` are the channels that ask for some. Of each channel in ``since_us`` something waits, and its first event
    arrived then. The files of those in ``troubled`` cannot be written now. What had been published before
    ``read_to_us`` is in a file or waits for one. Times are unix time in microseconds.
    """

    asking: Collection[str]
    since_us: Mapping[str, int]
    troubled: Collection[str]
    read_to_us: int

    def waits(self, one: Listed) -> bool:
        """Whether an event that lies in no file may come to lie in one."""
        since_us = self.since_us.get(one.channel, 0)
        return (
            one.channel in self.troubled or 0 < since_us <= one.received_at_us or one.received_at_us >= self.read_to_us
        )


@dataclass(slots=True)
class Tally:
    """Adds up. ``doubts`` are the events that seem to be missing, until it is settled whether they are."""

    events: int = 0
    retained_since_us: int = 0
    """As ``Page``, of the page that says most."""
    listed: Counter[int] = field(default_factory=Counter)
    doubts: list[Listed] = field(default_factory=list)
    _audited: Counter[int] = field(default_factory=Counter)
    _not_asked: int = 0
    _waiting: int = 0
    _missing: int = 0
    _missing_ids: list[str] = field(default_factory=list)
    _channels_not_asked: set[str] = field(default_factory=set)

    def add(self, events: Sequence[Listed], filed: Collection[EventId], state: FilingState) -> None:
        """Count ``events``, of which ``filed`` lie in files. Each may be counted once."""
        self.events += len(events)
        for one in events:
            self.listed[one.kind] += 1
            if self._has_a_place(one, filed, state):
                continue
            if len(self.doubts) < MAX_DOUBTS:
                self.doubts.append(one)
            else:
                self._missing += 1

    def settle(self, filed: Collection[EventId], state: FilingState) -> None:
        """Decide about the doubts, by what is found of them now."""
        for one in self.doubts:
            if not self._has_a_place(one, filed, state):
                self._missing += 1
                if len(self._missing_ids) < MAX_MISSING_IDS:
                    self._missing_ids.append(one.event.id)
        self.doubts = []

    def result(self, counts: Counts, *, moving: bool) -> Recounted:
        """What was found, beside what the communication counts."""
        counted = counts.kinds
        kinds = sorted({kind for counts in (counted, self.listed) for kind, count in counts.items() if count})
        return Recounted(
            events=self.events,
            done=True,
            kinds=[KindCount(kind, counted.get(kind, 0), self.listed[kind], self._audited[kind]) for kind in kinds],
            not_asked=self._not_asked,
            waiting=self._waiting,
            missing=self._missing,
            missing_ids=self._missing_ids,
            channels_not_asked=sorted(self._channels_not_asked),
            moving=moving,
            may_expire=counts.since_us < self.retained_since_us,
        )

    def _has_a_place(self, one: Listed, filed: Collection[EventId], state: FilingState) -> bool:
        if one.event in filed:
            self._audited[one.kind] += 1
        elif one.channel not in state.asking:
            self._not_asked += 1
            self._channels_not_asked.add(one.channel)
        elif state.waits(one):
            self._waiting += 1
        else:
            return False
        return True
