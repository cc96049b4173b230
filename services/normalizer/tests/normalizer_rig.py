"""What the normalizer's tests share: a whole normalizer that runs, and what is around it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from backhaul_common import jetstream, mongo
from backhaul_common.documents import Document
from backhaul_common.fence import owners
from backhaul_common.names import (
    CALLBACKS_STREAM,
    EVENTS_COLLECTION,
    NORMALIZER_CONSUMER,
    TENANT_CHANGED_SUBJECT,
    TENANTS_COLLECTION,
    callbacks_subject,
)
from backhaul_common.tenants import Tenant
from backhaul_local.ports import Hold
from backhaul_normalizer import app
from backhaul_normalizer.fenced import Fenced
from backhaul_normalizer.publisher import JetStreamPublisher, Owners, subjects_under
from backhaul_normalizer.settings import NormalizerSettings
from backhaul_normalizer.subjects import EventSubjects
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.tenantdata.v1.tenantdata_pb2 import GetUsageRequest
from backhaul_testing import streams
from layout import communications, fits, rows_of
from nats.aio.client import Client as NatsClient

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; over a channel of grpc.aio the one class answers awaitables.
    from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceAsyncStub
    from backhaul_proto.normalizer.v1.records_pb2_grpc import RecordServiceAsyncStub
    from backhaul_proto.normalizer.v1.replays_pb2_grpc import ReplayServiceAsyncStub


@dataclass(repr=False)
class Rig:
    """A running normalizer and what a test needs around it."""

    nats: NatsClient
    database: mongo.Database
    client: mongo.Client
    settings: NormalizerSettings
    stub: NormalizerServiceAsyncStub
    data: Any  # A TenantDataServiceStub, whose calls are awaited.
    records: RecordServiceAsyncStub
    replays: ReplayServiceAsyncStub

    async def register(self, *tenants: Tenant) -> None:
        for one in tenants:
            await self.database[TENANTS_COLLECTION].replace_one({"_id": one.id}, one.to_document(), upsert=True)
            await self.nats.publish(TENANT_CHANGED_SUBJECT, one.id.encode())

    async def usage(self, of: str) -> dict[str, int]:
        """What is kept of the tenant's first registration, by kind."""
        answer = await self.data.GetUsage(GetUsageRequest(tenant_id=of, registration=f"{of}.1"))
        return {one.kind: one.count for one in answer.usage}

    async def publisher(self, asked: Owners | None = None, fenced: Fenced | None = None) -> JetStreamPublisher:
        """Publishes events over the test's own connection; ``asked`` stands in for MongoDB, ``fenced`` is a store's."""
        made = jetstream.Publisher()
        await made.attach(self.nats)
        subjects = EventSubjects(partial(subjects_under, self.nats.jetstream()), time.monotonic)
        return JetStreamPublisher(made, subjects, asked or partial(owners, self.database), fenced)

    async def publish(self, of: Tenant, *callbacks: Callback) -> int:
        """Store ``callbacks`` in one message; its position in the stream."""
        ack = await self.nats.jetstream().publish(
            callbacks_subject(of.queue_path, callbacks[0].channel),
            CallbackBatch(callbacks=callbacks).SerializeToString(),
        )
        return ack.seq

    @asynccontextmanager
    async def another(self, **settings: Any) -> AsyncIterator[None]:
        """One more copy of the normalizer, for the length of the block; ``settings`` differ from the first one's."""
        stop = asyncio.Event()
        hold = Hold()
        [port] = hold.choose(1)
        own = self.settings.model_copy(update={"normalizer_grpc_listen": f"127.0.0.1:{port}", **settings})
        task = asyncio.create_task(app.run(own, stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(task)

    async def drained(self, *, timeout_s: float = 20) -> None:
        """Return when every callback that is in the stream has been committed and acknowledged."""
        await streams.drained(self.nats, CALLBACKS_STREAM, NORMALIZER_CONSUMER, within_s=timeout_s)

    async def published(self) -> list[Event]:
        """Every event on EVENTS, in order."""
        return await streams.published(self.nats)

    async def events_of(self, registration: str) -> int:
        """How many events are stored of a registration."""
        present = {"$filter": {"input": "$events", "as": "one", "cond": {"$ne": ["$$one", None]}}}
        pipeline: list[Document] = [
            {"$match": {"registration": registration}},
            {"$group": {"_id": None, "events": {"$sum": {"$size": present}}}},
        ]
        found = await self.database[EVENTS_COLLECTION].aggregate(pipeline).to_list(None)
        return int(found[0]["events"]) if found else 0

    async def rows(self, collection: str, **query: Any) -> list[Document]:
        """The rows that a collection's documents stand for: those that have these values."""
        return [row for row in await rows_of(self.database, collection) if fits(row, query)]

    async def communications(self, **query: Any) -> list[Document]:
        """The sums of the counts of each communication that has these values."""
        return [row for row in await communications(self.database) if fits(row, query)]


RigFactory = Callable[..., AbstractAsyncContextManager[Rig]]
