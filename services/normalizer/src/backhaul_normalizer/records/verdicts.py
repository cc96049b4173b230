"""How what a provider's API tells stands to what is stored: worked out with what a commit works with, and not written.

A record all of whose facts are known as they are needs no more than these. What changes anything is decided by the plan
of a batch that would have this record alone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.erased import is_erased
from backhaul_common.names import DEAD_LETTERS_COLLECTION
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_BACKFILL
from backhaul_proto.normalizer.v1 import records_pb2 as pb

from backhaul_normalizer.facts import message_key
from backhaul_normalizer.merge import tells_more
from backhaul_normalizer.model import KIND_NAMES, Fact, Rejection
from backhaul_normalizer.naming import MAX_ALIASES
from backhaul_normalizer.plan import Plan, plan
from backhaul_normalizer.records.equals import Equals
from backhaul_normalizer.rows import stored_fact
from backhaul_normalizer.snapshot import TooMuchError
from backhaul_normalizer.states import RANK
from backhaul_normalizer.stored import Place, Stored

NEAR_US: Final = 300_000_000
"""Times of one fact that are less than this apart are one: a callback that names none came soon after it happened."""

_AT_ONCE, _AT_ONCE_BYTES = 256, 8 << 20
"""Stored events that are held against records at a time, and bytes of them."""


class Record(msgspec.Struct, gc=False):
    """What was read of a record: each of its facts once, the parts that cannot be read, and why others are ignored."""

    facts: Sequence[Fact]
    rejections: Sequence[Rejection] = ()
    ignored: str = ""


class Compared(msgspec.Struct, gc=False):
    """A ``Comparison`` of the contract; states are the values of kinds, empty where there is none."""

    verdict: pb.Verdict.ValueType
    message_id: str = ""
    message_known: bool = False
    told_state: str = ""
    told_error_code: str = ""
    stored_state: str = ""
    stored_error_code: str = ""
    state_after: str = ""
    occurred_at_us: int = 0
    heard_at_us: int = 0
    reason: str = ""


def compared(
    records: Sequence[Record], ends: float, database: mongo.ThreadDatabase, session: mongo.Session
) -> list[Compared]:
    """Each of ``records``, which are all of one registration, as it would change what ``session`` sees, were it
    processed alone. TimeoutError when the monotonic clock is past ``ends``."""
    return list(_Comparing(records, database, session).each(ends))


class _Unchanging(Stored):
    """What is stored, asked about again and again."""

    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        super().__init__(database, session)
        self._joins: dict[str, Document | None] = {}

    def joins(self, keys: Collection[str]) -> Iterable[Document]:
        missing = {key for key in keys if key not in self._joins}
        if missing:
            self._joins.update(dict.fromkeys(missing))
            self._joins.update((row["_id"], row) for row in super().joins(missing))
        return [row for key in keys if (row := self._joins[key]) is not None]

    def raw_of(self, key: str) -> Document | None:
        """The message of that key as it is stored."""
        message = bytes.fromhex(key)
        if message not in self.raw:
            self._load([key])
        return self.raw[message]

    def moved_by(self, event_ids: Collection[str]) -> Iterable[Document]:  # noqa: ARG002  # a record has no position in CALLBACKS yet, so it has moved nothing.
        return ()


class _Comparing:
    def __init__(self, records: Sequence[Record], database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        self._records = records
        self._stored = _Unchanging(database, session)
        self._equals = Equals(self._stored, database, session)
        facts = [fact for record in records for fact in record.facts]
        self._places = {place.ref.id.hex(): place for place in self._stored.found(facts)}
        # Asked for together, where each record would ask for its own.
        names = [(fact, name.alias) for fact in facts for name in fact.told_names()]
        keys = [message_key(fact.origin.registration, fact.origin.channel, alias) for fact, alias in names]
        self._stored.joins([*keys, *(fact.alias for fact in facts if fact.alias)])
        ids = [one.id for record in records for one in record.rejections]
        letters = database[DEAD_LETTERS_COLLECTION]
        found = letters.find({"_id": {"$in": ids}}, {"first_seen_at_us": 1}, session=session) if ids else ()
        self._letters = {row["_id"]: row["first_seen_at_us"] for row in found}

    def each(self, ends: float) -> Iterator[Compared]:
        for some in self._portions():
            ids = {fact.id for record in some for fact in record.facts} & self._places.keys()
            rows = {row["_id"]: row for row in self._stored.events(ids)} if ids else {}
            self._stored.rows.clear()
            for record in some:
                if time.monotonic() > ends:
                    raise TimeoutError
                yield self._of_facts(record, rows) if record.facts else self._without_facts(record)

    def _portions(self) -> Iterator[list[Record]]:
        some: list[Record] = []
        number = size = 0
        for record in self._records:
            places = [place for fact in record.facts if (place := self._places.get(fact.id)) is not None]
            own = sum(place.ref.size for place in places)
            if some and (number + len(places) > _AT_ONCE or size + own > _AT_ONCE_BYTES):
                yield some
                some, number, size = [], 0, 0
            some.append(record)
            number, size = number + len(places), size + own
        if some:
            yield some

    def _without_facts(self, record: Record) -> Compared:
        if not record.rejections:
            return Compared(pb.VERDICT_IGNORED, reason=record.ignored)
        # What is a dead letter already is the same one once more.
        seen = [self._letters.get(one.id, 0) for one in record.rejections]
        heard_at_us = max(seen) if all(seen) else 0
        return Compared(pb.VERDICT_UNREADABLE, heard_at_us=heard_at_us, reason=record.rejections[0].reason)

    def _of_facts(self, record: Record, rows: Mapping[str, Document]) -> Compared:
        furthest = max(record.facts, key=lambda fact: RANK.get(fact.event.kind, -1))
        alike: set[str] = set()
        heard: list[int] = []
        left: set[str] = set()
        for fact in record.facts:
            place = self._places.get(fact.id)
            if place is None:
                equal = self._equals.of(fact) if not fact.message else None
                if equal is None:
                    left.add(fact.id)
                else:
                    heard.append(_heard(*equal))
                continue
            row = rows.get(fact.id)
            kept = stored_fact(row) if row is not None else None
            heard.append(_heard(place, kept))
            # What has expired, or is erased, cannot be completed any more.
            if row is not None and is_erased(row["payload"]):
                kept = None
            if kept is not None and (tells_more(kept, fact, NEAR_US) or _proves(fact, kept)):
                left.add(fact.id)
            else:
                alike.add(fact.id)
        key = self._key_of(furthest, rows)
        verdict: pb.Verdict.ValueType = pb.VERDICT_KNOWN
        after: Document | None = None
        if left or self._tells_names(record.facts):
            facts = [fact for fact in record.facts if fact.id in left or fact.id in alike]
            verdict, key, after = self._planned(facts, alike, furthest, key, heard)
        raw = self._raw(key) or self._raw(furthest.message) or {}
        stored_state = raw.get("state", "")
        if verdict == pb.VERDICT_KNOWN and record.rejections:
            verdict = pb.VERDICT_UNREADABLE
        known = verdict != pb.VERDICT_MISSING
        return Compared(
            verdict,
            message_id=(after or raw).get("message_id", furthest.event.message_id),
            message_known=bool(raw),
            told_state=KIND_NAMES[furthest.event.kind],
            told_error_code=furthest.event.error_code,
            stored_state=stored_state,
            stored_error_code=raw.get("error_code", ""),
            state_after=after["state"] if after is not None else stored_state,
            occurred_at_us=furthest.event.occurred_at_us or 0,
            heard_at_us=max(heard) if known and heard and all(heard) else 0,
            reason=record.rejections[0].reason if record.rejections else "",
        )

    def _key_of(self, fact: Fact, rows: Mapping[str, Document]) -> str:
        """The key of the message that a fact is of, as far as it is stored."""
        place = self._places.get(fact.id)
        if place is not None and place.owner is not None:
            return place.owner.hex()
        return str(rows.get(fact.id, {}).get("message", fact.message))

    def _raw(self, key: str) -> Document | None:
        return self._stored.raw_of(key) if key else None

    def _tells_names(self, facts: Sequence[Fact]) -> bool:
        """Whether a message has a further name that it was not known to have, as ``Naming`` decides."""
        for fact in facts:
            for name in fact.told_names():
                known = dict((self._raw(name.message) or {}).get("aliases", ()))
                if known.get(name.alias, -1) < name.trust and (name.alias in known or len(known) < MAX_ALIASES):
                    return True
        return False

    def _planned(
        self, facts: Sequence[Fact], alike: Collection[str], furthest: Fact, key: str, heard: list[int]
    ) -> tuple[pb.Verdict.ValueType, str, Document | None]:
        """What becomes of ``facts``, of which ``alike`` are known as they are; the key of the message of ``furthest``,
        and that message as it is then, None where it stays as it is. To ``heard`` it adds when what they duplicate
        was."""
        try:
            planned = plan(self._stored, facts)
        except TooMuchError:
            # So many events would move that a batch had them one by one, and so are they here.
            return self._one_by_one(facts, alike, furthest, key, heard)
        after = {row["_id"]: row for row in (*planned.new_messages, *planned.messages)}
        for fact, _ in planned.events:
            if fact.id == furthest.id:
                key = fact.message
            if fact.duplicate_of and fact.duplicate_of in self._ids_of(fact.message):
                heard.append(self._heard_of(fact.duplicate_of))
        if (revision := planned.revisions.get(furthest.id)) is not None:
            key = revision.fact.message
        return self._verdict(planned, alike, after), key, after.get(key)

    def _one_by_one(
        self, facts: Sequence[Fact], alike: Collection[str], furthest: Fact, key: str, heard: list[int]
    ) -> tuple[pb.Verdict.ValueType, str, Document | None]:
        verdicts: set[pb.Verdict.ValueType] = set()
        found: tuple[str, Document | None] = key, None
        for fact in facts:
            verdict, where, after = self._planned([fact], alike, fact, fact.message, heard)
            verdicts.add(verdict)
            if fact is furthest:
                found = where, after
        # In the order in which the contract has them, but for what is known.
        worst = next((one for one in (pb.VERDICT_MISSING, pb.VERDICT_BETTER) if one in verdicts), pb.VERDICT_KNOWN)
        return worst, *found

    def _verdict(self, planned: Plan, alike: Collection[str], after: Mapping[str, Document]) -> pb.Verdict.ValueType:
        taken = {revision.fact.duplicate_of for revision in planned.revisions.values()}
        if any(fact.id not in taken for fact in planned.new):
            return pb.VERDICT_MISSING
        named = any(join["message"] for join in planned.new_joins)
        changed = any(_seen(row) != _seen(self._raw(key) or {}) for key, row in after.items())
        # What takes the place of an event that told the same under another name is known, and told better.
        if planned.new or named or changed or not planned.revisions.keys() <= set(alike):
            return pb.VERDICT_BETTER
        return pb.VERDICT_KNOWN

    def _ids_of(self, message: str) -> set[str]:
        return {place.ref.id.hex() for place in self._stored.places_of(message)}

    def _heard_of(self, event_id: str) -> int:
        rows = list(self._stored.events([event_id]))
        place = self._stored.places[bytes.fromhex(event_id)]
        return _heard(place, stored_fact(rows[0]) if rows else None)


def _seen(message: Document) -> list[Any]:
    """What people see of a message that even a duplicate may change, which counts for nothing else. A document leaves
    out what is empty."""
    return [message.get(name) or None for name in ("aliases", "state", "error_code", "invalid_recipient")]


def _proves(fact: Fact, kept: Fact) -> bool:
    """Whether nobody could tell before that the provider says so: the callback's signature was asked for and was not
    good. Where a channel asks for none, all of its events would be told anew."""
    return not kept.trust and fact.trust > 0


def _heard(place: Place, kept: Fact | None) -> int:
    """When a callback told of an event; 0 where the provider's API told of it first."""
    if kept is not None and kept.origin.source == SOURCE_BACKFILL:
        return 0
    return place.ref.received_at_us
