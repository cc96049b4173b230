"""A whole normalizer on real servers, in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import nats
import pytest
from backhaul_common import jetstream, mongo
from backhaul_common.documents import Document
from backhaul_common.fence import owners
from backhaul_common.ids import new_callback_id
from backhaul_common.lifecycle import cancel
from backhaul_common.names import (
    CALLBACKS_STREAM,
    NORMALIZER_CONSUMER,
    TENANT_CHANGED_SUBJECT,
    TENANTS_COLLECTION,
    callbacks_subject,
)
from backhaul_common.rpc import connect
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenants import Channel, Tenant
from backhaul_local.nats_server import NatsServer
from backhaul_local.ports import choose_ports
from backhaul_normalizer import app
from backhaul_normalizer.publisher import JetStreamPublisher, Owners, subjects_under
from backhaul_normalizer.settings import NormalizerSettings
from backhaul_normalizer.subjects import EventSubjects
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceStub
from backhaul_proto.tenantdata.v1.tenantdata_pb2 import GetUsageRequest
from backhaul_proto.tenantdata.v1.tenantdata_pb2_grpc import TenantDataServiceStub
from nats.aio.client import Client as NatsClient
from nats.js.errors import NotFoundError

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))


def tenant(tenant_id: str, **channels: dict[str, Any]) -> Tenant:
    """A tenant with the channels Twilio and SendGrid; ``channels`` gives settings by channel key."""
    now = datetime.now(UTC)
    return Tenant(
        id=tenant_id,
        registration=f"{tenant_id}.1",
        name=tenant_id,
        queue_path=f"path-{tenant_id}",
        channels={
            key: Channel(
                label=key, key=key, provider=key, settings=channels.get(key, {}), verification="off", updated_at=now
            )
            for key in ("twilio", "sendgrid")
        },
        created_at=now,
        updated_at=now,
    )


def callback(of: Tenant, body: bytes | str, *, channel: str = "twilio", query: str = "", **fields: Any) -> Callback:
    """A callback as the gateway stores it."""
    return Callback(
        id=new_callback_id(),
        tenant_id=of.id,
        registration=of.registration,
        channel=channel,
        provider=fields.pop("provider", channel),
        method="POST",
        url=f"https://callbacks.example.com/api/postevents?channelLabel={channel}{query and '&' + query}",
        body=body.encode() if isinstance(body, str) else body,
        received_at_us=time.time_ns() // 1000,
        source=fields.pop("source", callback_pb2.SOURCE_CALLBACK),
        verification=fields.pop("verification", callback_pb2.VERIFICATION_VERIFIED),
        **fields,
    )


def twilio(sid: str, status: str, **more: str) -> str:
    """A status callback's body."""
    return urlencode(
        {
            "MessageSid": sid,
            "MessageStatus": status,
            "To": "+15005550001",
            "From": "+15005550006",
            "AccountSid": "AC1",
            **more,
        }
    )


def sendgrid(*events: dict[str, Any]) -> str:
    """An event webhook's body."""
    return json.dumps(events)


@dataclass
class Rig:
    """A running normalizer and what a test needs around it."""

    nats: NatsClient
    database: mongo.Database
    client: mongo.Client
    settings: NormalizerSettings
    stub: NormalizerServiceStub
    data: Any  # A TenantDataServiceStub, whose calls are awaited.

    async def register(self, *tenants: Tenant) -> None:
        for one in tenants:
            await self.database[TENANTS_COLLECTION].replace_one({"_id": one.id}, one.to_document(), upsert=True)
            await self.nats.publish(TENANT_CHANGED_SUBJECT, one.id.encode())

    async def usage(self, of: str) -> dict[str, int]:
        """What is kept of the tenant's first registration, by kind."""
        answer = await self.data.GetUsage(GetUsageRequest(tenant_id=of, registration=f"{of}.1"))
        return {one.kind: one.count for one in answer.usage}

    async def publisher(self, asked: Owners | None = None) -> JetStreamPublisher:
        """Publishes events over the test's own connection; ``asked`` stands in for MongoDB."""
        made = jetstream.Publisher()
        await made.attach(self.nats)
        subjects = EventSubjects(partial(subjects_under, self.nats.jetstream()), time.monotonic)
        return JetStreamPublisher(made, subjects, asked or partial(owners, self.database))

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
        own = self.settings.model_copy(update={"normalizer_grpc_listen": f"127.0.0.1:{choose_ports(1)[0]}", **settings})
        task = asyncio.create_task(app.run(own, stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(task)

    async def drained(self, *, timeout_s: float = 20) -> None:
        """Returns when every callback that is in the stream has been committed and acknowledged.

        The broker has no event for that, so it is asked until it says so.
        """
        js = self.nats.jetstream()
        async with asyncio.timeout(timeout_s):
            while True:
                with suppress(NotFoundError):
                    # Not by the consumer's count of what is pending: it lags behind what publishers were acknowledged.
                    last = (await js.stream_info(CALLBACKS_STREAM)).state.last_seq
                    info = await js.consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
                    reached = info.delivered is not None and info.delivered.stream_seq >= last
                    if reached and not info.num_ack_pending:
                        return
                await asyncio.sleep(0.02)

    async def published(self) -> list[Event]:
        """Every event on EVENTS, in order."""
        js = self.nats.jetstream()
        found: list[Event] = []
        last = (await js.stream_info("EVENTS")).state.last_seq
        for seq in range(1, last + 1):
            message = await js.get_msg("EVENTS", seq=seq, direct=True)
            found.extend(EventBatch.FromString(message.data or b"").events)
        return found

    async def rows(self, collection: str, **query: Any) -> list[Document]:
        return await self.database[collection].find(query).to_list(None)


RigFactory = Callable[..., Any]


@pytest.fixture
def rig_factory(mongo_server: Any, mongo_database: str, fresh_nats: NatsServer) -> RigFactory:
    """``async with rig_factory(normalizer_batch_bytes=…) as rig``."""

    @asynccontextmanager
    async def create(*, copies: int = 1, **overrides: Any) -> AsyncIterator[Rig]:
        async with AsyncExitStack() as stack:
            port = choose_ports(1)[0]
            values: dict[str, Any] = {
                "nats_url": fresh_nats.uri,
                "mongo_uri": mongo_server.uri,
                "mongo_database": mongo_database,
                "normalizer_grpc_listen": f"127.0.0.1:{port}",
                "log_level": "warning",
                **overrides,
            }
            settings = NormalizerSettings(**values)
            client = mongo.connect(mongo_server.uri)
            stack.callback(client.close)
            connection = await nats.connect(fresh_nats.uri)
            stack.push_async_callback(connection.close)
            await jetstream.ensure_streams(connection.jetstream(), settings)
            # Tests write tenants before a normalizer has seen the database.
            await StoreFormat(mongo.database(client, mongo_database)).ensure()
            for copy in range(copies):
                stop = asyncio.Event()
                own = (
                    settings
                    if not copy
                    else settings.model_copy(update={"normalizer_grpc_listen": f"127.0.0.1:{choose_ports(1)[0]}"})
                )
                task = asyncio.create_task(app.run(own, stop))
                stack.push_async_callback(cancel, task)
                stack.callback(stop.set)
            channel = connect(f"127.0.0.1:{port}", settings)
            stack.push_async_callback(channel.close)
            if copies:
                await asyncio.wait_for(channel.channel_ready(), 10)
            yield Rig(
                connection,
                mongo.database(client, mongo_database),
                client,
                settings,
                NormalizerServiceStub(channel),
                TenantDataServiceStub(channel),
            )

    return create


@pytest.fixture
async def rig(rig_factory: RigFactory) -> AsyncIterator[Rig]:
    """A running normalizer with its defaults."""
    async with rig_factory() as running:
        yield running


@pytest.fixture
def make() -> Any:
    """The builders above: test files cannot import a conftest."""
    return type(
        "Make",
        (),
        {
            "tenant": staticmethod(tenant),
            "callback": staticmethod(callback),
            "twilio": staticmethod(twilio),
            "sendgrid": staticmethod(sendgrid),
        },
    )
