"""What the reconciler keeps, on a real MongoDB, and its servicer on a real port over it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from backhaul_channels import Adapter, load_adapters
from backhaul_channels.pull import Ask, Budget, Listing, Page, PullCredentials, Puller, Span, Transport
from backhaul_channels.settings import ChannelSettings
from backhaul_common import mongo, rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import Readiness
from backhaul_common.names import RECONCILED_CHANNELS_COLLECTION
from backhaul_common.secrets import SecretBox
from backhaul_common.settings import CommonSettings
from backhaul_common.tenants import Channel, Tenant
from backhaul_common.tracing import Tracing
from backhaul_proto.normalizer.v1 import records_pb2, records_pb2_grpc
from backhaul_proto.reconciler.v1.reconciler_pb2_grpc import (
    ReconcilerServiceStub,
    add_ReconcilerServiceServicer_to_server,
)
from backhaul_reconciler import days, differences, reports
from backhaul_reconciler.access import SERVICE
from backhaul_reconciler.activity import GrpcActivities
from backhaul_reconciler.days import MongoDays
from backhaul_reconciler.differences import MongoDifferences
from backhaul_reconciler.following import Following
from backhaul_reconciler.knowing import Knowing
from backhaul_reconciler.model import Begun, Cause, ChannelOf
from backhaul_reconciler.ports import Change
from backhaul_reconciler.reports import MongoReports
from backhaul_reconciler.servicer import ReconcilerServicer
from backhaul_reconciler.standings import Standings
from backhaul_testing import make
from cryptography.fernet import Fernet

NOW_US = 1_800_000_000_000_000
MINUTE_US = 60_000_000
BOX = SecretBox([Fernet.generate_key().decode()])
CREDENTIALS = BOX.encrypt(json.dumps({"account": "AC1", "token": "secret"}))
ACME = make.tenant("acme", mpulse={})
GLOBEX = make.tenant("globex")
TWILIO = ChannelOf("acme", ACME.registration, "twilio")
SENDGRID = ChannelOf("acme", ACME.registration, "sendgrid")
THEIRS = ChannelOf("globex", GLOBEX.registration, "twilio")


class Rig:
    """A database with the indexes that the reconciler's books have."""

    def __init__(self, database: mongo.Database) -> None:
        self.database = database
        self.reports = MongoReports(database)
        self.differences = MongoDifferences(database)
        self.days = MongoDays(database)

    async def prepare(self) -> None:
        for indexes in (reports.INDEXES, differences.INDEXES, days.INDEXES):
            await mongo.make_indexes(self.database, indexes)

    async def store(self, *changes: Change) -> None:
        """Store changes in one transaction."""

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            for change in changes:
                change(database, session)

        await mongo.in_transaction(self.database, work)

    async def begin(self, of: ChannelOf = TWILIO, began_at_us: int = NOW_US, **values: Any) -> str:
        """A report of a run that began; its id."""
        fields = {"cause": Cause.SCHEDULE, "from_us": began_at_us - MINUTE_US, "to_us": began_at_us, **values}
        begun = Begun(id=uuid4().hex, began_at_us=began_at_us, **fields)
        await self.store(self.reports.begin(of, begun))
        return begun.id

    async def channel(self, of: ChannelOf = TWILIO, **values: Any) -> None:
        """The document of a channel that is asked."""
        row = {
            "_id": of.id,
            "registration": of.registration,
            "tenant": of.tenant,
            "channel": of.channel,
            "provider": of.channel,
            "due_at_us": NOW_US + MINUTE_US,
            "settings_us": 0,
            "standing": "asked",
            "text": "",
            "lists": {},
            **values,
        }
        await self.database[RECONCILED_CHANNELS_COLLECTION].insert_one(row)


class Keys(PullCredentials):
    """By what the provider of the tests is asked."""

    account: str
    token: str


class Lists(Puller[Keys, ChannelSettings]):
    """An API with two lists, which nobody asks here."""

    credentials_model = Keys
    origins = frozenset({"https://api.example.com"})
    budgets: Mapping[str, Budget] = {"all": Budget(60)}  # type: ignore[misc]  # a value for the class variable
    message_budget = "all"
    reaches_back_days = 30

    def account(self, credentials: Keys) -> str:
        return credentials.account

    def listings(self, settings: ChannelSettings) -> Sequence[Listing]:
        return [Listing("messages", "all", whole=True), Listing("blocks", "all")]

    async def window(
        self, transport: Transport, ask: Ask[Keys, ChannelSettings], listing: str, span: Span, cursor: str = ""
    ) -> Page:
        raise NotImplementedError

    async def message(self, transport: Transport, ask: Ask[Keys, ChannelSettings], message_id: str) -> Page:
        raise NotImplementedError


def adapters() -> Mapping[str, Adapter[Any]]:
    """Twilio's with an API of the tests' own, mPulse's without any."""
    found = load_adapters()
    asked = type(found["twilio"])
    return {**found, "twilio": type("Asked", (asked,), {"puller": Lists()})()}


class HeldActivity(records_pb2_grpc.RecordServiceServicer):
    """A normalizer that knows what a test says."""

    def __init__(self) -> None:
        self.channels: list[records_pb2.ChannelActivity] = []
        self.asked: list[records_pb2.ListActivityRequest] = []

    async def ListActivity(self, request: Any, context: Any) -> records_pb2.ListActivityResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        return records_pb2.ListActivityResponse(channels=self.channels)


class HeldCalls:
    """``Calls`` that begin a report, which the test ends."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.asked: list[tuple[str, str, tuple[int, int], bool]] = []
        self.report_id = ""
        self.begun = asyncio.Event()
        self.refusal: BackhaulError | None = None

    async def ask(self, tenant: Tenant, channel: str, span: tuple[int, int], *, dry_run: bool) -> str:
        self.asked.append((tenant.id, channel, span, dry_run))
        if self.refusal is not None:
            raise self.refusal
        of = ChannelOf(tenant.id, tenant.registration, channel)
        self.report_id = await self._rig.begin(of, cause=Cause.CALL, from_us=span[0], to_us=span[1], dry_run=dry_run)
        self.begun.set()
        return self.report_id


class World:
    """Who is served, what is known, and what time it is."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.tenants = {"acme": ACME, "globex": GLOBEX}
        self.calls = HeldCalls(rig)
        self.normalizer = HeldActivity()  # type: ignore[abstract]  # grpc answers the other call with UNIMPLEMENTED
        self.now_us = NOW_US
        self.silence_s = 60.0

    async def require(self, tenant_id: str) -> Tenant:
        if tenant_id not in self.tenants:
            raise BackhaulError(Code.NOT_FOUND, "There is no such tenant.", field="tenant_id", fix="Check the id.")
        return self.tenants[tenant_id]

    def set_channel(self, key: str, **values: Any) -> None:
        """Change acme's channel ``key``."""
        acme = self.tenants["acme"]
        channel: Channel = acme.channels[key].model_copy(update=values)
        self.tenants["acme"] = acme.model_copy(update={"channels": {**acme.channels, key: channel}})


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[Any]:
    """A stub of the servicer over a real connection, which asks a normalizer over another."""
    settings = CommonSettings(_env_file=None)
    async with AsyncExitStack() as stack:
        serve = partial(rpc.serve, stack, settings, Tracing("reconciler", None), Readiness(), listen="127.0.0.1:0")
        normalizer = await serve(
            services=[records_pb2.DESCRIPTOR.services_by_name["RecordService"].full_name],
            register=partial(records_pb2_grpc.add_RecordServiceServicer_to_server, world.normalizer),
        )
        connection = rpc.connect(f"127.0.0.1:{normalizer.port}", settings)
        stack.push_async_callback(connection.close)
        activities = GrpcActivities(records_pb2_grpc.RecordServiceStub(connection))
        rig = world.rig
        clock = asyncio.get_running_loop().time
        servicer = ReconcilerServicer(
            world,
            world.calls,
            Following(rig.reports, clock, look_s=0.02, silence_s=world.silence_s),
            reports=rig.reports,
            differences=rig.differences,
            days=rig.days,
            standings=Standings(rig.database, Knowing(adapters(), BOX), activities),
            now_us=lambda: world.now_us,
        )
        server = await serve(services=[SERVICE], register=partial(add_ReconcilerServiceServicer_to_server, servicer))
        channel = rpc.connect(f"127.0.0.1:{server.port}", settings)
        stack.push_async_callback(channel.close)
        yield ReconcilerServiceStub(channel)


async def refused(call: Any) -> BackhaulError:
    """The error of a call, of one answer or of many."""
    try:
        if hasattr(call, "__anext__"):
            async for _ in call:
                pass
        else:
            await call
    except BackhaulError as exc:
        return exc
    raise AssertionError("It was not refused.")
