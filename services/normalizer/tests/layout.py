"""What MongoDB holds, read back document by document, and whether its parts agree with each other."""

from __future__ import annotations

from collections import Counter
from typing import Any

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import (
    COUNTS_COLLECTION,
    ENTRIES_COLLECTION,
    EVENTS_COLLECTION,
    JOINS_COLLECTION,
    MESSAGES_COLLECTION,
    RETENTION_COLLECTION,
)
from backhaul_normalizer import buckets, entries
from backhaul_normalizer.facts import address_of
from backhaul_normalizer.messages import join_of, message_of
from backhaul_normalizer.refs import Mark, Ref, unpack
from backhaul_proto.event.v1.event_pb2 import Event


async def rows_of(database: mongo.Database, collection: str) -> list[Document]:
    """The rows that a collection's documents stand for."""
    if collection == EVENTS_COLLECTION:
        return await event_rows(database)
    found = await database[collection].find().to_list(None)
    forms = {MESSAGES_COLLECTION: message_of, JOINS_COLLECTION: join_of}
    return [forms[collection](row) for row in found] if collection in forms else found


async def event_rows(database: mongo.Database) -> list[Document]:
    """All events, with what their messages and entries have of them."""
    places = await _places(database)
    found_entries = {one["_id"]: one async for one in database[ENTRIES_COLLECTION].find()}
    rows = []
    async for bucket in database[EVENTS_COLLECTION].find().sort("_id"):
        for slot, one in enumerate(bucket["events"]):
            if one is None:
                continue  # It became too large for its place.
            ref = places.pop(one["id"])
            assert (ref.bucket, ref.slot) == (bucket["_id"], slot)
            event = Event.FromString(one["payload"])
            row = buckets.row_of(ref, one, bucket["registration"])
            row |= {"channel": event.channel}
            if event.duplicate_of:
                row["duplicate_of"] = event.duplicate_of
            if event.recipient:
                row["address"] = address_of(event.recipient)
            if event.error_code:
                row["error_code"] = event.error_code
            if event.HasField("sequence"):
                row["sequence"] = event.sequence
            assert bool(ref.marks & Mark.DUPLICATE) == bool(event.duplicate_of)
            assert bool(ref.marks & Mark.ENTRY) == (ref.id in found_entries)
            entry = found_entries.get(ref.id, {})
            assert ref.id in found_entries or not (row["kind"] == "inbound" or "error_code" in row)
            assert {buckets.kind_mark(row["kind"]), buckets.channel_mark(event.channel)} <= set(bucket["marks"])
            if row.get("communication_id"):
                assert buckets.communication_mark(row["communication_id"]) in bucket["marks"]
            assert bucket["at_us"] - buckets.MAX_SPAN_US <= bucket["first_us"]
            assert bucket["first_us"] <= event.received_at_us <= bucket["at_us"]
            assert (row["kind"], ref.received_at_us) == (buckets.kind_name(event.kind), event.received_at_us)
            rows.append(row | entries.told(entry))
    # Whatever is referred to is there, unless its whole bucket has expired.
    buckets_left = {bucket["_id"] async for bucket in database[EVENTS_COLLECTION].find({}, {"_id": 1})}
    assert not {ref.bucket for ref in places.values()} & buckets_left
    assert not places or await database[RETENTION_COLLECTION].find_one() is not None
    return rows


async def _places(database: mongo.Database) -> dict[bytes, Ref]:
    """Where each event is; it is known in one place alone."""
    times: Counter[bytes] = Counter()
    places: dict[bytes, Ref] = {}
    async for message in database[MESSAGES_COLLECTION].find():
        refs = list(unpack(message["refs"]))
        assert sorted({ref.bucket for ref in refs}) == message["buckets"]
        times.update(ref.id for ref in refs)
        places.update((ref.id, ref) for ref in refs)
    async for one in database[ENTRIES_COLLECTION].find():
        ref = entries.ref_in(one)
        if "alone" in one:
            times[ref.id] += 1
            places[ref.id] = ref
        else:
            assert (places[ref.id].bucket, places[ref.id].slot) == (ref.bucket, ref.slot)
    assert set(times.values()) <= {1}
    return places


async def communications(database: mongo.Database) -> list[Document]:
    """The communications, each with the sums of its counts; what belongs to none is not among them."""
    found: dict[tuple[str, str], Document] = {}
    async for one in database[COUNTS_COLLECTION].find({"communication_id": {"$gt": ""}}):
        names = {name: one[name] for name in ("registration", "communication_id")}
        sums = found.setdefault(tuple(names.values()), {**names, "messages": 0, "events": {}, "fulfilment": {}})
        for part in (*one.get("hours", {}).values(), {"replies": one.get("replies", {})}):
            _add(sums, part)
    return list(found.values())


def _add(sums: Document, part: Document) -> None:
    for name, value in part.items():
        if isinstance(value, dict):
            _add(sums.setdefault(name, {}), value)
        else:
            sums[name] = sums.get(name, 0) + value


def fits(row: Document, query: dict[str, Any]) -> bool:
    """Whether a row has these values."""
    return all(
        row.get(name) != value["$ne"] if isinstance(value, dict) else row.get(name) == value
        for name, value in query.items()
    )
