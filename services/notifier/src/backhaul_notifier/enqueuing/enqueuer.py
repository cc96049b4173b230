"""How far a stream is told, stored with the deliveries that it brought."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from backhaul_common import metrics as catalogue
from backhaul_common import mongo
from backhaul_common.batches import MAX_LINKS
from backhaul_common.documents import Document
from backhaul_common.feed import PositionReader, StreamMessage
from backhaul_common.fence import living
from backhaul_common.following import MongoProgress
from backhaul_common.jetstream import AWAY
from backhaul_common.metering import Metrics
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    DELIVERIES_DUE_SUBJECT,
    ENDPOINTS_COLLECTION,
    EVENTS_STREAM,
    NOTICES_STREAM,
    NOTIFIER_POSITIONS_COLLECTION,
)
from backhaul_common.tracing import Tracing
from nats.aio.client import Client as NatsClient
from opentelemetry.trace import SpanKind
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from backhaul_notifier.deliveries.erasing import erased_since
from backhaul_notifier.enqueuing import making
from backhaul_notifier.enqueuing.making import Part, parts_of_events, parts_of_notices
from backhaul_notifier.enqueuing.sharing import Lane, Sharing
from backhaul_notifier.enqueuing.subscribers import Subscribers, version_of
from backhaul_notifier.holding.switches import apply, say
from backhaul_notifier.model import Subscription
from backhaul_notifier.subscriptions.writing import VERSION_ID

_PARTS = {EVENTS_STREAM: parts_of_events, NOTICES_STREAM: parts_of_notices}
_DUPLICATE: Final = 11000


class Counts:
    """What enqueuing counts: made once in a process, for both streams."""

    def __init__(self, metrics: Metrics) -> None:
        self.enqueued = metrics.counter(catalogue.NOTIFIER_ENQUEUED)
        self.given_up = metrics.counter(catalogue.NOTIFIER_MESSAGES_GIVEN_UP)
        self.lag = metrics.histogram(catalogue.NOTIFIER_LAG_SECONDS)
        self._readers: dict[str, tuple[PositionReader, Enqueuer]] = {}
        metrics.gauges(catalogue.NOTIFIER_BACKLOG, self._backlog)
        metrics.gauges(catalogue.NOTIFIER_PARKED, self._parked)

    def reads(self, reader: PositionReader, enqueuer: Enqueuer) -> None:
        """``reader`` is how ``enqueuer`` is given its messages."""
        self._readers[enqueuer.stream] = (reader, enqueuer)

    def _backlog(self) -> Mapping[str, float]:
        # Of a reader that waits for another copy, what lies behind it says nothing.
        return {stream: reader.pending if enqueuer.at_it else 0 for stream, (reader, enqueuer) in self._readers.items()}

    def _parked(self) -> Mapping[str, float]:
        return {stream: enqueuer.sharing.open for stream, (_, enqueuer) in self._readers.items()}


@dataclass(slots=True)
class _Told:
    """What was stored: the rows, and the time by MongoDB's clock from which on they wait."""

    at_us: int
    rows: Sequence[Document] = ()
    subscriptions: Tally[str] = field(default_factory=Tally)
    switched: list[str] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)


class _ChangedError(Exception):
    """Subscriptions have changed since the rows were made."""


class Enqueuer(MongoProgress[_Told]):
    """Tells one stream: EVENTS or NOTICES.

    What is stored was made by the subscriptions as they are at that moment, and once: the transaction reads their
    version, the tenants that live, and, where something was met that is there already, which that is. A new
    subscription is told of what the stream stores from its creation on; one that is paused or disabled as any other.
    """

    def __init__(
        self,
        database: mongo.Database,
        stream: str,
        subscribers: Subscribers,
        nats: NatsClient,
        counts: Counts,
        tracing: Tracing,
    ) -> None:
        super().__init__(database, NOTIFIER_POSITIONS_COLLECTION, stream)
        self._parts = _PARTS[stream]
        self._subscribers = subscribers
        self._nats = nats
        self._counts = counts
        self._tracing = tracing
        # Of all who are parked one at a time, so that what is of others waits for one transaction.
        self._apart = asyncio.Lock()
        self.stream = stream
        self.sharing = Sharing(stream, lambda: making.MAX_BYTES, lambda: subscribers.several)
        self.at_it = False
        """Whether this copy tells the stream, and no other one, as far as it knows."""

    async def position(self) -> int:
        """See ``Progress``."""
        self.at_it = False
        await self.sharing.stop()
        position = await super().position()
        async with mongo.operation():
            row = await self._database[NOTIFIER_POSITIONS_COLLECTION].find_one({"_id": self.stream}, {"parked": 1})
        self.sharing.reach = position
        for path, at in (row or {}).get("parked", {}).items():
            self._park(path, at)
        self.at_it = True
        return position

    async def keep(self) -> None:
        """See ``Progress``."""
        try:
            await super().keep()
        finally:
            await self.sharing.stop()

    def reads(self, reader: PositionReader) -> None:
        """``reader`` is how it is given its messages."""
        self.sharing.waits = lambda: reader.waits
        self._counts.reads(reader, self)

    async def reconnected(self) -> None:
        """To be called after each reconnection."""
        await self.sharing.reconnected()

    async def apply(self, messages: Sequence[StreamMessage]) -> None:
        """See ``Progress``. It may store a part of ``messages`` and fail: that part is told, and read no more."""
        self.sharing.reach = max(self.sharing.reach, messages[-1].stream_seq)
        await self._tell(messages, self._position, None)

    async def _tell_apart(self, lane: Lane, messages: Sequence[StreamMessage]) -> None:
        await self._tell(messages, lane.at, lane)

    async def _give_up_apart(self, lane: Lane, message: StreamMessage) -> None:
        part = Part(message.stream_seq, parked={lane.path: message.stream_seq})
        await self._commit(0, lambda database, session: self._note_parked(part, (), database, session))
        lane.at = message.stream_seq
        self._counts.given_up.add(self.stream)

    def _park(self, path: str, at: int) -> None:
        self.sharing.park(
            Lane(path, at, self._tell_apart, self._give_up_apart),
            lambda config: PositionReader(self._nats, self._nats.jetstream(), config),
        )

    async def _tell(self, messages: Sequence[StreamMessage], done: int, lane: Lane | None) -> None:
        """Tell what ``messages`` bring behind ``done``: to those of ``lane``, or to all who are not parked."""
        while left := [message for message in messages if message.stream_seq > done]:
            version = self._subscribers.version
            try:
                # Each part is made when the one before is stored, by subscriptions that must still be of that version.
                for part in self._parts(left, done, self._subscribers.of, lane or self.sharing):
                    await self._apply(part, version, lane)
                    done = part.position
            except _ChangedError:
                await self._subscribers.refresh(version)

    def store(self, messages: Sequence[StreamMessage], database: mongo.ThreadDatabase, session: mongo.Session) -> _Told:
        """Not used: what ``messages`` bring is made by the event loop, which has the subscriptions."""
        raise NotImplementedError

    async def dead_letter(self, message: StreamMessage, error: Exception) -> None:
        """See ``Progress``. Nobody is told of it: it is counted, and ``Follower`` logs its place."""
        await super().dead_letter(message, error)
        self._counts.given_up.add(self.stream)

    async def _apply(self, part: Part, version: int, lane: Lane | None) -> None:
        began_ns = time.time_ns()
        if lane is not None:
            # Some of it was told with what is of others, or by a copy that does not park.
            part.parked, part.again = {lane.path: part.position}, True
        async with self._apart if lane is not None else nullcontext():
            try:
                told = await self._store_part(part, version, lane)
            except BulkWriteError as exc:
                if part.again or not _is_duplicate(exc):
                    raise
                part.again = True
                told = await self._store_part(part, version, lane)
        if told.rows and self._tracing.enabled:
            self._trace(part, began_ns)
        by_type = Tally((row["registration"], row["type"]) for row in told.rows)
        for (registration, type_), amount in by_type.items():
            self._counts.enqueued.add(part.tenants[registration], type_, amount=amount)
        if part.stored_at_us:
            self._counts.lag.record(max(0.0, (told.at_us - part.stored_at_us) / 1_000_000))
        await say(self._nats, told.switched)
        if due := [*told.subscriptions, *told.woken]:
            with suppress(*AWAY):  # Holders look every few seconds, too.
                await self._nats.publish(DELIVERIES_DUE_SUBJECT, " ".join(due).encode())

    async def _store_part(self, part: Part, version: int, lane: Lane | None) -> _Told:
        dropped = self.sharing.dropped_at(part.position) if lane is None else ()
        position = part.position if lane is None else 0
        told = await self._commit(position, partial(self._store, part, version, dropped))
        if lane is not None:
            lane.at = part.position
            return told
        self.sharing.drop(dropped)
        for path, at in part.parked.items():
            self._park(path, at)
        return told

    def _trace(self, part: Part, began_ns: int) -> None:
        """A span in the trace of the first that is told; the others are linked."""
        first, *others = list(part.traceparents)[: MAX_LINKS + 1] or [""]
        self._tracing.start(
            "notifier.enqueue", parent=first or None, kind=SpanKind.CONSUMER, links=others, start_time_ns=began_ns
        ).end()

    def _note_parked(
        self, part: Part, dropped: Sequence[str], database: mongo.ThreadDatabase, session: mongo.Session
    ) -> None:
        update: Document = {}
        if part.parked:
            update["$set"] = {f"parked.{path}": at for path, at in part.parked.items()}
        if gone := [path for path in dropped if path not in part.parked]:
            update["$unset"] = {f"parked.{path}": "" for path in gone}
        if update:
            database[NOTIFIER_POSITIONS_COLLECTION].update_one({"_id": self.stream}, update, session=session)

    def _store(
        self,
        part: Part,
        version: int,
        dropped: Sequence[str],
        database: mongo.ThreadDatabase,
        session: mongo.Session,
    ) -> _Told:
        """In a thread, and perhaps several times."""
        now = database[NOTIFIER_POSITIONS_COLLECTION].aggregate(
            [{"$match": {"_id": {"$in": [VERSION_ID, self.stream]}}}, {"$set": {"now": "$$NOW"}}], session=session
        )
        by_id = {row["_id"]: row for row in now}
        if version_of(by_id.get(VERSION_ID)) != version:
            raise _ChangedError
        self._note_parked(part, dropped, database, session)
        told = _Told(int(by_id[self.stream]["now"].timestamp() * 1_000_000))
        if not (part.rows or part.switches):
            return told
        lives = {one.registration for one in living(database, session, set(part.tenants.values())).values()}
        for switch in part.switches:
            if switch.registration in lives:
                told.woken += apply(database, session, switch, told.at_us)
                told.switched.append(switch.id)
        there: set[bytes] = set()
        if part.again:
            found = database[DELIVERIES_COLLECTION].find({"_id": {"$in": list(part.rows)}}, {"_id": 1}, session=session)
            there = {row["_id"] for row in found}
        times = {"due_at_us": told.at_us, "created_at_us": told.at_us}
        told.rows = [row | times for id_, row in part.rows.items() if row["registration"] in lives and id_ not in there]
        if not told.rows:
            return told
        erased = erased_since(told.rows, database, session)
        if erased:
            told.rows = [row | {"payload": erased.get(row["_id"], row["payload"])} for row in told.rows]
        told.subscriptions = Tally(row["subscription"] for row in told.rows)
        # First, since others write these documents as well: what meets such a write begins anew.
        database[ENDPOINTS_COLLECTION].bulk_write(
            [_telling(id_, amount, told.at_us, part.alerts.get(id_)) for id_, amount in told.subscriptions.items()],
            ordered=False,
            session=session,
        )
        database[DELIVERIES_COLLECTION].insert_many(told.rows, ordered=False, session=session)
        return told


def _telling(endpoint: str, amount: int, at_us: int, alerts_of: Subscription | None) -> UpdateOne:
    """Something was added to what waits for an endpoint, which may be made by it where it is for alerts."""
    update: Document = {"$min": {"due_at_us": at_us}, "$inc": {"told": amount}}
    if alerts_of is not None:
        made = {"tenant": alerts_of.tenant, "registration": alerts_of.registration, "active": True}
        update["$setOnInsert"] = made
    return UpdateOne({"_id": endpoint}, update, upsert=alerts_of is not None)


def _is_duplicate(error: BulkWriteError) -> bool:
    found = (error.details or {}).get("writeErrors", ())
    return any(each.get("code") == _DUPLICATE for each in found)
