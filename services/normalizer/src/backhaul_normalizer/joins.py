"""Where the further names of messages lead.

A join is a document, keyed by a further name, that leads to the message which has the name, or to a better name of it.
Of several that were told the least stands, so that where a name leads is a function of what was told and not of its
order. A join is written by whoever first tells where its name leads, and by whoever brings an event under the name: two
copies of the service that each see one half of it write one document both, and one of them begins anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from backhaul_common.mongo import Document

from backhaul_normalizer.facts import Fact

Target = tuple[str, str]
"""A message's key and its id."""

MAX_STEPS = 8
"""Names between an event and its message. A provider has two or three; what is longer comes of settings that changed,
and could be a circle."""


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
            missing = set(keys) - self._rows.keys()
            if not missing:
                return
            self._rows.update(dict.fromkeys(missing))
            rows = list(self._stored.joins(missing))
            self._rows.update((row["_id"], row) for row in rows)
            keys = [row["message"] for row in rows if row["message"]]

    def is_stored(self, key: str) -> bool:
        """Whether ``key`` had a join before this batch."""
        return self._rows.get(key) is not None

    def root(self, key: str) -> Target:
        """Where ``key`` leads to; the id is empty where that is nowhere but itself."""
        return self._path(key)[-1]

    def would_lead(self, key: str, candidates: Mapping[Target, Fact]) -> bool:
        """Whether ``key`` leads elsewhere now that ``candidates`` were told."""
        present = self._next(key)
        return present is None or min(candidates) < present

    def lead(self, key: str, candidates: Mapping[Target, Fact]) -> Fact:
        """Let ``key`` lead to the least of ``candidates``, whose joins were loaded if they have any; who told it."""
        target = min(candidates)
        self._write(key, candidates[target], target)
        return candidates[target]

    def touch(self, key: str, fact: Fact) -> None:
        """Write all that leads ``fact``, which uses ``key``, to its message."""
        for step, _ in self._path(key):
            self._write(step, fact, self._next(step) or ("", ""))

    def written(self) -> tuple[list[Document], list[Document]]:
        """(Joins that are new, joins that are changed)."""
        new = [row for key, row in self._written.items() if self._rows.get(key) is None]
        return new, [row for key, row in self._written.items() if self._rows.get(key) is not None]

    def _next(self, key: str) -> Target | None:
        row = self._written.get(key) or self._rows.get(key)
        return (row["message"], row["message_id"]) if row is not None and row["message"] else None

    def _path(self, key: str) -> list[Target]:
        path: list[Target] = [(key, "")]
        while len(path) <= MAX_STEPS:
            following = self._next(path[-1][0])
            if following is None or following[0] in (step for step, _ in path):
                break
            path.append(following)
        return path

    def _write(self, key: str, fact: Fact, target: Target) -> None:
        before = self._rows.get(key)
        self._written[key] = {
            "_id": key,
            "registration": fact.origin.registration,
            "message": target[0],
            "message_id": target[1],
            # Grows, so that the document is written even where nothing else changes: two copies must meet here.
            "writes": before["writes"] + 1 if before is not None else 1,
        }
