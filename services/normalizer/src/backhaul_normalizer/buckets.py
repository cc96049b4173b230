"""Events as they are stored: up to 32 of a tenant in one document, in the order of their arrival.

A bucket is written once and hardly ever touched again. Its index has what few of its events differ in: one entry for
the bucket, each kind, channel and communication. What most events differ in, their ids, messages and recipients, is in
no index of its own: it is found through the documents of their messages (``refs``).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping
from secrets import randbits

from backhaul_channels import EventKind
from backhaul_common.documents import Document

from backhaul_normalizer.facts import KIND_TO_PROTO
from backhaul_normalizer.model import Fact
from backhaul_normalizer.refs import Mark, Ref

MAX_EVENTS, MAX_BYTES = 32, 512 << 10
"""Events of a bucket, and bytes of their payloads as they come in."""

MAX_SPAN_US = 5_000_000
"""How long after the first event of a bucket its last one may have arrived. A list that is read from some time on looks
at the index of all buckets that end within so long after it, and at those of them that began before."""

MAX_GROWN_BYTES = 128 << 10
"""Up to this a payload that becomes larger stays where it is. All of a bucket's events together stay far below what
MongoDB takes as one document."""

MAX_MARKS = 128
"""Marks of a bucket, and events that moved any of its. Those that are in it need some eighty at most, but a message's
communication may change with each callback about it."""

ALL = "*"
"""The mark that every bucket has."""

_NAMES: Mapping[int, str] = {number: kind.value for kind, number in KIND_TO_PROTO.items()}

_ID = struct.Struct(">QI")

_COMMUNICATION = "communication:"


def _of_events(field: str, least: object, value: object) -> Document:
    """``value`` of each event that has ``field``, as an expression of the server's."""
    having = {"$filter": {"input": "$events", "as": "one", "cond": {"$gt": [f"$$one.{field}", least]}}}
    return {"$map": {"input": having, "as": "one", "in": value}}


OVERGROWN: Document = {"$or": [{f"{field}.{MAX_MARKS}": {"$exists": True}} for field in ("marks", "moved_by")]}
"""The query for a bucket that has more of either than it may."""

_LASTING = {"$ne": [{"$substrCP": ["$$mark", 0, len(_COMMUNICATION)]}, _COMMUNICATION]}
_NAMED = _of_events("communication_id", "", {"$concat": [_COMMUNICATION, "$$one.communication_id"]})

PRUNING: list[Document] = [
    {
        "$set": {
            "marks": {"$setUnion": [{"$filter": {"input": "$marks", "as": "mark", "cond": _LASTING}}, _NAMED]},
            "moved_by": {"$setUnion": [_of_events("moved_by", None, "$$one.moved_by")]},
        }
    }
]
"""The update that leaves a bucket what its events need now."""


def new_bucket_id() -> bytes:
    """12 bytes: microseconds since 1970, then 32 random bits, which tell those of one microsecond apart. They ascend,
    so that what is written next lies beside what was written last."""
    return _ID.pack(time.time_ns() // 1000, randbits(32))


def id_at(at_us: int) -> bytes:
    """Less than the ids of all buckets that are made from then on, and greater than those of all before."""
    return _ID.pack(at_us, 0)


def kind_mark(kind: str) -> str:
    """The mark of buckets with an event of that kind."""
    return f"kind:{kind}"


def channel_mark(channel: str) -> str:
    """The mark of buckets with an event of that channel."""
    return f"channel:{channel}"


def communication_mark(communication_id: str) -> str:
    """The mark of buckets with an event that is, or was, of that communication."""
    return f"{_COMMUNICATION}{communication_id}"


def kind_name(number: int) -> str:
    """The kind of that number in the contract; of a number that only a newer version knows, ``unknown``."""
    return _NAMES.get(number, EventKind.UNKNOWN.value)


def element(fact: Fact, communication_id: str, *, moved_by: str = "") -> Document:
    """An event as it stands in its bucket. ``communication_id`` is that of its message; ``moved_by`` is that of its
    latest revision that has any."""
    stored: Document = {"id": bytes.fromhex(fact.id), "payload": fact.payload}
    if fact.message:
        stored["message"] = bytes.fromhex(fact.message)
    if communication_id:
        stored["communication_id"] = communication_id
    if fact.alias:
        stored["alias"] = bytes.fromhex(fact.alias)
    if fact.revised_seqs:
        stored["revised_seqs"] = fact.revised_seqs
    if fact.left:
        stored["left"] = [bytes.fromhex(message) for message in fact.left]
    if moved_by:
        stored["moved_by"] = bytes.fromhex(moved_by)
    return stored


def row_of(ref: Ref, stored: Document, registration: str) -> Document:
    """The event's row again; what an entry has of it besides is not in it."""
    row: Document = {
        "_id": ref.id.hex(),
        "registration": registration,
        "kind": kind_name(ref.kind),
        "received_at_us": ref.received_at_us,
        "occurred_at_us": ref.occurred_at_us,
        "stream_seq": ref.stream_seq,
        "digest": ref.digest,
        "payload": stored["payload"],
    }
    for name in ("message", "alias", "moved_by"):
        if name in stored:
            row[name] = stored[name].hex()
    for name in ("communication_id", "revised_seqs"):
        if name in stored:
            row[name] = stored[name]
    if "left" in stored:
        row["left"] = [message.hex() for message in stored["left"]]
    if ref.marks & Mark.ONCE:
        row["once"] = True
    return row


def ref_of(fact: Fact, bucket: bytes, slot: int) -> Ref:
    """The reference of an event in its place."""
    marks = 0
    if fact.once:
        marks |= _ONCE
    if fact.alias:
        marks |= _PROVISIONAL
    if fact.duplicate_of:
        marks |= _DUPLICATE
    if fact.event.by_machine:
        marks |= _BY_MACHINE
    if fact.revised_seqs:
        marks |= _REVISED
    origin = fact.origin
    return Ref(
        bytes.fromhex(fact.id),
        bucket,
        slot,
        KIND_TO_PROTO[fact.event.kind],
        marks,
        fact.digest,
        len(fact.payload),
        fact.occurred_at_us,
        origin.received_at_us,
        origin.stream_seq,
    )


# An enumeration's own arithmetic costs more than all else here.
_ONCE, _PROVISIONAL, _DUPLICATE = Mark.ONCE.value, Mark.PROVISIONAL.value, Mark.DUPLICATE.value
_BY_MACHINE, _REVISED = Mark.BY_MACHINE.value, Mark.REVISED.value


def asked(refs: Iterable[Ref]) -> tuple[Document, Document]:
    """The query and the projection by which the events in these places are read, and no others of their buckets."""
    refs = list(refs)
    wanted = {"$in": ["$$one.id", [ref.id for ref in refs]]}
    only = {"$filter": {"input": "$events", "as": "one", "cond": wanted}}
    return {"_id": {"$in": list({ref.bucket for ref in refs})}}, {"registration": 1, "events": only}


class _Bucket:
    """One that is being filled. ``differing`` has kind, channel and communication of its events, each once."""

    __slots__ = ("differing", "events", "first_us", "id", "last_us", "moved_by", "registration", "size")

    def __init__(self, registration: str, at_us: int) -> None:
        self.id = new_bucket_id()
        self.registration = registration
        self.first_us = self.last_us = at_us
        self.size = 0
        self.differing: set[tuple[EventKind, str, str]] = set()
        self.moved_by: set[bytes] = set()
        self.events: list[Document] = []

    def takes(self, at_us: int, size: int) -> bool:
        """Whether one more event, which arrived then, fits in."""
        return (
            len(self.events) < MAX_EVENTS
            and self.size + size <= MAX_BYTES
            and self.last_us - MAX_SPAN_US <= at_us <= self.first_us + MAX_SPAN_US
        )

    def document(self) -> Document:
        """The bucket as it is to be stored."""
        marks = {ALL}
        for kind, channel, communication_id in self.differing:
            marks |= {kind_mark(kind.value), channel_mark(channel)}
            if communication_id:
                marks.add(communication_mark(communication_id))
        document: Document = {
            "_id": self.id,
            "registration": self.registration,
            "at_us": self.last_us,
            "first_us": self.first_us,
            "marks": sorted(marks),
            "events": self.events,
        }
        return {**document, "moved_by": sorted(self.moved_by)} if self.moved_by else document


class Filling:
    """New buckets, as they are being filled."""

    def __init__(self) -> None:
        self._buckets: list[_Bucket] = []
        self._open: dict[str, _Bucket] = {}

    def add(self, fact: Fact, communication_id: str, *, moved_by: str = "") -> Ref:
        """See ``element``; where the event is now."""
        origin, size = fact.origin, len(fact.payload)
        registration, at_us = origin.registration, origin.received_at_us
        bucket = self._open.get(registration)
        if bucket is None or not bucket.takes(at_us, size):
            bucket = self._open[registration] = _Bucket(registration, at_us)
            self._buckets.append(bucket)
        elif at_us > bucket.last_us:
            bucket.last_us = at_us
        elif at_us < bucket.first_us:
            bucket.first_us = at_us
        bucket.size += size
        bucket.differing.add((fact.event.kind, origin.channel, communication_id))
        if moved_by:
            bucket.moved_by.add(bytes.fromhex(moved_by))
        bucket.events.append(element(fact, communication_id, moved_by=moved_by))
        return ref_of(fact, bucket.id, len(bucket.events) - 1)

    def documents(self) -> list[Document]:
        """The buckets as they are to be stored."""
        return [bucket.document() for bucket in self._buckets]
