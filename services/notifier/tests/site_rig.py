"""The whole service in this process, between real streams, a real database and a receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from backhaul_common import mongo, rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import derived_id
from backhaul_common.names import TENANTS_COLLECTION, events_subject
from backhaul_common.settings import CommonSettings
from backhaul_common.store_format import StoreFormat
from backhaul_local.ports import Hold
from backhaul_notifier import app
from backhaul_notifier.settings import NotifierSettings
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_proto.notifier.v1.notifier_pb2_grpc import NotifierServiceStub
from backhaul_proto.secretkeys.v1.secretkeys_pb2_grpc import SecretKeysServiceStub
from backhaul_proto.tenantdata.v1.tenantdata_pb2_grpc import TenantDataServiceStub
from backhaul_testing import broker, make
from backhaul_testing.waiting import until
from cryptography.fernet import Fernet
from door_rig import Call, Endpoint, endpoint
from pydantic import SecretStr

ACME, GLOBEX = make.tenant("acme"), make.tenant("globex")
TOKEN = "0123456789abcdef" * 2


@dataclass
class Site:
    """The service, its servers, and a receiver that answers what it is told to."""

    values: dict[str, Any]
    database: mongo.Database
    nats: Any
    stub: Any
    data: Any
    secret_keys: Any
    receiver: Endpoint
    answers: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        running = asyncio.create_task(app.run(NotifierSettings(_env_file=None, **self.values), stop))

        async def ready() -> bool:
            if running.done():
                running.result()
            try:
                await self.stub.ListSubscriptions(pb.ListSubscriptionsRequest(tenant_id="acme"))
            except BackhaulError as exc:
                if exc.code is not Code.UNAVAILABLE:
                    raise
                return False
            return True

        try:
            await until("the service to answer", ready)
            yield
        finally:
            stop.set()
            await running

    async def subscribe(self, *types: str, tenant: str = "acme", **fields: Any) -> pb.Subscription:
        destination = pb.HttpDestination(method=pb.HTTP_METHOD_POST, url=self.receiver.url("/hook?of=us"))
        definition = pb.Definition(name="ours", types=types, http=destination, **fields)
        request = pb.CreateSubscriptionRequest(tenant_id=tenant, definition=definition)
        answer = await self.stub.CreateSubscription(request)
        found: pb.Subscription = answer.subscription
        return found

    async def happens(self, *names: str, of: Any = ACME, communication_id: str = "") -> None:
        for name in names:
            event = Event(
                id=derived_id("event", of.registration, name),
                tenant_id=of.id,
                registration=of.registration,
                channel="twilio",
                provider="twilio",
                kind=event_pb2.EVENT_KIND_DELIVERED,
                message_id=f"SM{name}",
                communication_id=communication_id,
                recipient="+15005550001",
                recipient_family=event_pb2.ADDRESS_FAMILY_PHONE,
            )
            subject = events_subject(of.queue_path, "twilio", "delivered")
            await self.nats.jetstream().publish(subject, EventBatch(events=[event]).SerializeToString())

    async def called(self, times: int) -> list[Call]:
        """All calls, once there are so many."""

        async def probe() -> list[Call] | None:
            return list(self.receiver.calls) if len(self.receiver.calls) >= times else None

        return await until(f"{times} calls", probe, within_s=30)

    async def deliveries(self, tenant: str = "acme", **asked: Any) -> list[pb.Delivery]:
        answer = await self.stub.ListDeliveries(pb.ListDeliveriesRequest(tenant_id=tenant, **asked))
        return list(answer.deliveries)

    async def stored(self, of: Any) -> dict[str, int]:
        """How many documents there are of a tenant, by collection, beside the tenant's own."""
        names = set(await self.database.list_collection_names()) - {TENANTS_COLLECTION}
        numbers = {name: await self.database[name].count_documents({"registration": of.registration}) for name in names}
        return {name: number for name, number in numbers.items() if number}

    async def listed(self, times: int, state: Any, tenant: str = "acme") -> list[pb.Delivery]:
        """The deliveries in this state, once there are so many."""

        async def probe() -> list[pb.Delivery] | None:
            found = await self.deliveries(tenant, state=state)
            return found if len(found) == times else None

        return await until(f"{times} deliveries in state {state}", probe, within_s=30)


@asynccontextmanager
async def site_at(mongo_uri: str, mongo_database: str, nats_url: str) -> AsyncIterator[Site]:
    """A site with two tenants, whose service does not run yet."""
    client = mongo.connect(mongo_uri)
    database = mongo.database(client, mongo_database)
    await StoreFormat(database).ensure()
    for tenant in (ACME, GLOBEX):
        await database[TENANTS_COLLECTION].insert_one(tenant.to_document())
    answers: list[int] = []

    async def answer(call: Call) -> None:
        await call.answer(status=answers.pop(0) if answers else 200)

    async with AsyncExitStack() as stack:
        stack.push_async_callback(mongo.close, client)
        nats = await broker.connect(nats_url)
        stack.push_async_callback(nats.close)
        receiver = await stack.enter_async_context(endpoint(answer))
        (port,) = stack.enter_context(Hold()).choose(1)
        target = f"127.0.0.1:{port}"
        channel = rpc.connect(target, CommonSettings(_env_file=None, internal_token=SecretStr(TOKEN)))
        stack.push_async_callback(channel.close)
        values = {
            "mongo_uri": mongo_uri,
            "mongo_database": mongo_database,
            "nats_url": nats_url,
            "internal_token": TOKEN,
            "secret_keys": Fernet.generate_key().decode(),
            "notifier_grpc_listen": target,
            # Nothing that is told here needs more than it says itself.
            "notifier_normalizer_target": "127.0.0.1:9",
            "notifier_plain_http": True,
            "notifier_allowed_networks": "127.0.0.0/8",
        }
        stub, data = NotifierServiceStub(channel), TenantDataServiceStub(channel)
        keys = SecretKeysServiceStub(channel)
        yield Site(values, database, nats, stub, data, keys, receiver, answers)
