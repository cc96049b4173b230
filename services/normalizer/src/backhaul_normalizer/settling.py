"""Replies in MongoDB: found when what they depend on has changed, and settled in transactions of their own.

A batch's own transaction cannot do it. Of a reply and a message that two copies of the service commit at the same time,
neither sees the other's, and they write no document both. Here it is done after the commit, so that whoever commits
later sees both; and before anything of the batch is published or acknowledged, so that a crash in between is made good
by the redelivery.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

from backhaul_common import mongo
from backhaul_common.disposition import Disposition, disposition
from backhaul_common.documents import Document
from backhaul_common.fence import living
from backhaul_common.logs import get_logger
from backhaul_common.names import COUNTS_COLLECTION, ENTRIES_COLLECTION, EVENTS_COLLECTION, MESSAGES_COLLECTION

from backhaul_normalizer.attribution import Ask, Settled, Touched, settle
from backhaul_normalizer.buckets import communication_mark
from backhaul_normalizer.counts import Shards
from backhaul_normalizer.messages import message_of
from backhaul_normalizer.model import Outgoing
from backhaul_normalizer.stored import Stored
from backhaul_normalizer.writing import BucketUpdates, Commands

MAX_WAITING = 128
"""Replies that are settled anew because of one message that changed, or of one name: those that were written first, of
those to which it may matter. Hardly anybody writes more to one message before it is known."""

MAX_FOUND = 4096
"""Replies that are settled anew because of what one commit changed. Those that it brings itself come on top."""

MAX_AT_ONCE = 256
"""Replies in one transaction."""

MAX_CANDIDATES = 4096
"""Messages that are read at once to find the latest among them. Where there are more, each reply asks by itself."""

_WAITING = {"waits_for": 1, "occurred_at_us": 1}
_CANDIDATE = {"pair": 1, "first_at_us": 1, "channel": 1, "message_id": 1, "communication_id": 1}


class Settling:
    """Settles replies, until nothing about them changes any more."""

    def __init__(self, database: mongo.Database, shards: Shards) -> None:
        self._database = database
        self._shards = shards
        self._log = get_logger(component="settling")

    async def settle(self, touched: Touched, tenants: Collection[str]) -> Sequence[Outgoing]:
        """Settle all that ``touched`` matters to, which is of registrations that have a reply; what is to be published
        then, each event once. ``tenants`` are those of the commit. UNAVAILABLE, and all may be done again then."""
        found = await self._found(touched)
        publish = frozenset(event_id for event_id, again in found.items() if again)
        event_ids = sorted(touched.replies | found.keys())
        outgoing: dict[str, Outgoing] = {}
        for start in range(0, len(event_ids), MAX_AT_ONCE):
            await self._settle(event_ids[start : start + MAX_AT_ONCE], tenants, publish, outgoing)
        return list(outgoing.values())

    async def _settle(
        self,
        event_ids: Sequence[str],
        tenants: Collection[str],
        publish: Collection[str],
        outgoing: dict[str, Outgoing],
    ) -> None:
        while event_ids:
            some = event_ids
            try:
                work = partial(_settled, some, tenants, publish, self._shards.of_transaction())
                settled = await mongo.in_transaction(self._database, work)
            except Exception as exc:
                if disposition(exc) is Disposition.AWAY or mongo.is_transient(exc):
                    raise
                if len(some) == 1:
                    # Nothing else must wait for it, and it is stored.
                    self._log.error("reply_not_settled", event_id=some[0], exc_info=exc)
                    return
                middle = len(some) // 2
                await self._settle(some[:middle], tenants, publish, outgoing)
                event_ids = some[middle:]
                continue
            outgoing.update((event.id, event) for event in settled.outgoing)
            # What it was made of may have changed meanwhile, by whoever did not find it yet by what it waits for now.
            event_ids, publish = sorted(settled.updates), ()

    async def _found(self, touched: Touched) -> dict[str, bool]:
        """The replies that wait for what was touched, and whether one of that was delivered again."""
        if not touched.names and not touched.sent:
            return {}
        async with mongo.operation():
            cursor = self._database[ENTRIES_COLLECTION].find(waiting_query(touched), _WAITING)
            rows = await cursor.limit(MAX_FOUND + 1).to_list(None)
            if not rows:
                return {}
            waiting: dict[str, list[Document]] = defaultdict(list)
            if len(rows) > MAX_FOUND:
                waiting.update(await self._one_by_one(touched))
            else:
                for row in rows:
                    for key in touched.met_by(row["waits_for"], row["occurred_at_us"]):
                        waiting[key].append(row)
        found: dict[str, bool] = {}
        for key, some in waiting.items():
            some.sort(key=lambda row: (row["occurred_at_us"], row["_id"]))
            if len(some) > MAX_WAITING:
                self._log.warning("replies_not_settled", beyond=MAX_WAITING)
            for row in some[:MAX_WAITING]:
                event_id = row["_id"].hex()
                found[event_id] = found.get(event_id, False) or key in touched.delivered_again
        return found

    async def _one_by_one(self, touched: Touched) -> dict[str, list[Document]]:
        waiting: dict[str, list[Document]] = {}
        left = MAX_FOUND
        for key in sorted({*touched.names, *touched.sent}):
            if left <= 0:
                self._log.warning("replies_not_settled", beyond=MAX_FOUND)
                break
            query: Document = {"kind": "inbound", "waits_for": key}
            if key in touched.sent:
                query["occurred_at_us"] = {"$gte": touched.sent[key]}
            cursor = self._database[ENTRIES_COLLECTION].find(query, _WAITING)
            order = [("occurred_at_us", 1), ("_id", 1)]
            waiting[key] = await cursor.sort(order).limit(min(MAX_WAITING + 1, left)).to_list(None)
            left -= len(waiting[key])
        return waiting


def waiting_query(touched: Touched) -> Document:
    """Asks for the replies that wait for any of it. Each branch has an index."""
    branches: list[Document] = []
    if touched.names:
        branches.append({"kind": "inbound", "waits_for": {"$in": list(touched.names)}})
    if touched.sent:
        since_us = min(touched.sent.values())
        pairs = {"$in": list(touched.sent)}
        branches.append({"kind": "inbound", "waits_for": pairs, "occurred_at_us": {"$gte": since_us}})
    return {"$or": branches} if len(branches) > 1 else branches[0]


def _settled(
    event_ids: Collection[str],
    tenants: Collection[str],
    publish: Collection[str],
    shard: Callable[[], int],
    database: mongo.ThreadDatabase,
    session: mongo.Session,
) -> Settled:
    paths = {one.registration: one.path for one in living(database, session, tenants).values()}
    stored = ReplyTransaction(database, session)
    settled = settle(stored, event_ids, paths, publish)
    stored.write(settled, shard())
    return settled


class ReplyTransaction:
    """``StoredReplies``, as a transaction sees them, and the way to write what is settled."""

    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        self._database = database
        self._session = session
        self._stored = Stored(database, session)

    def replies(self, event_ids: Collection[str]) -> Iterable[Document]:
        return self._stored.with_entries(event_ids)

    def messages(self, keys: Collection[str]) -> Iterable[Document]:
        return self._stored.messages(keys)

    def joins(self, keys: Collection[str]) -> Iterable[Document]:
        return self._stored.joins(keys)

    def latest(self, asks: Collection[Ask]) -> Mapping[Ask, Document]:
        if not asks:
            return {}
        query: Document = {
            "pair": {"$in": [bytes.fromhex(pair) for pair in {ask.pair for ask in asks}]},
            "first_at_us": {"$gte": min(ask.since_us for ask in asks), "$lte": max(ask.until_us for ask in asks)},
        }
        rows = [message_of(row) for row in self._candidates(query).limit(MAX_CANDIDATES + 1)]
        if len(rows) > MAX_CANDIDATES:
            return {ask: row for ask in asks if (row := self._latest(ask)) is not None}
        by_pair: dict[str, list[tuple[int, str, Document]]] = defaultdict(list)
        for row in rows:
            by_pair[row["pair"]].append((row["first_at_us"], row["_id"], row))
        for some in by_pair.values():
            some.sort(key=lambda one: one[:2])
        found = {}
        for ask in asks:
            some = by_pair.get(ask.pair, [])
            at = bisect.bisect_right(some, ask.until_us, key=lambda one: one[0])
            if at and some[at - 1][0] >= ask.since_us:
                found[ask] = some[at - 1][2]
        return found

    def write(self, settled: Settled, shard: int = 0) -> None:
        """Write what is settled. ``shard`` is where it is counted; what a person decides is rare, and needs none of its
        own."""
        commands, updates, entries = Commands(self._database, self._session), BucketUpdates(), []
        for event_id, changes in settled.updates.items():
            ref = self._stored.places[bytes.fromhex(event_id)].ref
            kept = {name: value for name, value in changes.items() if value is not None}
            gone = {name: "" for name, value in changes.items() if value is None}
            if "payload" in kept:
                updates.set(ref, kept.pop("payload"), "payload")
            if "communication_id" in changes:
                updates.set(ref, changes["communication_id"] or "", "communication_id")
                if changes["communication_id"]:
                    updates.mark(ref, communication_mark(changes["communication_id"]))
            update = {**({"$set": kept} if kept else {}), **({"$unset": gone} if gone else {})}
            if update:
                entries.append({"q": {"_id": ref.id}, "u": update})
        commands.update(EVENTS_COLLECTION, updates.entries())
        commands.update(EVENTS_COLLECTION, updates.pruning())
        commands.update(ENTRIES_COLLECTION, entries)
        commands.update(COUNTS_COLLECTION, settled.counts.updates(shard))

    def _latest(self, ask: Ask) -> Document | None:
        query = {"pair": bytes.fromhex(ask.pair), "first_at_us": {"$gte": ask.since_us, "$lte": ask.until_us}}
        rows = self._candidates(query).sort([("first_at_us", -1), ("_id", -1)]).limit(1)
        return next(map(message_of, rows), None)

    def _candidates(self, query: Document) -> mongo.ThreadCursor:
        return self._database[MESSAGES_COLLECTION].find(query, _CANDIDATE, session=self._session)
