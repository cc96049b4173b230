"""Where the further names of messages lead.

A join is a document, keyed by a further name, that leads to the message which has the name, or to a better name of it.
Of several that were told the one stands whose callback is trusted the most, and of those the least, so that where a
name leads is a function of what was told and not of its order. A name leads only events that are trusted no better than
whoever told it: what nobody has verified moves nothing that somebody has.

An event that has expired moves no more, and is still known where it is: a join keeps to where it led before.

A join is written by whoever first tells where its name leads, and by whoever brings an event under the name: two
copies of the service that each see one half of it write one document both, and one of them begins anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

from backhaul_common.documents import Document

from backhaul_normalizer.model import TRUST, Name

MAX_STEPS = 8
"""Names between an event and its message. A provider has two or three; what is longer comes of settings that changed,
and could be a circle."""

MAX_BEFORE = 8
"""Messages that a name led to before, the last ones. One that was told by ever better ones has two or three."""

MAX_EVER = 64
"""Messages where an event under a name is looked for. Without circles and forged names there are two or three."""

LEAST_TRUST = 0
"""What is trusted no better follows every join."""

_TRUSTS = sorted(set(TRUST.values()))


class Target(NamedTuple):
    """A message, by its key and its id. The id is empty where it is not known to lead anywhere."""

    key: str
    message_id: str


class Lead(NamedTuple):
    """Where a name may lead; the least is the best. ``distrust`` grows as the trust of whoever told it gets less."""

    distrust: int
    target: Target

    @classmethod
    def of(cls, name: Name) -> Lead:
        """What ``name`` tells of its alias."""
        return cls(-name.trust, Target(name.message, name.message_id))


class StoredJoins(Protocol):
    """The joins of a snapshot."""

    def joins(self, keys: Collection[str]) -> Iterable[Document]:
        """The stored joins among ``keys``."""
        ...


class Joins:
    """The joins that a batch meets, and how it changes them."""

    def __init__(self, stored: StoredJoins, keys: Collection[str]) -> None:
        self._stored = stored
        self._rows: dict[str, Document | None] = {}
        self._written: dict[str, Document] = {}
        self.load(keys)

    def load(self, keys: Collection[str]) -> None:
        """Read the joins of ``keys``, and those that they lead to."""
        for _ in range(MAX_STEPS):
            # Not by the difference of the two: that goes through all that was read, and names are asked for one by one.
            missing = {key for key in keys if key not in self._rows}
            if not missing:
                return
            self._rows.update(dict.fromkeys(missing))
            rows = list(self._stored.joins(missing))
            self._rows.update((row["_id"], row) for row in rows)
            keys = [row["message"] for row in rows if row["message"]]

    def is_stored(self, key: str) -> bool:
        """Whether ``key`` had a join before this batch."""
        return self._rows.get(key) is not None

    def root(self, key: str, trust: int) -> Target:
        """Where ``key`` leads an event of that trust; the id is empty where that is nowhere but itself."""
        return self._path(key, trust)[-1]

    def roots(self, key: str) -> set[str]:
        """The messages to which ``key`` leads events, each trust its own."""
        return {self.root(key, trust).key for trust in _TRUSTS}

    def would_lead(self, key: str, best: Lead) -> bool:
        """Whether ``key`` leads elsewhere now that ``best`` was told."""
        present = self._lead(key)
        return present is None or best < present

    def lead(self, key: str, best: Lead, registration: str) -> None:
        """Let ``key`` lead there. What leads on from there must be loaded before it is asked for."""
        self._write(key, best, registration)

    def touch(self, key: str, registration: str) -> None:
        """Write all that leads from ``key`` to a message, and might lead on: who changes any of it meets whoever put an
        event there."""
        for step, _ in self._path(key, LEAST_TRUST):
            self._write(step, self._lead(step), registration)

    def written(self) -> tuple[list[Document], list[Document]]:
        """(Joins that are new, joins that are changed)."""
        new = [row for key, row in self._written.items() if self._rows.get(key) is None]
        return new, [row for key, row in self._written.items() if self._rows.get(key) is not None]

    def led_elsewhere(self) -> dict[str, str]:
        """The names that lead elsewhere than they did, or others than they did, each with its registration."""
        return {
            key: row["registration"] for key, row in self._written.items() if _led(row) != _led(self._rows.get(key))
        }

    def steps(self, key: str, trust: int) -> list[Target]:
        """All names from ``key`` to where it leads an event of that trust, both included."""
        return self._path(key, trust)

    def ever(self, key: str) -> set[str]:
        """All messages where an event under the name ``key`` may be: to which it leads, or has led."""
        found = {key}
        following = [key]
        for _ in range(MAX_STEPS):
            self.load(following)
            following = [one for step in following for one in _led_to(self._rows.get(step)) if one not in found]
            if not following or len(found) >= MAX_EVER:
                break
            found.update(following)
        return found

    def _lead(self, key: str) -> Lead | None:
        row = self._written.get(key) or self._rows.get(key)
        return Lead(-row["trust"], Target(row["message"], row["message_id"])) if row and row["message"] else None

    def _path(self, key: str, trust: int) -> list[Target]:
        path = [Target(key, "")]
        while len(path) <= MAX_STEPS:
            following = self._lead(path[-1].key)
            if following is None or -following.distrust < trust or following.target.key in (step for step, _ in path):
                break
            path.append(following.target)
        return path

    def _write(self, key: str, lead: Lead | None, registration: str) -> None:
        before = self._rows.get(key)
        message = lead.target.key if lead is not None else ""
        led_to = [one for one in _led_to(before) if one != message]
        self._written[key] = {
            "_id": key,
            "registration": registration,
            "message": message,
            "before": led_to[-MAX_BEFORE:],
            "message_id": lead.target.message_id if lead is not None else "",
            "trust": -lead.distrust if lead is not None else LEAST_TRUST,
            # Grows, so that the document is written even where nothing else changes: two copies must meet here.
            "writes": before["writes"] + 1 if before is not None else 1,
        }


def _led_to(row: Document | None) -> list[str]:
    """The messages to which a join leads or has led, the present one last."""
    return [*row["before"], *filter(None, [row["message"]])] if row is not None else []


def _led(row: Document | None) -> tuple[str, int]:
    """Where a join leads, and up to which trust: a name that is trusted better now leads events that it did not."""
    return (row["message"], row["trust"]) if row is not None else ("", LEAST_TRUST)
