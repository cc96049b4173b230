"""How many destinations of a batch are in which state, as they are counted and stored.

A batch's counts are several documents, its *shards*, of which one copy of the service adds to one: see ``counts``. A
destination counts in the fulfilment state of the message that holds it. Whatever changes that takes it out of one state
and into another, in the transaction that makes the change, so the sums are what a recount would find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from backhaul_common.documents import Document

from backhaul_normalizer.communications.documents import PROCESSED, batch_of, count_id, member_of
from backhaul_normalizer.counts import MAX_SHARDS


class BatchCounts:
    """By how much the counts of batches change through what one transaction writes."""

    def __init__(self) -> None:
        self._states: dict[bytes, Counter[str]] = {}
        self._changes: Counter[bytes] = Counter()
        self._registrations: dict[bytes, str] = {}
        self.processed: dict[bytes, str] = {}
        """The members of which a destination was processed by it, each with its registration."""

    @property
    def batches(self) -> Collection[bytes]:
        """The keys of those whose counts change."""
        return self._changes.keys()

    def message(self, before: Document, after: Document | None) -> None:
        """A message that may hold a destination is ``after`` now, None where it is gone."""
        if "holds" in before:
            state = after["fulfilment"] if after is not None else ""
            self.destination(before["registration"], before["dest"], before["fulfilment"], state)

    def destination(self, registration: str, destination: bytes, before: str, after: str) -> None:
        """A destination counts as ``after`` now; a fulfilment state that is empty is none."""
        if before == after:
            return
        batch = batch_of(destination)
        states = self._states.setdefault(batch, Counter())
        if before:
            states[before] -= 1
        if after:
            states[after] += 1
        if after in PROCESSED and before not in PROCESSED:
            self.processed[member_of(destination)[0]] = registration
        self._changes[batch] += 1
        self._registrations[batch] = registration

    def updates(self, shard: int) -> list[Document]:
        """The entries of an update command that apply it to the documents of that shard; they make those that are
        missing."""
        updates: list[Document] = []
        for batch, changes in self._changes.items():
            changed = {f"fulfilment.{state}": change for state, change in self._states[batch].items() if change}
            update: Document = {"$setOnInsert": {"registration": self._registrations[batch]}}
            if changed:
                update["$inc"] = changed
            query = {"_id": count_id(batch, shard)}
            updates.append({"q": query, "u": update, "upsert": True})
            # Whoever completes the batch writes every shard. So a change is before that, or it is late.
            updates.append({"q": {**query, "complete": True}, "u": {"$inc": {"late": changes}}})
        return updates


def completed(batch: bytes, registration: str) -> list[Document]:
    """The entries of an update command by which all that changes from then on is late."""
    update: Document = {"$set": {"complete": True}, "$setOnInsert": {"registration": registration}}
    return [{"q": {"_id": count_id(batch, shard)}, "u": update, "upsert": True} for shard in range(MAX_SHARDS)]


def ids_of(batch: bytes) -> Document:
    """The condition on ``_id`` for all shards of a batch."""
    return {"$gte": count_id(batch, 0), "$lte": count_id(batch, MAX_SHARDS - 1)}


def summed(shards: Collection[Document]) -> tuple[dict[str, int], int]:
    """The destinations by fulfilment state, without those that are zero, and how many changes were late."""
    states: Counter[str] = Counter()
    for one in shards:
        states.update(one.get("fulfilment", {}))
    return {state: count for state, count in states.items() if count}, sum(one.get("late", 0) for one in shards)
