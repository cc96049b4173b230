"""The composition root: the only place where clients are made, and closed in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from backhaul_channels.adapter import Adapter
from backhaul_channels.registry import load_adapters
from backhaul_common import jetstream, logs, mongo, rpc
from backhaul_common.lifecycle import Readiness, cancel, keep_running, spare_the_collector, until_done
from backhaul_common.metrics import STORE_REACHABLE, TENANTS_DELETING, Metrics
from backhaul_common.names import TENANTS_COLLECTION
from backhaul_common.secrets import SecretBox
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenants import TenantDirectory
from backhaul_common.tracing import Tracing
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceStub
from fastapi import FastAPI

from backhaul_gateway.admin.channels import ChannelRegistry
from backhaul_gateway.admin.normalizer import NormalizerData
from backhaul_gateway.admin.removal import TenantRemoval
from backhaul_gateway.admin.routes import admin_router
from backhaul_gateway.admin.store import MongoTenantStore
from backhaul_gateway.admin.tenants import TenantRegistry
from backhaul_gateway.admin.updates import TenantUpdates
from backhaul_gateway.admission.auth import CredentialIndex
from backhaul_gateway.admission.door import Admission
from backhaul_gateway.admission.room import CallbackRoom
from backhaul_gateway.admission.state import TenantStates
from backhaul_gateway.admission.strangers import Strangers
from backhaul_gateway.broker import Broker
from backhaul_gateway.ingest.callbackstream import CallbackStream
from backhaul_gateway.ingest.endpoint import IngestEndpoint
from backhaul_gateway.ingest.publisher import GroupCommitPublisher
from backhaul_gateway.ingest.watch import LogWatch, Reachable
from backhaul_gateway.reads.objectstore import BucketCheck
from backhaul_gateway.reads.routes import tenant_router
from backhaul_gateway.reads.status import ChannelStatus
from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.web import problems
from backhaul_gateway.web.accesslog import AccessLog
from backhaul_gateway.web.clients import ClientAddress
from backhaul_gateway.web.connections import Connections
from backhaul_gateway.web.docs import docs_router
from backhaul_gateway.web.edge import Edge
from backhaul_gateway.web.openapi import openapi_of
from backhaul_gateway.web.ops import ops_router
from backhaul_gateway.web.server import connections_of, listen, server_of

SERVICE = "gateway"


@dataclass(frozen=True, slots=True)
class Gateway:
    """The application, and what the server that runs it needs."""

    app: Edge
    publisher: GroupCommitPublisher
    connections: Connections


async def serve(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set; then stop accepting, answer what is under way, and close everything."""
    logs.configure(SERVICE, fmt=settings.log_format, level=settings.log_level)
    log = logs.get_logger()
    async with AsyncExitStack() as stack:
        listeners = listen(settings)
        for listener in listeners:
            stack.callback(listener.close)
        port: int = listeners[0].getsockname()[1]
        gateway = await create_app(stack, settings, public_base_url=settings.public_base_url(port))
        server = server_of(gateway.app, settings, gateway.connections)
        spare_the_collector()
        serving = asyncio.create_task(server.serve(listeners), name="http")
        log.info("serving", host=settings.gateway_host, port=port, public_base_url=settings.public_base_url(port))
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        log.info("stopping")
        server.should_exit = True
        await serving
        await gateway.publisher.drain()


async def create_app(
    stack: AsyncExitStack,
    settings: GatewaySettings,
    *,
    public_base_url: str,
    adapters: Mapping[str, Adapter[Any]] | None = None,
    tracing: Tracing | None = None,
) -> Gateway:
    """The application with everything behind it, closed by ``stack``. Returns at once: what is away is waited for in
    the background, and ``GET /readyz`` tells of it."""
    tracing = tracing or Tracing.from_environment(SERVICE)
    stack.callback(tracing.close)
    metrics = Metrics(SERVICE)
    stack.callback(metrics.close)
    access_log = AccessLog(SERVICE, fmt=settings.log_format, level=settings.log_level)
    stack.callback(access_log.flush)
    connections = connections_of(settings, metrics)
    stack.callback(connections.close)
    providers = load_adapters() if adapters is None else adapters
    box = SecretBox(settings.encryption_keys())
    clients = ClientAddress(settings.gateway_trusted_proxies)

    client = mongo.connect(settings.mongo_uri.get_secret_value())
    stack.callback(client.close)
    database = mongo.database(client, settings.mongo_database)
    store_format = StoreFormat(database)
    store = MongoTenantStore(database[TENANTS_COLLECTION], store_format)
    directory = TenantDirectory(database[TENANTS_COLLECTION], before_reading=store_format.ensure)
    credentials = CredentialIndex(lambda: directory.synced)
    clock = asyncio.get_running_loop().time
    states = TenantStates(providers, box, clock)
    strangers = Strangers(directory, store, credentials, clock)
    admission = Admission(room := CallbackRoom(), metrics)
    # Credentials last: a tenant that is found by its key is then known already.
    directory.listen(states.changed)
    directory.listen(credentials.changed)

    channels = rpc.Channels(stack, settings)
    normalizer = NormalizerServiceStub(channels.to(settings.gateway_normalizer_target))

    broker = Broker(settings, directory)
    publisher = GroupCommitPublisher(
        timeout_s=settings.gateway_publish_timeout_s,
        metrics=metrics,
        tracing=tracing,
        on_stored=room.stored,
    )
    updates = TenantUpdates(store, broker)
    data = NormalizerData(normalizer)
    lifetime_s = partial(mongo.transaction_lifetime_s, client, settings.mongo_transaction_lifetime_s)
    removal = TenantRemoval(store, broker, data, broker, lifetime_s, clock)
    directory.listen(removal.changed)
    metrics.gauge(TENANTS_DELETING, lambda: removal.waiting)
    readiness = Readiness()
    readiness.add("store_format", store_format.ensure)
    readiness.add("tenants", directory.check)
    readiness.add("jetstream", broker.check)
    for name, work in (
        ("store_format", store_format.run()),
        ("tenant_index", store_format.then(partial(until_done, "tenant_index", store.prepare))),
        ("tenants", store_format.then(directory.run)),
        ("tenant_removal", keep_running("tenant_removal", removal.run)),
        (
            "callback_log",
            keep_running(
                "callback_log", LogWatch(CallbackStream(broker.connected), room, publisher, metrics, clock).run
            ),
        ),
        (
            "store_reachable",
            keep_running("store_reachable", Reachable(lambda: mongo.ping(client), STORE_REACHABLE, metrics).run),
        ),
        ("nats", keep_running("nats", partial(_stay_connected, settings, broker, publisher, directory, store_format))),
    ):
        stack.push_async_callback(cancel, asyncio.create_task(work, name=name))

    app = FastAPI(
        title="Backhaul gateway",
        version=version("backhaul-gateway"),
        description="Callbacks of channel providers in, message states out.",
        redirect_slashes=False,
        # FastAPI encodes the document anew for each request, and its pages load scripts from elsewhere.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # Spans, metrics and logs are made where they belong; FastAPI's own would double them, on the hot path too.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    ingest = IngestEndpoint(
        states=states,
        credentials=credentials,
        strangers=strangers,
        admission=admission,
        log=publisher,
        access_log=access_log,
        metrics=metrics,
        tracing=tracing,
        clients=clients,
        public_base_url=public_base_url,
        body_timeout_s=settings.gateway_body_timeout_s,
        max_held_bytes=settings.gateway_max_held_bytes,
        most_bodies=connections.most,
    )
    app.include_router(
        tenant_router(
            credentials=credentials,
            strangers=strangers,
            states=states,
            admission=admission,
            status=ChannelStatus(
                streams=broker,
                check_store=lambda: mongo.ping(client),
                object_storage=BucketCheck(settings),
                states=states,
            ),
            normalizer=normalizer,
            version=app.version,
        )
    )
    app.include_router(
        admin_router(
            TenantRegistry(updates, broker, data),
            ChannelRegistry(updates, providers, box),
        )
    )
    app.include_router(ops_router(readiness, metrics))
    app.include_router(docs_router(openapi_of(app)))
    problems.answer_errors_of(app)
    edge = Edge(
        app,
        ingest=ingest,
        admin_token=settings.gateway_admin_token.get_secret_value(),
        admin_port=settings.gateway_admin_port,
        body_timeout_s=settings.gateway_body_timeout_s,
        access_log=access_log,
        metrics=metrics,
        tracing=tracing,
        clients=clients,
    )
    return Gateway(edge, publisher, connections)


async def _stay_connected(
    settings: GatewaySettings,
    broker: Broker,
    publisher: GroupCommitPublisher,
    directory: TenantDirectory,
    store_format: StoreFormat,
) -> None:
    """Connect whenever NATS is there, and stay to see to it that what hangs on the connection is set up.

    Never returns. Raises when that fails, with the connection closed: what was set up in part goes with it, and the
    next try begins anew.
    """
    back = asyncio.Event()

    async def reconnected() -> None:
        await publisher.resume()
        back.set()

    # Unbuffered: a callback that was refused because the connection is away must not be stored once it is back.
    client = jetstream.Connection(keep_unsent=False)
    # Before it is connected, so that readiness can say what keeps it from being.
    broker.attach(client)
    try:
        await jetstream.connect(settings, SERVICE, client=client, buffer_while_away=False, on_reconnect=reconnected)
        await publisher.attach(client)
        # The streams do not wait for the tenants, which are not followed in a database of an unknown format.
        await until_done("streams", broker.prepare)
        await store_format.then(partial(directory.follow, client))
        while True:
            # After a reconnection too: it may be another server, or one that lost its disk.
            await until_done("streams", broker.prepare)
            await back.wait()
            back.clear()
            # Changes that were announced meanwhile were missed.
            await until_done("tenants", directory.refresh)
    finally:
        await client.close()
