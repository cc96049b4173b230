"""What MongoDB tells of rows to those who hold them in memory: all active ones, and then each change."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import bson
import pymongo
from backhaul_common import mongo
from backhaul_common.errors import unavailable
from backhaul_common.names import (
    SUPPRESSION_CHANGES_COLLECTION,
    SUPPRESSION_COUNTERS_COLLECTION,
    SUPPRESSIONS_COLLECTION,
)

from backhaul_suppression.copies import STEP_S
from backhaul_suppression.documents import COUNTER
from backhaul_suppression.entries import Entry, packed_words
from backhaul_suppression.index import Now
from backhaul_suppression.model import Address, Family, Kind, Scope, ScopeKind

Stored = tuple[str, str, str, bytes]
"""What ``Index.load`` takes."""

PAGE = 1000
"""Changes that are read at once."""

_BATCH = 1000
"""Rows that are loaded at once. The event loop stands still while they are decoded: a millisecond or two."""

_ENTRY = ("kind", "scope_kind", "scope", "since_us", "event_id")
_ADDRESS = ("registration", "family", "address")
_ROWS = {"_id": 0, **dict.fromkeys((*_ADDRESS, *_ENTRY), 1)}
_CHANGES = {**dict.fromkeys((*_ADDRESS, "row.active"), 1), **{f"row.{name}": 1 for name in _ENTRY}}


class Page(NamedTuple):
    """Changes in their order. ``applied`` is how far whoever applies ``rows`` is; ``changed`` are the
    registrations that they are of. ``more`` tells whether there may be more already."""

    applied: int
    rows: Sequence[Now]
    changed: Collection[str]
    more: bool


class MongoChanges:
    """Reads in threads, with the driver that motor is made of, as ``mongo.in_transaction`` does."""

    def __init__(self, database: mongo.Database) -> None:
        self._plain: mongo.ThreadDatabase = database.delegate

    async def load(self, put: Callable[[Iterable[Stored]], None]) -> int:
        """Call ``put``, in another thread, with all active rows, some at a time. Returns the change behind which to
        ``read`` on: rows may be newer than that, none is older. UNAVAILABLE."""
        stop = threading.Event()

        def run() -> int:
            # Before the rows: what changes while they are read is then read again as changes.
            seq = self._last(None)
            for rows in self._active(stop):
                put(rows)
            return seq

        async with mongo.translated():
            try:
                return await asyncio.to_thread(run)
            finally:
                # Cancelled, the thread goes on to its next batch.
                stop.set()

    async def read(self, after: int) -> Page:
        """The changes behind ``after``, ``PAGE`` at most. UNAVAILABLE; LookupError where there never were so many."""

        def run() -> Page:
            with pymongo.timeout(STEP_S), self._plain.client.start_session(causal_consistency=True) as session:
                # In this order, and the second never by an older state than the first: a change that is not found
                # although it is counted was deleted with its tenant, and nobody waits for it in vain.
                last = self._last(session)
                if last < after:
                    raise LookupError(f"MongoDB has {last} changes, and {after} were applied: it was set back.")
                if last == after:
                    return Page(after, (), (), more=False)
                query = {"_id": {"$gt": after}}
                found = self._plain[SUPPRESSION_CHANGES_COLLECTION].find(query, _CHANGES, session=session)
                return _page(list(found.sort("_id").limit(PAGE)), last)

        async with mongo.translated():
            return await asyncio.to_thread(run)

    def _last(self, session: mongo.Session | None) -> int:
        counter = self._plain[SUPPRESSION_COUNTERS_COLLECTION].find_one({"_id": COUNTER}, session=session)
        return int(counter["seq"]) if counter is not None else 0

    def _active(self, stop: threading.Event) -> Iterator[Iterable[Stored]]:
        rows = self._plain[SUPPRESSIONS_COLLECTION]
        # The cursor's type is that of documents; what it yields are the bytes of a batch of them.
        batches: Iterator[Any] = rows.find_raw_batches({"active": True}, _ROWS, batch_size=_BATCH)
        for batch in batches:
            if stop.is_set():
                raise unavailable("Suppression")
            yield map(_stored, bson.decode_all(batch))


def _stored(row: Mapping[str, Any]) -> Stored:
    value = packed_words(row["kind"], row["scope_kind"], row["scope"], row["since_us"], row.get("event_id", ""))
    return row["registration"], row["family"], row["address"], value


def _page(documents: Sequence[Mapping[str, Any]], last: int) -> Page:
    more = len(documents) == PAGE
    seen = documents[-1]["_id"] if documents else 0
    rows = [_now(document, document["row"]) for document in documents]
    changed = {document["registration"] for document in documents}
    return Page(seen if more else max(seen, last), rows, changed, more)


def _now(owner: Mapping[str, Any], row: Mapping[str, Any]) -> Now:
    kind, scope = Kind(row["kind"]), Scope(ScopeKind(row["scope_kind"]), row["scope"])
    entry = Entry(kind, scope, row["since_us"], row.get("event_id", "")) if row["active"] else None
    return Now(Address(owner["registration"], Family(owner["family"]), owner["address"]), kind, scope, entry)
