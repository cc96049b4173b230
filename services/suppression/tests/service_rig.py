"""What tests of the whole service share: copies of it that run on real servers, and what is around them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import derived_id
from backhaul_common.lifecycle import cancel
from backhaul_common.names import (
    EVENTS_STREAM,
    SUPPRESSION_CONSUMER,
    TENANT_CHANGED_SUBJECT,
    TENANTS_COLLECTION,
    events_subject,
)
from backhaul_common.rpc import connect
from backhaul_common.tenants import Tenant
from backhaul_common.vocabulary import Words
from backhaul_local.ports import Hold
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Consent, Event, EventBatch
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceStub
from backhaul_proto.tenantdata.v1.tenantdata_pb2_grpc import TenantDataServiceStub
from backhaul_suppression import app
from backhaul_suppression.settings import SuppressionSettings
from backhaul_testing import streams
from backhaul_testing.waiting import until
from nats.aio.client import Client as NatsClient

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; over a channel of grpc.aio the one class answers awaitables.
    from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceAsyncStub

ANNA, BEN = "+15005550001", "+15005550002"
NUMBER = "+15005550006"

_KINDS = Words(event_pb2.EventKind.DESCRIPTOR)


def now_us() -> int:
    return time.time_ns() // 1000


def event(of: Tenant, name: str, kind: str, *, recipient: str = ANNA, **fields: Any) -> Event:
    """An event of the tenant's Twilio channel, whose id follows from ``name``."""
    return Event(
        id=derived_id("event", of.registration, name),
        tenant_id=of.id,
        registration=of.registration,
        channel="twilio",
        provider="twilio",
        kind=_KINDS.number(kind),
        message_id=fields.pop("message_id", f"SM{name}"),
        recipient=recipient,
        recipient_family=fields.pop("recipient_family", event_pb2.ADDRESS_FAMILY_PHONE),
        sender=fields.pop("sender", NUMBER),
        occurred_at_us=fields.pop("at_us", 0) or now_us(),
        received_at_us=now_us(),
        occurred_at_basis=event_pb2.TIME_BASIS_PROVIDER,
        verification=fields.pop("verification", callback_pb2.VERIFICATION_VERIFIED),
        **fields,
    )


def reply(of: Tenant, name: str, word: str, **fields: Any) -> Event:
    """A person's answer: STOP, START or HELP."""
    action = {
        "STOP": event_pb2.CONSENT_ACTION_OPT_OUT,
        "START": event_pb2.CONSENT_ACTION_OPT_IN,
        "HELP": event_pb2.CONSENT_ACTION_HELP,
    }[word]
    consent = Consent(action=action, by=event_pb2.CONSENT_BY_KEYWORD, word=word)
    return event(of, name, "inbound", consent=consent, text=word, **fields)


@dataclass
class Copy:
    """One running copy."""

    stub: SuppressionServiceAsyncStub
    data: Any  # A TenantDataServiceStub, whose calls are awaited.
    channel: Any
    task: asyncio.Task[None]
    stop: asyncio.Event

    async def verdict(self, of: Tenant, address: str = ANNA, **sending: Any) -> str:
        """``allowed``, or the kinds that say no."""
        request = pb.CheckRequest(tenant_id=of.id, address=address)
        if sending:
            request.sending.CopyFrom(pb.Sending(**sending))
        answer = await self.stub.Check(request)
        if answer.verdict == pb.VERDICT_ALLOWED:
            assert not answer.blocking
            return "allowed"
        assert answer.verdict == pb.VERDICT_SUPPRESSED
        kinds = [pb.SuppressionKind.Name(one.kind).removeprefix("SUPPRESSION_KIND_") for one in answer.blocking]
        return " ".join(sorted(kinds)).lower()


@dataclass
class Rig:
    """Copies that run, and what a test needs around them."""

    nats: NatsClient
    database: mongo.Database
    settings: SuppressionSettings
    copies: list[Copy] = field(default_factory=list)

    @property
    def first(self) -> Copy:
        return self.copies[0]

    async def register(self, *tenants: Tenant) -> None:
        for one in tenants:
            await self.database[TENANTS_COLLECTION].replace_one({"_id": one.id}, one.to_document(), upsert=True)
            await self.nats.publish(TENANT_CHANGED_SUBJECT, one.id.encode())

    async def publish(self, of: Tenant, *events: Event) -> None:
        """Put events on EVENTS, each in a message of its own, as the normalizer does."""
        for one in events:
            subject = events_subject(of.queue_path, one.channel, _KINDS.word(one.kind), one.error_code)
            await self.nats.jetstream().publish(subject, EventBatch(events=[one]).SerializeToString())

    async def drained(self, *, within_s: float = 60.0) -> None:
        """Return when every event that is in the stream has been acknowledged."""
        await streams.drained(self.nats, EVENTS_STREAM, SUPPRESSION_CONSUMER, within_s=within_s)

    @asynccontextmanager
    async def another(self, **settings: Any) -> AsyncIterator[Copy]:
        """One more copy, which answers, for the length of the block."""
        hold = Hold()
        [port] = hold.choose(1)
        own = self.settings.model_copy(update={"suppression_grpc_listen": f"127.0.0.1:{port}", **settings})
        stop = asyncio.Event()
        task = asyncio.create_task(app.run(own, stop))
        channel = connect(f"127.0.0.1:{port}", own)
        copy = Copy(cast(Any, SuppressionServiceStub(channel)), TenantDataServiceStub(channel), channel, task, stop)
        self.copies.append(copy)
        try:
            yield copy
        finally:
            self.copies.remove(copy)
            await channel.close()
            stop.set()
            await asyncio.wait({task}, timeout=20)
            await cancel(task)

    async def answering(self, of: Tenant) -> None:
        """Return when every copy answers questions about the tenant."""
        for copy in self.copies:

            async def answers(copy: Copy = copy) -> bool:
                try:
                    await copy.verdict(of, "+15005559999")
                except BackhaulError as exc:
                    if exc.code not in (Code.UNAVAILABLE, Code.NOT_FOUND, Code.DEADLINE_EXCEEDED):
                        raise
                    return False
                return True

            await until("an answer of every copy", answers)


RigFactory = Callable[..., AbstractAsyncContextManager[Rig]]
