"""Copies of the reconciler over a real MongoDB, NATS and HTTP, and a normalizer of the contract."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from backhaul_channels.pull import Puller
from backhaul_common import jetstream, mongo, rpc
from backhaul_common.fence import owners
from backhaul_common.jetstream import Publisher
from backhaul_common.lifecycle import Readiness
from backhaul_common.metering import Metrics
from backhaul_common.names import (
    RECONCILED_ACCOUNTS_COLLECTION,
    RECONCILED_CHANNELS_COLLECTION,
    RECONCILED_DAYS_COLLECTION,
    RECONCILED_DIFFERENCES_COLLECTION,
    RECONCILED_RUNS_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_common.secrets import SecretBox
from backhaul_common.settings import CommonSettings
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenants import Channel, Tenant
from backhaul_common.tracing import Tracing
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2_grpc, records_pb2, records_pb2_grpc
from backhaul_reconciler import app
from backhaul_reconciler.accounts import Held, MongoAccounts
from backhaul_reconciler.asking import Asking
from backhaul_reconciler.books import Books
from backhaul_reconciler.calls import MongoCalls
from backhaul_reconciler.channels import Channels
from backhaul_reconciler.comparing import GrpcRecords
from backhaul_reconciler.days import MongoDays
from backhaul_reconciler.differences import MongoDifferences
from backhaul_reconciler.finding import Backfill
from backhaul_reconciler.knowing import Knowing
from backhaul_reconciler.passes.closing import Seen
from backhaul_reconciler.reports import MongoReports
from backhaul_reconciler.run import Turns
from backhaul_reconciler.transport import Requests
from backhaul_reconciler.validation import run_span_of
from backhaul_reconciler.work import Parts, Recent
from backhaul_testing import broker, make
from backhaul_testing.waiting import until
from contract_normalizer import Normalizer
from nats.aio.client import Client as NatsClient
from provider_api import ORIGIN, Messages, ProviderApi, adapters, provider_api

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
BOX = SecretBox([KEY])
SECOND_US = 1_000_000
LONG_AGO = timedelta(hours=1)
"""Not so long that MongoDB deletes an account meanwhile."""


class Killed(BaseException):
    """This copy is dead: nothing of it goes on."""


class Directory:
    """Who is served, as a copy knows it."""

    def __init__(self) -> None:
        self.tenants: dict[str, Tenant] = {}
        self.synced = True


class Copy:
    """One copy of the service: everything of it that lives in memory. ``step`` is called, with its name, before and
    after whatever it does outside."""

    def __init__(self, rig: Rig, name: str, now_us: Callable[[], int]) -> None:
        self.rig = rig
        self.metrics = Metrics("reconciler")
        self.requests = Requests(self.metrics, {ORIGIN: rig.api.url}, within_s=2.0)
        self.accounts = MongoAccounts(rig.database, name)
        self.reports = MongoReports(rig.database)
        self.directory = rig.directory
        knowing = Knowing(rig.adapters, BOX)
        self.channels = Channels(rig.database, self.directory, knowing, self.reports, now_us)
        self.calls = MongoCalls(rig.database, self.channels, knowing, self.reports, now_us)
        self._now_us = now_us
        self.step: Callable[[str], None] = lambda _: None
        stepped = partial(_Stepped, self)
        self.parts = Parts.metered(
            self.metrics,
            books=stepped(Books(rig.database, self.accounts)),
            records=stepped(GrpcRecords(rig.records, rig.normalizer_stub)),
            backfill=stepped(Backfill(rig.publisher, rig.nats.jetstream(), partial(owners, rig.database))),
            reports=self.reports,
            differences=MongoDifferences(rig.database),
            days=MongoDays(rig.database),
            requests=stepped(self.requests),
            tracing=Tracing("reconciler", None),
            recent=Recent(),
        )
        self.turns = Turns(self.parts, self.channels, Seen(rig.database), turn_s=6.0)
        self.asking = Asking(
            self.channels, self.accounts, self.turns, rig.adapters, self.metrics, look_s=0.05, renew_s=0.5
        )

    async def ask(self, tenant: Tenant, span: tuple[int, int] = (0, 0), *, dry_run: bool = False) -> str:
        """Somebody asks for a run of the tenant's channel, as over gRPC; the report's id."""
        return await self.calls.ask(tenant, "twilio", run_span_of(*span, self._now_us()), dry_run=dry_run)

    async def turn(self, account: str = "twilio/A1", *, at_us: int = 0) -> bool:
        """Give a turn to the channel of the account that is due longest, as of a time or else now; whether there was
        one. An account that another copy has is none."""
        held = await self.accounts.take(account)
        if held is None:
            return False
        return await self.turn_of(held, at_us=at_us)

    async def turn_of(self, held: Held, *, at_us: int = 0) -> bool:
        if at_us:
            held.began_us += at_us - held.now_us()
        row = await self.channels.next_of(held.id, held.now_us())
        ledgers = self.asking.ledgers(held)
        if row is not None:
            try:
                await self.turns.turn(held, row, ledgers)
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from None
        await self.asking._give_back(held, ledgers)  # as the loop does
        return row is not None

    async def until_done(self, *, at_us: int = 0, turns: int = 50) -> None:
        """Turns, until nothing is due."""
        for _ in range(turns):
            if not await self.turn(at_us=at_us):
                return
        raise AssertionError("It is due again and again.")

    async def close(self) -> None:
        await self.requests.close()
        self.metrics.close()


class _Stepped:
    """Something that a copy does outside, with a step before and after."""

    def __init__(self, copy: Copy, inner: Any) -> None:
        self._copy = copy
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def stepped(*args: Any, **more: Any) -> Any:
            self._copy.step(f"before {name}")
            answer = await found(*args, **more)
            self._copy.step(f"after {name}")
            return answer

        return stepped


class Rig:
    """All that is outside of the reconciler, and its copies."""

    def __init__(self, database: mongo.Database, nats: NatsClient, api: ProviderApi, stack: AsyncExitStack) -> None:
        self.database = database
        self.nats = nats
        self.api = api
        self.normalizer = Normalizer(nats)  # type: ignore[abstract]  # grpc answers other calls with UNIMPLEMENTED
        self.publisher = Publisher()
        self.directory = Directory()
        self.adapters = adapters()
        self.records: Any = None
        self.normalizer_stub: Any = None
        self.normalizer_target = ""
        self.now_us: Callable[[], int] = lambda: int(datetime.now(UTC).timestamp() * SECOND_US)
        self._stack = stack

    def ask(self, puller: Puller[Any, Any]) -> None:
        """The API is asked in another way, by copies that begin from now on."""
        self.adapters = adapters(puller)

    def copy(self, name: str = "one", *, now_us: Callable[[], int] | None = None) -> Copy:
        """A copy that has just been started."""
        made = Copy(self, name, now_us or self.now_us)
        self._stack.push_async_callback(made.close)
        return made

    async def register(
        self, tenant_id: str = "acme", *, account: str = "A1", token: str = "good", **settings: Any
    ) -> Tenant:
        """A tenant with a channel that has credentials, or the same with others."""
        credentials = BOX.encrypt(json.dumps({"account": account, "sender": tenant_id, "token": token}))
        made = make.tenant(tenant_id)
        channel = Channel(
            label="twilio",
            key="twilio",
            provider="twilio",
            settings={"reconcile": settings},
            pull_credentials=credentials,
            updated_at=datetime.now(UTC),
        )
        await self.put(made.model_copy(update={"channels": {"twilio": channel}}))
        return self.directory.tenants[tenant_id]

    def send(self, number: int, *, sender: str = "acme", prefix: str = "M") -> None:
        """Messages that the provider knows, sent a minute apart until five minutes ago, of which nothing was heard."""
        for place in range(number):
            at_us = self.now_us() - (place + 5) * 60_000_000
            self.api.send(f"{prefix}{place:04}", "delivered", at_us, sender=sender)

    async def put(self, tenant: Tenant) -> None:
        rows = self.database[TENANTS_COLLECTION]
        stored = await rows.find_one_and_replace(
            {"_id": tenant.id}, tenant.to_document(), upsert=True, return_document=True
        )
        self.directory.tenants = {**self.directory.tenants, tenant.id: Tenant.from_document(stored)}

    async def dead(self) -> None:
        """Whoever held an account was not heard of for so long that another copy may take it."""
        await self.database[RECONCILED_ACCOUNTS_COLLECTION].update_many(
            {}, {"$set": {"until": datetime.now(UTC) - LONG_AGO}}
        )

    async def due(self, tenant_id: str = "acme") -> None:
        """The tenant's channel is due."""
        rows = self.database[RECONCILED_CHANNELS_COLLECTION]
        await rows.update_many({"tenant": tenant_id}, {"$set": {"due_at_us": 1}})

    async def channel(self, tenant_id: str = "acme") -> dict[str, Any]:
        row = await self.database[RECONCILED_CHANNELS_COLLECTION].find_one({"tenant": tenant_id})
        assert row is not None
        return row

    async def runs(self) -> list[dict[str, Any]]:
        """All reports, the first one first."""
        return await self.database[RECONCILED_RUNS_COLLECTION].find({}).sort([("began_at_us", 1)]).to_list(None)

    async def days(self) -> dict[str, dict[str, Any]]:
        rows = await self.database[RECONCILED_DAYS_COLLECTION].find({}).to_list(None)
        return {row["day"]: row for row in rows}

    async def differences(self) -> dict[str, dict[str, Any]]:
        rows = await self.database[RECONCILED_DIFFERENCES_COLLECTION].find({}).to_list(None)
        return {row["message_id"]: row for row in rows}


@asynccontextmanager
async def rigged(mongo_uri: str, database_name: str, nats_url: str) -> AsyncIterator[Rig]:
    """A rig with nothing in it."""
    async with AsyncExitStack() as stack:
        client = mongo.connect(mongo_uri)
        stack.callback(client.close)
        database = mongo.database(client, database_name)
        await StoreFormat(database).ensure()
        await mongo.make_indexes(database, app.INDEXES)
        # Some tests are of months ago: MongoDB would expire their reports while they run.
        await database[RECONCILED_RUNS_COLLECTION].drop_index("began_at_1")
        nats = await broker.connect(nats_url)
        stack.push_async_callback(nats.close)
        settings = CommonSettings(_env_file=None, nats_url=nats_url)
        await jetstream.ensure_streams(nats.jetstream(), settings)
        rig = Rig(database, nats, await stack.enter_async_context(provider_api()), stack)
        await rig.publisher.attach(nats)

        def register(server: Any) -> None:
            records_pb2_grpc.add_RecordServiceServicer_to_server(rig.normalizer, server)
            normalizer_pb2_grpc.add_NormalizerServiceServicer_to_server(rig.normalizer, server)

        names = [
            records_pb2.DESCRIPTOR.services_by_name["RecordService"].full_name,
            pb.DESCRIPTOR.services_by_name["NormalizerService"].full_name,
        ]
        server = await rpc.serve(
            stack,
            settings,
            Tracing("normalizer", None),
            Readiness(),
            listen="127.0.0.1:0",
            services=names,
            register=register,
        )
        rig.normalizer_target = f"127.0.0.1:{server.port}"
        channel = rpc.connect(rig.normalizer_target, settings)
        stack.push_async_callback(channel.close)
        rig.records = records_pb2_grpc.RecordServiceStub(channel)
        rig.normalizer_stub = normalizer_pb2_grpc.NormalizerServiceStub(channel)
        yield rig


__all__ = ["ORIGIN", "Copy", "Killed", "Messages", "Rig", "rigged", "timedelta", "until"]
