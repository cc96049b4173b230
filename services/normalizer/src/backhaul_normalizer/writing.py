"""A plan on its way into MongoDB: which documents change, and how."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import (
    BATCH_COUNTS_COLLECTION,
    COUNTS_COLLECTION,
    ENTRIES_COLLECTION,
    EVENTS_COLLECTION,
    JOINS_COLLECTION,
    MESSAGES_COLLECTION,
)
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_INBOUND
from pymongo.errors import BulkWriteError

from backhaul_normalizer import entries
from backhaul_normalizer.buckets import (
    MAX_GROWN_BYTES,
    OVERGROWN,
    PRUNING,
    Filling,
    communication_mark,
    element,
    kind_mark,
    ref_of,
)
from backhaul_normalizer.messages import stored_join, stored_message
from backhaul_normalizer.model import Fact
from backhaul_normalizer.plan import Plan, Revision
from backhaul_normalizer.refs import MAX_REFS, Mark, Ref, pack, unpack
from backhaul_normalizer.stored import Stored


class Commands:
    """Write commands within a transaction."""

    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        self._database = database
        self._session = session

    def insert(self, collection: str, documents: Sequence[Document]) -> None:
        """Insert ``documents``."""
        if documents:
            self._write({"insert": collection, "documents": documents, "ordered": False})

    def update(self, collection: str, updates: Sequence[Document]) -> None:
        """Apply the entries of an update command."""
        if updates:
            self._write({"update": collection, "updates": updates, "ordered": False})

    def delete(self, collection: str, ids: Sequence[bytes], *, only: Document | None = None) -> None:
        """Delete the documents with these ids; ``only`` those that meet this too, if it is given."""
        if ids:
            query = {"_id": {"$in": list(ids)}, **(only or {})}
            self._write({"delete": collection, "deletes": [{"q": query, "limit": 0}]})

    def _write(self, command: Document) -> None:
        # The bare command spares the driver's object for every operation, a third of what a batch costs here.
        reply = self._database.command(command, session=self._session)
        if reply.get("writeErrors"):
            raise BulkWriteError(dict(reply))


class BucketUpdates:
    """What changes in stored buckets."""

    def __init__(self) -> None:
        self._set: dict[bytes, Document] = defaultdict(dict)
        self._marks: dict[bytes, set[str]] = defaultdict(set)
        self._moved_by: dict[bytes, set[bytes]] = defaultdict(set)

    def set(self, ref: Ref, value: object, *within: str) -> None:
        """Set an event in its place, or a field of it."""
        self._set[ref.bucket][".".join(("events", str(ref.slot), *within))] = value

    def mark(self, ref: Ref, mark: str) -> None:
        """The bucket has such an event now."""
        self._marks[ref.bucket].add(mark)

    def moved_by(self, ref: Ref, event_id: bytes) -> None:
        """The bucket has an event that this one moved."""
        self._moved_by[ref.bucket].add(event_id)

    def entries(self) -> list[Document]:
        """The entries of an update command."""
        return [{"q": {"_id": bucket}, "u": self._update(bucket)} for bucket in self._buckets()]

    def pruning(self) -> list[Document]:
        """The entries of an update command that comes after it: no bucket has more marks than its events may need,
        whatever they were before, and how often they were moved."""
        return [{"q": {"_id": bucket, **OVERGROWN}, "u": PRUNING} for bucket in {**self._marks, **self._moved_by}]

    def _buckets(self) -> Iterable[bytes]:
        return {**self._set, **self._marks, **self._moved_by}

    def _update(self, bucket: bytes) -> Document:
        update: Document = {}
        if bucket in self._set:
            update["$set"] = self._set[bucket]
        added: Document = {}
        if bucket in self._marks:
            added["marks"] = {"$each": sorted(self._marks[bucket])}
        if bucket in self._moved_by:
            added["moved_by"] = {"$each": sorted(self._moved_by[bucket])}
        if added:
            update["$addToSet"] = added
        return update


class Writing:
    """Writes one plan. What it changes was read by ``stored``, in the same transaction. ``shard`` is where it is
    counted."""

    def __init__(self, stored: Stored, commands: Commands, planned: Plan, shard: int) -> None:
        self._stored = stored
        self._commands = commands
        self._planned = planned
        self._shard = shard
        self._filling = Filling()
        self._updates = BucketUpdates()
        self._refs: dict[bytes, dict[bytes, Ref]] = {}
        self._spilled: set[bytes] = set()
        self._new_entries: list[Document] = []
        self._entries: list[Document] = []

    def write(self) -> None:
        """Write all of it."""
        planned = self._planned
        # Before single events are moved: those have their communication from where they go. Replies have it from what
        # they answer, and get it when they are settled.
        for key, communication_id in planned.communications_of.items():
            self._name(key, communication_id)
        for event_id, revision in planned.revisions.items():
            self._revise(event_id, revision)
        for fact, communication_id in planned.events:
            self._add(fact, communication_id)
        self._commands.insert(EVENTS_COLLECTION, self._filling.documents())
        self._commands.update(EVENTS_COLLECTION, self._updates.entries())
        self._commands.update(EVENTS_COLLECTION, self._updates.pruning())
        self._commands.insert(ENTRIES_COLLECTION, self._new_entries)
        self._commands.update(ENTRIES_COLLECTION, self._entries)
        self._commands.insert(MESSAGES_COLLECTION, [self._message(one) for one in planned.new_messages])
        self._commands.update(MESSAGES_COLLECTION, [self._changed(one) for one in planned.messages])
        self._commands.delete(MESSAGES_COLLECTION, [bytes.fromhex(key) for key in planned.gone_messages])
        self._commands.insert(JOINS_COLLECTION, [stored_join(one) for one in planned.new_joins])
        self._commands.update(
            JOINS_COLLECTION,
            [{"q": {"_id": join["_id"]}, "u": join} for join in map(stored_join, planned.joins)],
        )
        self._commands.update(COUNTS_COLLECTION, planned.counts.updates(self._shard))
        self._commands.update(BATCH_COUNTS_COLLECTION, planned.batches.updates(self._shard))

    def _name(self, message: str, communication_id: str) -> None:
        """Have the events of a message named by their communication; but for those that change otherwise."""
        for place in self._stored.places_of(message):
            ref = place.ref
            if ref.id.hex() in self._planned.revisions or ref.kind == EVENT_KIND_INBOUND:
                continue
            self._updates.set(ref, communication_id, "communication_id")
            if communication_id:
                self._updates.mark(ref, communication_mark(communication_id))

    def _revise(self, event_id: str, revision: Revision) -> None:
        fact, communication_id = revision.fact, revision.communication_id
        place = self._stored.places[bytes.fromhex(event_id)]
        ref = place.ref
        before = self._stored.rows[event_id]
        moved_by = revision.moved_by or before.get("moved_by", "")
        if place.owner is not None:
            del self._refs_of(place.owner)[ref.id]
        if len(fact.payload) > MAX_GROWN_BYTES and len(fact.payload) > ref.size:
            self._updates.set(ref, None)
            after = self._filling.add(fact, communication_id, moved_by=moved_by)
        else:
            self._updates.set(ref, element(fact, communication_id, moved_by=moved_by))
            after = ref_of(fact, ref.bucket, ref.slot)
            if after.kind != ref.kind:
                self._updates.mark(ref, kind_mark(fact.event.kind.value))
            if communication_id and communication_id != before.get("communication_id"):
                self._updates.mark(ref, communication_mark(communication_id))
            if revision.moved_by:
                self._updates.moved_by(ref, bytes.fromhex(revision.moved_by))
        owner, alone = self._refer(fact.message, after)
        if ref.marks & Mark.ENTRY or place.owner is None or entries.needed(fact, alone=alone):
            after = self._with_entry(owner, after)
            self._entries.append(entries.update(entries.entry(fact, communication_id, after, alone=alone)))

    def _add(self, fact: Fact, communication_id: str) -> None:
        ref = self._filling.add(fact, communication_id)
        owner, alone = self._refer(fact.message, ref)
        if entries.needed(fact, alone=alone):
            ref = self._with_entry(owner, ref)
            self._new_entries.append(entries.entry(fact, communication_id, ref, alone=alone))

    def _refer(self, message: str, ref: Ref) -> tuple[bytes | None, bool]:
        """Have its message refer to an event. Which one does; and whether none does: there is none, or it refers to as
        many as it may."""
        if not message:
            return None, True
        owner = bytes.fromhex(message)
        refs = self._refs_of(owner)
        if len(refs) >= MAX_REFS:
            self._spilled.add(owner)
            return None, True
        refs[ref.id] = ref
        return owner, False

    def _with_entry(self, owner: bytes | None, ref: Ref) -> Ref:
        marked = ref._replace(marks=ref.marks | Mark.ENTRY)
        if owner is not None:
            self._refs_of(owner)[ref.id] = marked
        return marked

    def _refs_of(self, message: bytes) -> dict[bytes, Ref]:
        refs = self._refs.get(message)
        if refs is None:
            raw = self._stored.raw.get(message)
            refs = self._refs[message] = {ref.id: ref for ref in unpack(raw["refs"])} if raw is not None else {}
        return refs

    def _message(self, message: Document) -> Document:
        """The document of a message, as it is to be stored."""
        document = stored_message(message)
        key = document["_id"]
        refs = self._refs_of(key).values()
        document["refs"] = pack(refs)
        document["buckets"] = sorted({ref.bucket for ref in refs})
        raw = self._stored.raw.get(key)
        if key in self._spilled or (raw is not None and "spilled" in raw):
            document["spilled"] = True
        return document

    def _changed(self, message: Document) -> Document:
        after = self._message(message)
        before = self._stored.raw[after["_id"]] or {}
        changed = {name: value for name, value in after.items() if before.get(name) != value}
        gone = {name: "" for name in before if name not in after}
        return {"q": {"_id": after["_id"]}, "u": {"$set": changed, **({"$unset": gone} if gone else {})}}
