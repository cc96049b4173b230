"""What a transaction sees of events, messages and joins: a ``Snapshot``, and where what it read lies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import ENTRIES_COLLECTION, EVENTS_COLLECTION, JOINS_COLLECTION, MESSAGES_COLLECTION

from backhaul_normalizer import buckets, entries
from backhaul_normalizer.counts import Counted
from backhaul_normalizer.joins import Joins
from backhaul_normalizer.messages import join_of, message_of
from backhaul_normalizer.model import Fact
from backhaul_normalizer.refs import Mark, Ref, unpack

_AT_ONCE = 32
"""Events of one query. The server compares each event of their buckets with each that is asked for."""

_Wanted: TypeAlias = Callable[[Ref], bool]


@dataclass(slots=True)
class Place:
    """Where an event is: its reference, and the message that has it; None where it is alone."""

    ref: Ref
    owner: bytes | None


class Stored:
    """A ``Snapshot``. What it was asked for once it still knows: nothing changes in a transaction but by itself."""

    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        self._database = database
        self._session = session
        self.raw: dict[bytes, Document | None] = {}
        """Messages as they are stored, None where there is none."""
        self.places: dict[bytes, Place] = {}
        self.rows: dict[str, Document] = {}
        """Events that were read whole."""
        self.with_entry: dict[bytes, Document] = {}
        """Entries that were read, by the ids of their events."""

    # Snapshot

    def known(self, facts: Collection[Fact]) -> Iterable[Document]:
        found = self.found(facts)
        revised = [place for place in found if place.ref.marks & Mark.REVISED]
        whole = {row["_id"]: row for row in self._whole(revised)}
        return [_known(place.ref, whole.get(place.ref.id.hex())) for place in found]

    def found(self, facts: Collection[Fact]) -> Sequence[Place]:
        """The places of those of ``facts`` that are stored."""
        keys = {fact.message for fact in facts if fact.message}
        named = {fact.message for fact in facts if fact.message and fact.origin.once}
        steps: dict[str, set[str]] = {}
        if named:
            # Under a further name an event may have been moved to wherever that leads, or led until the event expired.
            # Only providers that have several names for a message have kinds that happen to it once.
            joins = Joins(self, named)
            steps = {key: joins.ever(key) for key in named}
            keys.update(*steps.values())
        self._load(keys)
        spilled = {key for key in keys if self._spilled(key)}
        alone = [
            bytes.fromhex(fact.id)
            for fact in facts
            if not fact.message or (spilled and not spilled.isdisjoint(steps.get(fact.message, {fact.message})))
        ]
        self._load_entries({"_id": {"$in": alone}} if alone else None)
        if not self.places:
            return []
        return [place for fact in facts if (place := self.places.get(bytes.fromhex(fact.id))) is not None]

    def events(self, event_ids: Collection[str]) -> Iterable[Document]:
        return self._whole([self.places[bytes.fromhex(event_id)] for event_id in event_ids])

    def events_of(self, messages: Collection[str]) -> Iterable[Document]:
        return self._of(messages, lambda _: True, {})

    def of_kinds(self, messages: Collection[str], kinds: Collection[str]) -> Iterable[Document]:
        def wanted(ref: Ref) -> bool:
            return buckets.kind_name(ref.kind) in kinds

        there = set()
        for row in self._of(messages, wanted, {"kind": {"$in": list(kinds)}}):
            there.add(row["_id"])
            yield row
        for key in messages:
            raw = self.raw[bytes.fromhex(key)]
            for ref in unpack(raw["refs"]) if raw is not None else ():
                if (
                    wanted(ref)
                    and ref.marks & Mark.ONCE
                    and not ref.marks & Mark.DUPLICATE
                    and ref.id.hex() not in there
                ):
                    yield {"_id": ref.id.hex(), "message": key, "kind": buckets.kind_name(ref.kind), "expired": True}

    def provisional(self, messages: Collection[str], most: int) -> Iterable[Document]:
        found = self._of(messages, lambda ref: bool(ref.marks & Mark.PROVISIONAL), {"alias": {"$gt": b""}}, most)
        return islice(found, most)

    def moved_by(self, event_ids: Collection[str]) -> Iterable[Document]:
        ids = [bytes.fromhex(event_id) for event_id in event_ids]
        only = {"$filter": {"input": "$events", "as": "one", "cond": {"$in": ["$$one.moved_by", ids]}}}
        found = list(self._find(EVENTS_COLLECTION, {"moved_by": {"$in": ids}}, {"registration": 1, "events": only}))
        moved = [one for bucket in found for one in bucket["events"]]
        self._load({one["message"].hex() for one in moved if "message" in one})
        strange = [one["id"] for one in moved if one["id"] not in self.places]
        self._load_entries({"_id": {"$in": strange}} if strange else None)
        # The message of one that is about to expire may be gone already.
        return self._whole([self.places[one["id"]] for one in moved if one["id"] in self.places])

    def counted(self, messages: Collection[str]) -> Mapping[str, Iterable[Counted]]:
        return {key: [_counted(place.ref) for place in self.places_of(key)] for key in messages}

    def messages(self, keys: Collection[str]) -> Iterable[Document]:
        self._load(keys)
        return [message_of(raw) for key in keys if (raw := self.raw[bytes.fromhex(key)]) is not None]

    def joins(self, keys: Collection[str]) -> Iterable[Document]:
        ids = [bytes.fromhex(key) for key in keys]
        return map(join_of, self._find(JOINS_COLLECTION, {"_id": {"$in": ids}}) if ids else ())

    # What whoever writes asks besides

    def with_entries(self, event_ids: Collection[str]) -> Iterable[Document]:
        """The stored events among these that have an entry, whole."""
        ids = [bytes.fromhex(event_id) for event_id in event_ids]
        return self._whole(self._load_entries({"_id": {"$in": ids}} if ids else None))

    def places_of(self, message: str) -> Sequence[Place]:
        """The places of all events of a message."""
        key = bytes.fromhex(message)
        self._load([message])
        if self._spilled(message):
            self._load_entries({"message": key})
        raw = self.raw[key]
        own = [self.places[ref.id] for ref in unpack(raw["refs"])] if raw is not None else []
        return own + [
            self.places[one["_id"]] for one in self.with_entry.values() if one.get("message") == key and "alone" in one
        ]

    def _load(self, keys: Collection[str]) -> None:
        missing = {one for key in keys if (one := bytes.fromhex(key)) not in self.raw}
        if not missing:
            return
        self.raw.update(dict.fromkeys(missing))
        for raw in self._find(MESSAGES_COLLECTION, {"_id": {"$in": list(missing)}}):
            key = raw["_id"]
            self.raw[key] = raw
            self.places.update((ref.id, Place(ref, key)) for ref in unpack(raw["refs"]))

    def _spilled(self, key: str) -> bool:
        raw = self.raw.get(bytes.fromhex(key))
        return raw is not None and raw.get("spilled", False)

    def _load_entries(self, query: Document | None) -> list[Place]:
        """Entries of events that are alone, or of which it is not known yet where they are."""
        found = []
        for one in self._find(ENTRIES_COLLECTION, query) if query else ():
            self.with_entry[one["_id"]] = one
            found.append(self.places.setdefault(one["_id"], Place(entries.ref_in(one), None)))
        return found

    def _of(
        self, messages: Collection[str], wanted: _Wanted, alone: Document, most: int | None = None
    ) -> Iterator[Document]:
        self._load(messages)
        raws = [raw for key in messages if (raw := self.raw[bytes.fromhex(key)]) is not None]
        yield from self._whole([self.places[ref.id] for raw in raws for ref in unpack(raw["refs"]) if wanted(ref)])
        spilled = [raw["_id"] for raw in raws if raw.get("spilled")]
        if spilled:
            query = {"message": {"$in": spilled}, **alone}
            found = self._find(ENTRIES_COLLECTION, query, limit=most or 0)
            while some := list(islice(found, _AT_ONCE)):
                self.with_entry.update((one["_id"], one) for one in some)
                yield from self._whole(
                    [self.places.setdefault(one["_id"], Place(entries.ref_in(one), None)) for one in some]
                )

    def _whole(self, places: Sequence[Place]) -> Iterator[Document]:
        """The events in these places, with what their entries have of them; a few at a time."""
        places = sorted(places, key=lambda place: place.ref.bucket)
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            replies = [
                place.ref.id for place in some if place.ref.id not in self.with_entry and place.ref.marks & Mark.ENTRY
            ]
            self._load_entries({"_id": {"$in": replies}} if replies else None)
            refs = {place.ref.id: place.ref for place in some}
            for bucket in self._find(EVENTS_COLLECTION, *buckets.asked(refs.values())):
                for one in bucket["events"]:
                    row = buckets.row_of(refs[one["id"]], one, bucket["registration"])
                    row |= entries.told(self.with_entry.get(one["id"], {}))
                    self.rows[row["_id"]] = row
                    yield row

    def _find(
        self, collection: str, query: Document, projection: Document | None = None, limit: int = 0
    ) -> mongo.ThreadCursor:
        return self._database[collection].find(query, projection, session=self._session, limit=limit)


def _counted(ref: Ref) -> Counted:
    return Counted(
        ref.id.hex(),
        buckets.kind_name(ref.kind),
        ref.occurred_at_us,
        ref.received_at_us,
        bool(ref.marks & Mark.BY_MACHINE),
        bool(ref.marks & Mark.DUPLICATE),
    )


def _known(ref: Ref, row: Document | None) -> Document:
    return {
        "_id": ref.id.hex(),
        "stream_seq": ref.stream_seq,
        "revised_seqs": row.get("revised_seqs", ()) if row is not None else (),
        "digest": ref.digest,
        "occurred_at_us": ref.occurred_at_us,
        "size": ref.size,
    }
