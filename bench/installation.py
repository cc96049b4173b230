"""The real stack, set up for measuring: tenants, prefilled streams, and ways back to an empty store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from backhaul_client import AsyncAdminClient, LimitsIn
from backhaul_common.ids import new_registration
from backhaul_common.names import (
    BATCH_COUNTS_COLLECTION,
    BATCHES_COLLECTION,
    CALLBACKS_STREAM,
    COMMUNICATIONS_COLLECTION,
    COUNTS_COLLECTION,
    DEAD_LETTERS_COLLECTION,
    ENTRIES_COLLECTION,
    EVENTS_COLLECTION,
    EVENTS_STREAM,
    JOINS_COLLECTION,
    MEMBERS_COLLECTION,
    MESSAGES_COLLECTION,
    NORMALIZER_CONSUMER,
    TENANTS_COLLECTION,
    callbacks_subject,
    queue_path_key,
)
from backhaul_common.secrets import new_credential
from backhaul_local.service import default_services
from backhaul_local.stack import Stack, StackConfig
from backhaul_testing import broker
from empty_route import KEY_VARIABLE, SIGNED
from generators import LoadError
from meter import Meter
from nats.aio.client import Client as NatsClient
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from normalized import Drained, Normalized
from prometheus_client.parser import text_string_to_metric_families
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from routes import EMPTY_ROUTES
from traffic import Traffic

Document = dict[str, Any]

PROCESSED = (
    EVENTS_COLLECTION,
    ENTRIES_COLLECTION,
    MESSAGES_COLLECTION,
    JOINS_COLLECTION,
    COUNTS_COLLECTION,
    DEAD_LETTERS_COLLECTION,
)
_REGISTERED = (COMMUNICATIONS_COLLECTION, BATCHES_COLLECTION, BATCH_COUNTS_COLLECTION, MEMBERS_COLLECTION)
_LIMITS: LimitsIn = {
    "requests_per_second": 1_000_000,
    "burst": 10_000_000,
    "reads_per_second": 1_000_000,
    "read_burst": 10_000_000,
    "concurrent_reads": 1000,
}
_IN_FLIGHT = 64
_PATIENCE_S = 90.0


class Installation:
    """Everything that the scenarios need of the stack."""

    def __init__(
        self,
        stack: Stack,
        folder: Path,
        mongo: AsyncMongoClient[Document],
        client: NatsClient,
        traffic: Traffic,
        say: Callable[[str], None],
    ) -> None:
        self.stack = stack
        self.folder = folder
        self.say = say
        self.mongo = mongo
        self.nats = client
        self.js: JetStreamContext = client.jetstream(timeout=30)
        self.meter = Meter(stack)
        self.gateway_port = stack.port("gateway", "http")
        self.plain_route_port = stack.port("plain_route", "http")
        self.bare_route_port = stack.port("bare_route", "http")
        self.signed_route_port = stack.port("signed_route", "http")
        self.host = stack.gateway_url.removeprefix("http://")
        self.traffic = traffic

    @property
    def database(self) -> AsyncDatabase[Document]:
        """The database of the stack."""
        return self.mongo[self.stack.mongo_database]

    # Tenants.

    async def register(self, tenant: str) -> str:
        """Register ``tenant`` with all channels and no limit that matters; its API key."""
        async with AsyncAdminClient(self.stack.gateway_url, self.stack.admin_token) as platform:
            made = await platform.create_tenant(tenant, name=tenant, queue_path=tenant, limits=_LIMITS)
            for label, channel in self.traffic.channels.items():
                await platform.put_channel(tenant, label, **channel)
        return made.api_key

    async def registration(self, tenant: str) -> str:
        """The registration of ``tenant``, which stands in its callbacks."""
        async with AsyncAdminClient(self.stack.gateway_url, self.stack.admin_token) as platform:
            return (await platform.tenant(tenant)).registration

    async def clone(self, template: str, names: Sequence[str]) -> dict[str, str]:
        """Copy the tenant ``template`` under ``names``; their API keys. Services read it when they start."""
        source = await self.database[TENANTS_COLLECTION].find_one({"_id": template})
        assert source is not None
        documents, keys = [], {}
        for name in names:
            credential_id, keys[name], digest = new_credential("api")
            credential = {**source["credentials"][0], "id": credential_id, "kind": "api", "digest": digest}
            own = {
                "_id": name,
                "registration": new_registration(name),
                "name": name,
                "queue_path": name,
                "queue_path_key": queue_path_key(name),
            }
            documents.append({**source, **own, "credentials": [credential]})
        await self.database[TENANTS_COLLECTION].insert_many(documents)
        return keys

    # Services.

    async def stop(self, *services: str) -> None:
        """Stop the services that run."""
        for name in services:
            if not await self.stack.service(name).stop():
                raise LoadError(f"{name} had to be killed.")

    async def ensure(self, *services: str) -> None:
        """Start the services that do not run."""
        for name in services:
            if not self.stack.service(name).running:
                await self.stack.service(name).start()

    async def until_ready(self, *services: str) -> None:
        """Return when the services, which run, are ready again."""
        for name in services:
            await self.stack.service(name).wait_ready()

    async def stored(self, tenant: str) -> int:
        """Callbacks of ``tenant`` that the gateway answered with 200 since it started."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"{self.stack.gateway_url}/metrics")).text
        return sum(
            int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "backhaul_gateway_callbacks_total"
            and (sample.labels["tenant"], sample.labels["outcome"]) == (tenant, "stored")
        )

    # What is stored.

    async def prefill(self, tenant: str, messages: Sequence[tuple[str, bytes]]) -> None:
        """Put serialised CallbackBatches, each of its channel, into CALLBACKS, as the gateway does."""
        for at in range(0, len(messages), _IN_FLIGHT):
            await asyncio.gather(
                *(
                    self.js.publish(callbacks_subject(tenant, channel), one)
                    for channel, one in messages[at : at + _IN_FLIGHT]
                )
            )

    async def forget(self, *, empty: bool = True) -> None:
        """Make all callbacks look new: nothing processed or registered (unless ``empty`` is false), nothing
        published, no position kept. The normalizer must not run; it makes everything anew when it starts."""
        if empty:
            for collection in (*PROCESSED, *_REGISTERED):
                await self.database.drop_collection(collection)
        # Deleted, not purged: a purged stream still knows the message ids of the last two minutes.
        await _if_found(self.js.delete_stream, EVENTS_STREAM)
        await _if_found(self.js.delete_consumer, CALLBACKS_STREAM, NORMALIZER_CONSUMER)

    async def purge_callbacks(self) -> None:
        """Empty CALLBACKS."""
        await self.js.purge_stream(CALLBACKS_STREAM)

    async def drain(self, expected: int, *, checkpoint: bool = False) -> Drained:
        """Start the normalizer and let it process the backlog, which must be ``expected`` new events, to its end.

        The clock starts when the first batch is done, so that starting the process does not count. With ``checkpoint``
        MongoDB then writes to its data files what has changed, as it does once a minute, and that counts too.
        """
        service = self.stack.service("normalizer")
        normalized = Normalized(service)
        service.launch()
        first = await normalized.until(1, look_s=0.002)
        before = self.meter.read()
        count = await normalized.until(expected)
        after = self.meter.read()
        if count != expected:
            raise LoadError(f"{expected} new events were expected, {count} were reported.")
        written = await self.checkpoint() if checkpoint else {}
        await service.wait_ready()
        return Drained(count - first, before, after, normalized.batches, count, written)

    async def checkpoint(self) -> dict[str, float]:
        """Have MongoDB write to its data files what waits to be written; CPU seconds that this took mongod."""
        before = self.meter.read()
        await self.mongo.admin.command("fsync")
        return {"mongod": self.meter.read().since(before)["mongod"]}

    async def until_consumer(self) -> None:
        """Return when the normalizer has made its consumer."""

        service = self.stack.service("normalizer")
        # The broker does not tell an outsider of this as an event, so it is asked, this often.
        async with asyncio.timeout(_PATIENCE_S):
            while not (await self.js.stream_info(CALLBACKS_STREAM)).state.consumer_count:
                if not service.running:
                    raise LoadError(f"{service.name} has ended:\n{service.log_tail()}")
                await asyncio.sleep(0.05)


@asynccontextmanager
async def installation(folder: Path, say: Callable[[str], None]) -> AsyncIterator[Installation]:
    """A stack in ``folder`` with everything running; nothing runs afterwards. ``say`` is told what is being done."""
    config = StackConfig(data_dir=folder, services=(*default_services(), *EMPTY_ROUTES), mongo_cache_gb=1.0)
    stack = Stack(config)
    traffic = Traffic(stack.gateway_url)
    stack.service(f"{SIGNED}_route").env[KEY_VARIABLE] = traffic.sendgrid_key
    async with stack:
        mongo: AsyncMongoClient[Document] = AsyncMongoClient(stack.mongo_uri)
        async with mongo:
            client = await broker.connect(stack.nats_url, name="bench", error_cb=_told)
            try:
                yield Installation(stack, folder, mongo, client, traffic, say)
            finally:
                await client.close()


async def _told(error: Exception) -> None:
    # nats-py prints a traceback otherwise. What is asked of a connection that has ended fails by itself, and that it
    # ends is no failure where the bench restarts the server.
    del error


async def _if_found(delete: Callable[..., Awaitable[object]], *names: str) -> None:
    try:
        await delete(*names)
    except NotFoundError:
        return  # There was nothing to delete.
