"""A plan while it is being worked out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from backhaul_common.documents import Document

from backhaul_normalizer.model import Fact
from backhaul_normalizer.snapshot import Allowance, Snapshot

MAX_REVISED_SEQS = 16
"""Positions of what made the revisions before the latest that are kept. Hardly any event has more than two."""

MAX_LEFT = 8
"""Messages that an event has left which are kept. One or two names lead to each."""


@dataclass(slots=True)
class Change:
    """A stored event that becomes another revision.

    ``seqs`` are the positions in CALLBACKS of what made it so, ``moved_by`` the event that told where it belongs.
    """

    before: Fact
    after: Fact
    seqs: list[int]
    moved_by: str = ""

    def result(self) -> Fact:
        """``after``, with what is kept of how it came about. What made the revisions before may be delivered again,
        too: whoever took it may have died before what followed from it was published."""
        before, left = self.before, self.before.left
        earlier = [seq for seq in before.revised_seqs if seq not in self.seqs][-MAX_REVISED_SEQS:]
        if before.message and before.message != self.after.message:
            left = [*(key for key in left if key != before.message), before.message][-MAX_LEFT:]
        return msgspec.structs.replace(self.after, revised_seqs=[*earlier, *self.seqs], left=left)


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
        missing = {key for key in keys if key and key not in self.before}
        if missing:
            self.before.update((row["_id"], row) for row in self.snapshot.messages(missing))
