"""Kinds that happen to a message once: of all events of one message and kind, one counts.

Their ids are made of the message's name and the kind, so two that use one name are one event. Two that use different
names of one message are two, and both are kept, because which message a name leads to may change. The better one
counts, and the other is marked as its duplicate. Which one is better depends on the events alone, not on their order.
"""

from __future__ import annotations

from typing import NamedTuple

from backhaul_common.documents import Document

from backhaul_normalizer.draft import Change, Draft
from backhaul_normalizer.merge import revised
from backhaul_normalizer.model import KIND_NAMES, Fact
from backhaul_normalizer.rows import stored_fact


class Slot(NamedTuple):
    """A message, by its key, and a kind that happens to it once."""

    message: str
    kind: str


class _Cause(NamedTuple):
    """Why a slot is looked at: the positions in CALLBACKS of the event, and the event, that changed it."""

    seqs: list[int]
    event_id: str


class OnceOnly:
    """Decides which events of a draft count, once it is known which message each belongs to."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._members: dict[Slot, dict[str, Fact]] = {}
        self._causes: dict[Slot, _Cause] = {}
        self._left: dict[Slot, int] = {}
        self._expired: dict[Slot, str] = {}
        """The events that count and of which nothing is left but that."""

    def settle(self) -> None:
        """Mark those that duplicate a better one, and take the mark from those that do so no more."""
        for fact in self._draft.new.values():
            if fact.once:
                self._enter(fact, _Cause(sorted(fact.positions()), fact.id))
        for event_id, change in self._draft.changes.items():
            if change.before.once:
                cause = _Cause(change.seqs, change.moved_by or event_id)
                left = slot_of(change.before)
                self._left[left] = self._left.get(left, 0) + 1
                self._causes.setdefault(left, cause)
                self._enter(change.after, cause)
        self._load_others()
        for slot, members in self._members.items():
            # One that has expired goes on counting: nobody can make it a duplicate any more.
            best = self._expired.get(slot) or min(members.values(), key=_place).id
            for fact in members.values():
                duplicate_of = best if fact.id != best else ""
                if fact.duplicate_of != duplicate_of:
                    self._mark(fact, duplicate_of, self._causes[slot])

    def _enter(self, fact: Fact, cause: _Cause) -> None:
        slot = slot_of(fact)
        self._members.setdefault(slot, {})[fact.id] = fact
        self._causes.setdefault(slot, cause)

    def _load_others(self) -> None:
        """Read the stored events of these slots that do not change otherwise. Hardly any slot has one."""
        crowded = {slot for slot in self._causes if self._stored(slot) > self._left.get(slot, 0)}
        if not crowded:
            return
        messages, kinds = {slot.message for slot in crowded}, {slot.kind for slot in crowded}
        # To find them, all events of the message are looked at.
        self._draft.allowance.take(sum(self._draft.before[key]["event_count"] for key in messages), 0)
        for row in self._draft.snapshot.of_kinds(messages, kinds):
            slot = Slot(row["message"], row["kind"])
            if row.get("expired"):
                self._expired[slot] = row["_id"]
                continue
            self._draft.allowance.take(0, len(row["payload"]))
            if not row.get("once"):
                continue  # A sender told of it, which is a fact of its own.
            if slot in crowded and row["_id"] not in self._draft.changes:
                self._members.setdefault(slot, {})[row["_id"]] = stored_fact(row)

    def _stored(self, slot: Slot) -> int:
        before: Document = self._draft.before.get(slot.message, {})
        return sum(before.get(counts, {}).get(slot.kind, 0) for counts in ("kinds", "duplicates"))

    def _mark(self, fact: Fact, duplicate_of: str, cause: _Cause) -> None:
        change = self._draft.changes.get(fact.id)
        stored = change is None and fact.id not in self._draft.new
        marked = revised(fact, revision=fact.revision + stored, duplicate_of=duplicate_of)
        if change is not None:
            change.after = marked
        elif stored:
            self._draft.changes[fact.id] = Change(fact, marked, cause.seqs, cause.event_id)
        else:
            self._draft.new[fact.id] = marked


def slot_of(fact: Fact) -> Slot:
    """What ``fact`` happens to once."""
    return Slot(fact.message, KIND_NAMES[fact.event.kind])


def _place(fact: Fact) -> tuple[int, bool, str]:
    """The least is the best: the most trusted, and of those one under a first name of the message."""
    return -fact.trust, bool(fact.alias), fact.id
