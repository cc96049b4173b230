"""A plan while it is being worked out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backhaul_common.documents import Document

from backhaul_normalizer.model import Fact
from backhaul_normalizer.snapshot import Allowance, Snapshot


@dataclass(slots=True)
class Change:
    """A stored event that becomes another revision.

    ``seqs`` are the positions in CALLBACKS of what made it so, ``moved_by`` the event that told where it belongs.
    """

    before: Fact
    after: Fact
    seqs: list[int]
    moved_by: str = ""


class Draft:
    """What becomes of ``facts``, as far as it is known.

    ``new`` are the events that are not stored yet and ``changes`` those of which there is another revision, both by id.
    ``before`` are the messages as they are stored, by key, as far as they were looked up. ``aliases`` are all further
    names of the messages that get another one, each with the trust of whoever told it.
    """

    def __init__(self, snapshot: Snapshot, facts: Sequence[Fact]) -> None:
        self.snapshot = snapshot
        self.facts = facts
        self.names = [(fact, names) for fact in facts if (names := fact.told_names())]
        self.allowance = Allowance(bounded=len(facts) > 1)
        self.new: dict[str, Fact] = {}
        self.changes: dict[str, Change] = {}
        self.before: dict[str, Document] = {}
        self.aliases: dict[str, dict[str, int]] = {}

    def load(self, keys: Iterable[str]) -> None:
        """Look up the messages with these keys."""
        missing = {*keys} - {""} - self.before.keys()
        if missing:
            self.before.update((row["_id"], row) for row in self.snapshot.messages(missing))
