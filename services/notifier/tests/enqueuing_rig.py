"""Real streams and a real database, subscriptions in it, and whoever enqueues for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from backhaul_common import jetstream, mongo
from backhaul_common.documents import Document
from backhaul_common.feed import PositionReader, ReaderConfig
from backhaul_common.following import Follower
from backhaul_common.ids import derived_id
from backhaul_common.lifecycle import cancel
from backhaul_common.metering import Metrics
from backhaul_common.names import (
    AGAIN_HEADER,
    DELIVERIES_COLLECTION,
    ENDPOINTS_COLLECTION,
    EVENTS_STREAM,
    NOTICES_STREAM,
    NOTIFIER_POSITIONS_COLLECTION,
    SUBSCRIPTION_CHANGED_SUBJECT,
    SUBSCRIPTIONS_COLLECTION,
    TENANTS_COLLECTION,
    events_subject,
    notices_subject,
)
from backhaul_common.revisioned import Directory, Documents
from backhaul_common.settings import StreamSettings
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import Tracing
from backhaul_common.vocabulary import Words
from backhaul_notifier.enqueuing import Counts, Enqueuer, Subscribers
from backhaul_notifier.indexes import INDEXES
from backhaul_notifier.model import Subscription
from backhaul_notifier.subscriptions.stored import SUBSCRIPTION, document_of
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing import broker, make
from backhaul_testing.waiting import until
from nats.aio.client import Client as NatsClient

KINDS = Words(event_pb2.EventKind.DESCRIPTOR)
ACME, OTHER = make.tenant("acme"), make.tenant("other")


def wanting(*types: str, ordering: pb.Ordering.ValueType = pb.ORDERING_NONE) -> Document:
    """A definition as it is stored."""
    return document_of(
        pb.Definition(
            types=types,
            http=pb.HttpDestination(method=pb.HTTP_METHOD_POST, url="https://example.com/"),
            payload=pb.Payload(form=pb.PAYLOAD_FORM_FULL),
            policy=pb.Policy(kind=pb.POLICY_KIND_STANDARD),
            ordering=ordering,
        )
    )


def event(name: str, kind: str = "delivered", *, of: Tenant = ACME, **fields: Any) -> Event:
    """One whose id follows from ``name``."""
    return Event(
        id=derived_id("event", of.registration, name),
        tenant_id=of.id,
        registration=of.registration,
        channel=fields.pop("channel", "twilio"),
        provider="twilio",
        kind=KINDS.number(kind),
        message_id=fields.pop("message_id", f"SM{name}"),
        recipient=fields.pop("recipient", "+15005550001"),
        recipient_family=event_pb2.ADDRESS_FAMILY_PHONE,
        **fields,
    )


@dataclass
class Copy:
    """One that enqueues, and that runs when it is entered."""

    directory: Directory[Subscription]
    subscribers: Subscribers
    metrics: Metrics
    counts: Counts
    enqueuers: dict[str, Enqueuer]
    readers: dict[str, PositionReader]
    running: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        for stream, enqueuer in self.enqueuers.items():
            reader = self.readers[stream]
            self.running.append(asyncio.create_task(reader.run()))
            self.running.append(asyncio.create_task(Follower(reader, enqueuer).run()))

    async def stop(self) -> None:
        for task in reversed(self.running):
            await cancel(task)
        self.running.clear()


@dataclass
class Rig:
    """Servers with tenants and streams."""

    nats: NatsClient
    database: mongo.Database
    stack: AsyncExitStack

    async def subscribe(self, *types: str, of: Tenant = ACME, name: str = "a", says: bool = True, **fields: Any) -> str:
        """Write a subscription, as the notifier does."""
        id_ = f"sub_{derived_id('subscription', of.registration, name)[:24]}"
        row = {
            "_id": id_,
            "tenant": of.id,
            "registration": of.registration,
            "revision": 1,
            "definition": wanting(*types, ordering=fields.pop("ordering", pb.ORDERING_NONE)),
            "state": "active",
            "state_since_us": 1,
            "created_at_us": 1,
            "updated_at_us": 1,
            "secrets": [],
        } | fields
        endpoint = {"tenant": of.id, "registration": of.registration, "active": row["state"] == "active", "told": 0}
        await self.write(id_, {"$set": row}, endpoint=endpoint, says=says)
        return id_

    async def write(self, id_: str, update: Document, *, endpoint: Document | None = None, says: bool = True) -> None:
        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            database[SUBSCRIPTIONS_COLLECTION].update_one({"_id": id_}, update, upsert=True, session=session)
            if endpoint is not None:
                database[ENDPOINTS_COLLECTION].update_one(
                    {"_id": id_}, {"$set": endpoint}, upsert=True, session=session
                )
            database[NOTIFIER_POSITIONS_COLLECTION].update_one(
                {"_id": "subscriptions"}, {"$inc": {"version": 1}}, upsert=True, session=session
            )

        await mongo.in_transaction(self.database, work)
        if says:
            await self.nats.publish(SUBSCRIPTION_CHANGED_SUBJECT, id_.encode())

    async def publish(self, *events: Event, of: Tenant = ACME, again: bool = False, data: bytes | None = None) -> int:
        """One message with ``events``; its position."""
        first = events[0] if events else event("none", of=of)
        known = first.kind in KINDS.by_number
        subject = events_subject(of.queue_path, first.channel, KINDS.word(first.kind) if known else "new", "")
        data = EventBatch(events=events).SerializeToString() if data is None else data
        headers = {AGAIN_HEADER: "1"} if again else None
        return (await self.nats.jetstream().publish(subject, data, headers=headers)).seq

    async def publish_notice(self, notice: Notice, of: Tenant = ACME) -> int:
        return (
            await self.nats.jetstream().publish(notices_subject(of.queue_path, notice.type), notice.SerializeToString())
        ).seq

    async def copy(self, *streams: str) -> Copy:
        """One more, with a directory that hears of changes. It does not run yet."""
        own = await broker.connect(self.nats.connected_url.netloc if self.nats.connected_url else "")
        self.stack.push_async_callback(own.close)
        directory = Directory(SUBSCRIPTION, Documents(self.database[SUBSCRIPTIONS_COLLECTION]))
        await directory.follow(own)
        subscribers = Subscribers(self.database, directory)
        metrics = Metrics("notifier")
        self.stack.callback(metrics.close)
        counts = Counts(metrics)
        made = Copy(directory, subscribers, metrics, counts, {}, {})
        for stream in streams or (EVENTS_STREAM, NOTICES_STREAM):
            enqueuer = Enqueuer(self.database, stream, subscribers, own, counts, Tracing("notifier", None))
            reader = PositionReader(own, own.jetstream(), ReaderConfig(stream, "notifier"))
            enqueuer.reads(reader)
            made.enqueuers[stream], made.readers[stream] = enqueuer, reader
        self.stack.push_async_callback(made.stop)
        return made

    async def start(self, *streams: str) -> Copy:
        made = await self.copy(*streams)
        made.start()
        return made

    async def told_up_to(self, position: int, stream: str = EVENTS_STREAM, *, within_s: float = 60.0) -> None:
        """Return when the stream is told up to ``position``."""

        async def probe() -> bool:
            row = await self.database[NOTIFIER_POSITIONS_COLLECTION].find_one({"_id": stream})
            return row is not None and bool(row["position"] >= position)

        await until(f"{stream} to be told up to {position}", probe, within_s=within_s)

    async def deliveries(self, subscription: str = "") -> list[Document]:
        """In their order."""
        query = {"subscription": subscription} if subscription else {}
        return await self.database[DELIVERIES_COLLECTION].find(query).sort([("order", 1), ("_id", 1)]).to_list(None)

    async def events_of(self, subscription: str) -> list[tuple[str, int]]:
        return [(row["event_id"], row["revision"]) for row in await self.deliveries(subscription)]

    async def endpoint(self, subscription: str) -> Document:
        row: Document | None = await self.database[ENDPOINTS_COLLECTION].find_one({"_id": subscription})
        assert row is not None
        return row


def ids(events: Sequence[Event]) -> list[tuple[str, int]]:
    return [(one.id, one.revision) for one in events]


def now_us() -> int:
    return time.time_ns() // 1000


@asynccontextmanager
async def rig_at(nats_uri: str, mongo_uri: str, name: str) -> AsyncIterator[Rig]:
    """A rig with two tenants."""
    async with AsyncExitStack() as stack:
        client = mongo.connect(mongo_uri)
        stack.callback(client.close)
        database = mongo.database(client, name)
        await mongo.make_indexes(database, INDEXES)
        for tenant in (ACME, OTHER):
            await database[TENANTS_COLLECTION].insert_one({"_id": tenant.id} | tenant.to_document())
        nats = await broker.connect(nats_uri)
        stack.push_async_callback(nats.close)
        await jetstream.ensure_streams(nats.jetstream(), StreamSettings())
        yield Rig(nats, database, stack)
