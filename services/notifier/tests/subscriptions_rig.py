"""Copies that write subscriptions into one real database, and tell each other over a real broker."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from backhaul_common import jetstream, mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.fence import owners
from backhaul_common.jetstream import Publisher
from backhaul_common.names import (
    ENDPOINTS_COLLECTION,
    NOTIFIER_OUTBOX,
    NOTIFIER_POSITIONS_COLLECTION,
    SUBSCRIPTIONS_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_common.outbox import Outbox
from backhaul_common.revisioned import Directory, Documents
from backhaul_common.secrets import SecretBox
from backhaul_common.settings import StreamSettings
from backhaul_common.tenants import Tenant
from backhaul_notifier.model import Attempted, Delivery, Subscription
from backhaul_notifier.ports import always
from backhaul_notifier.schedules import Outcome
from backhaul_notifier.servicer_subscriptions import SubscriptionCalls
from backhaul_notifier.subscriptions.secrets_of import Seals
from backhaul_notifier.subscriptions.standings import Standings
from backhaul_notifier.subscriptions.store import INDEXES, MongoSubscriptions
from backhaul_notifier.subscriptions.stored import SUBSCRIPTION
from backhaul_notifier.subscriptions.sweeping import Sweep
from backhaul_notifier.subscriptions.writing import VERSION_ID, NatsSignals
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing import broker, make
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from nats.aio.client import Client as NatsClient

ACME, GLOBEX = make.tenant("acme"), make.tenant("globex")
BOX = SecretBox([Fernet.generate_key().decode()])


@dataclass
class Calls:
    """Stands for what calls endpoints: nobody is called, and what would have been is written down."""

    made: list[tuple[Subscription, Sequence[Delivery], str]] = field(default_factory=list)

    async def call(
        self,
        subscription: Subscription,
        deliveries: Sequence[Delivery],
        webhook_id: str,
        may_send: Callable[[], bool] = always,
    ) -> Attempted:
        self.made.append((subscription, deliveries, webhook_id))
        return Attempted(5, 7, Outcome(503), "The endpoint answered 503.", "away", "POST https://example.com/sent")


@dataclass
class Copy:
    """One that writes and answers."""

    directory: Directory[Subscription]
    subscriptions: MongoSubscriptions
    calls: SubscriptionCalls
    caller: Calls
    seals: Seals
    written: list[int] = field(default_factory=list)
    """How often its outbox was told of rows."""


@dataclass
class Rig:
    """Servers with two tenants, and the time as every copy has it."""

    nats: NatsClient
    database: mongo.Database
    now_us: int = field(default_factory=lambda: time.time_ns() // 1000)

    async def require(self, tenant_id: str) -> Tenant:
        """The tenants as every copy knows them; what is true, the database says."""
        known = {"acme": ACME, "globex": GLOBEX}
        if tenant_id not in known:
            raise BackhaulError(Code.NOT_FOUND, "There is no such tenant.", field="tenant_id", fix="Check the id.")
        return known[tenant_id]

    def time(self) -> int:
        return self.now_us

    async def copy(self, database: mongo.Database | None = None) -> Copy:
        """Another one, which may see ``database`` over another connection."""
        database = self.database if database is None else database
        directory = Directory(SUBSCRIPTION, Documents(database[SUBSCRIPTIONS_COLLECTION]))
        await directory.follow(self.nats)
        seals, written = Seals(BOX), list[int]()
        subscriptions = MongoSubscriptions(
            database,
            directory,
            seals,
            NatsSignals(self.nats, directory.reload),
            check_address=lambda _: None,
            outbox_written=lambda: written.append(1),
            now_us=self.time,
        )
        caller = Calls()
        calls = SubscriptionCalls(self, subscriptions, Standings(database), caller, self.time)
        return Copy(directory, subscriptions, calls, caller, seals, written)

    def sweep(self) -> Sweep:
        return Sweep(self.database, self.time)

    async def publish_outbox(self) -> None:
        publisher = Publisher()
        await publisher.attach(self.nats)
        outbox = Outbox(self.database, NOTIFIER_OUTBOX, publisher, lambda paths: owners(self.database, paths))
        await outbox.publish_some()

    async def version(self) -> int:
        row = await self.database[NOTIFIER_POSITIONS_COLLECTION].find_one({"_id": VERSION_ID})
        return 0 if row is None else int(row["version"])

    async def row(self, id_: str) -> Document:
        row = await self.database[SUBSCRIPTIONS_COLLECTION].find_one({"_id": id_})
        assert row is not None
        return row

    async def endpoint(self, id_: str) -> Document:
        row = await self.database[ENDPOINTS_COLLECTION].find_one({"_id": id_})
        assert row is not None
        return row

    async def deleting(self, tenant: Tenant) -> None:
        """Mark a tenant's deletion, of which no copy has heard yet."""
        await self.database[TENANTS_COLLECTION].update_one({"_id": tenant.id}, {"$set": {"status": "deleting"}})


@asynccontextmanager
async def rig_at(nats_url: str, mongo_uri: str, name: str) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        nats = await broker.connect(nats_url)
        stack.push_async_callback(nats.close)
        await jetstream.ensure_streams(nats.jetstream(), StreamSettings(_env_file=None))
        client = mongo.connect(mongo_uri)
        stack.callback(client.close)
        database = mongo.database(client, name)
        await mongo.make_indexes(database, INDEXES)
        for tenant in (ACME, GLOBEX):
            await database[TENANTS_COLLECTION].insert_one(tenant.to_document())
        yield Rig(nats, database)


def wanting(**fields: Any) -> pb.Definition:
    """A definition with credentials."""
    return pb.Definition(
        name=fields.pop("name", "Orders"),
        types=fields.pop("types", ["message.delivered", "message.failed"]),
        http=pb.HttpDestination(
            url=fields.pop("url", "https://example.com/sent"),
            credentials=fields.pop("credentials", pb.Credentials(bearer_token="hunter2-and-more")),
        ),
        **fields,
    )


def key_pair() -> tuple[str, str]:
    """A certificate and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "us")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()
