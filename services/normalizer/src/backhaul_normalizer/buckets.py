"""Events as they are stored: up to 32 of a tenant in one document, in the order of their arrival.

A bucket is written once and hardly ever touched again. Its index has what few of its events differ in: one entry for
the bucket, each kind, channel and communication. What most events differ in, their ids, messages and recipients, is in
no index of its own: it is found through the documents of their messages (``refs``).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping
from itertools import count
from secrets import randbits

from backhaul_channels import EventKind
from backhaul_common.documents import Document
from backhaul_proto.event.v1 import event_pb2

from backhaul_normalizer.refs import Mark, Ref

MAX_EVENTS, MAX_BYTES = 32, 512 << 10
"""Events of a bucket, and bytes of their payloads as they come in."""

MAX_SPAN_US = 60_000_000
"""How long after the first event of a bucket its last one may have arrived: a list that is read from some time on need
look at no bucket that is much later."""

MAX_GROWN_BYTES = 128 << 10
"""Up to this a payload that becomes larger stays where it is. All of a bucket's events together stay far below what
MongoDB takes as one document."""

ALL = "*"
"""The mark that every bucket has."""

_NUMBERS: Mapping[str, int] = {kind.value: event_pb2.EventKind.Value(f"EVENT_KIND_{kind.name}") for kind in EventKind}
_NAMES: Mapping[int, str] = {number: name for name, number in _NUMBERS.items()}

_ID = struct.Struct(">QI")
_serials = count(randbits(32))


def new_bucket_id() -> bytes:
    """12 bytes: microseconds since 1970, then what tells those of one microsecond apart. They ascend, so that what is
    written next lies beside what was written last."""
    return _ID.pack(time.time_ns() // 1000, next(_serials) & 0xFFFFFFFF)


def kind_mark(kind: str) -> str:
    """The mark of buckets with an event of that kind."""
    return f"kind:{kind}"


def channel_mark(channel: str) -> str:
    """The mark of buckets with an event of that channel."""
    return f"channel:{channel}"


def communication_mark(communication_id: str) -> str:
    """The mark of buckets with an event that is, or was, of that communication."""
    return f"communication:{communication_id}"


def kind_name(number: int) -> str:
    """The kind of that number in the contract; of a number that only a newer version knows, ``unknown``."""
    return _NAMES.get(number, EventKind.UNKNOWN.value)


def element(row: Document) -> Document:
    """An event as it stands in its bucket. ``row`` is as ``facts.event_document`` makes it, or a later revision."""
    stored: Document = {"id": bytes.fromhex(row["_id"]), "payload": row["payload"]}
    for name in ("message", "alias", "moved_by"):
        if row.get(name):
            stored[name] = bytes.fromhex(row[name])
    for name in ("communication_id", "revised_seqs"):
        if row.get(name):
            stored[name] = row[name]
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
    if ref.marks & Mark.ONCE:
        row["once"] = True
    return row


def ref_of(row: Document, bucket: bytes, slot: int) -> Ref:
    """The reference of an event in its place. Of ``row``, ``by_machine`` and ``entry`` need not be there."""
    marks = 0
    for mark, name in _MARKS:
        if row.get(name):
            marks |= mark
    return Ref(
        bytes.fromhex(row["_id"]),
        bucket,
        slot,
        _NUMBERS[row["kind"]],
        marks,
        row["digest"],
        len(row["payload"]),
        row["occurred_at_us"],
        row["received_at_us"],
        row["stream_seq"],
    )


_MARKS = (
    (Mark.PROVISIONAL, "alias"),
    (Mark.ONCE, "once"),
    (Mark.DUPLICATE, "duplicate_of"),
    (Mark.REVISED, "revised_seqs"),
    (Mark.BY_MACHINE, "by_machine"),
)


def asked(refs: Iterable[Ref]) -> tuple[Document, Document]:
    """The query and the projection by which the events in these places are read, and no others of their buckets."""
    refs = list(refs)
    wanted = {"$in": ["$$one.id", [ref.id for ref in refs]]}
    only = {"$filter": {"input": "$events", "as": "one", "cond": wanted}}
    return {"_id": {"$in": list({ref.bucket for ref in refs})}}, {"registration": 1, "events": only}


class Filling:
    """New buckets, as they are being filled."""

    def __init__(self) -> None:
        self.buckets: list[Document] = []
        self._open: dict[str, tuple[Document, int, int]] = {}

    def add(self, row: Document) -> Ref:
        """Put the event into a bucket of its registration; where it is now."""
        registration, at_us, size = row["registration"], row["received_at_us"], len(row["payload"])
        bucket, total, first_us = self._open.get(registration, (None, 0, 0))
        if (
            bucket is None
            or len(bucket["events"]) == MAX_EVENTS
            or total + size > MAX_BYTES
            or not bucket["at_us"] - MAX_SPAN_US <= at_us <= first_us + MAX_SPAN_US
        ):
            bucket = {
                "_id": new_bucket_id(),
                "registration": registration,
                "at_us": at_us,
                "marks": {ALL},
                "events": [],
            }
            self.buckets.append(bucket)
            total, first_us = 0, at_us
        self._open[registration] = bucket, total + size, min(first_us, at_us)
        bucket["at_us"] = max(bucket["at_us"], at_us)
        bucket["marks"].update(marks_of(row))
        if row.get("moved_by"):
            bucket.setdefault("moved_by", set()).add(bytes.fromhex(row["moved_by"]))
        bucket["events"].append(element(row))
        return ref_of(row, bucket["_id"], len(bucket["events"]) - 1)

    def documents(self) -> Iterable[Document]:
        """The buckets as they are to be stored."""
        return [
            {name: sorted(value) if isinstance(value, set) else value for name, value in bucket.items()}
            for bucket in self.buckets
        ]


def marks_of(row: Document) -> list[str]:
    """The marks that an event gives to its bucket."""
    marks = [kind_mark(row["kind"]), channel_mark(row["channel"])]
    if row.get("communication_id"):
        marks.append(communication_mark(row["communication_id"]))
    return marks
