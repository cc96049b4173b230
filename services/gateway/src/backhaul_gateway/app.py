"""The composition root: what this service is made of. ``Service`` makes the clients, and closes them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

from backhaul_channels import Adapter, load_adapters
from backhaul_common import mongo
from backhaul_common.metrics import STORE_REACHABLE, TENANTS_DELETING
from backhaul_common.names import SERVICES_COLLECTION, TENANTS_COLLECTION
from backhaul_common.secrets import SecretBox
from backhaul_common.service import Service
from backhaul_console import Console
from backhaul_proto.tenantdata.v1.tenantdata_pb2_grpc import TenantDataServiceStub
from starlette.types import ASGIApp

from backhaul_gateway.admin.addresses import Addresses
from backhaul_gateway.admin.auditroutes import AuditKeyRoutes
from backhaul_gateway.admin.changeroutes import ChangeRoutes
from backhaul_gateway.admin.changestore import MongoChangeStore
from backhaul_gateway.admin.channels import ChannelRegistry
from backhaul_gateway.admin.configroutes import ConfigRoutes, NotifierSubscriptions
from backhaul_gateway.admin.configuration import Configuration
from backhaul_gateway.admin.noted import sides_of
from backhaul_gateway.admin.ownroutes import OwnRoutes
from backhaul_gateway.admin.removal import TenantRemoval
from backhaul_gateway.admin.replayroutes import OperatorReplayRoutes
from backhaul_gateway.admin.routes import (
    admin_router,
    audit_key_router,
    change_router,
    config_router,
    overview_router,
    secret_key_router,
    service_router,
    whoami_router,
)
from backhaul_gateway.admin.secretkeys import SecretKeyRoutes, of_tenants
from backhaul_gateway.admin.services import ServiceRegistry
from backhaul_gateway.admin.store import MongoServiceStore, MongoTenantStore
from backhaul_gateway.admin.suppressionroutes import OperatorSuppressionRoutes
from backhaul_gateway.admin.tenantdata import GrantedData, ServicesData
from backhaul_gateway.admin.tenants import TenantRegistry
from backhaul_gateway.admin.updates import TenantUpdates
from backhaul_gateway.admin.uses import KeyUses
from backhaul_gateway.admin.whoami import whoami_of_tenants
from backhaul_gateway.admission.admins import AdminTokens
from backhaul_gateway.admission.attempts import WrongCredentials
from backhaul_gateway.admission.auth import CredentialIndex
from backhaul_gateway.admission.door import Admission
from backhaul_gateway.admission.room import CallbackRoom
from backhaul_gateway.admission.state import TenantStates
from backhaul_gateway.admission.strangers import Strangers
from backhaul_gateway.broker import Broker
from backhaul_gateway.console.inprocess import InProcess
from backhaul_gateway.console.store import SESSION, MongoSessionStore
from backhaul_gateway.ingest.callbackstream import CallbackStream
from backhaul_gateway.ingest.endpoint import IngestEndpoint
from backhaul_gateway.ingest.publisher import GroupCommitPublisher
from backhaul_gateway.ingest.tokens import TokenRoute
from backhaul_gateway.ingest.watch import LogWatch, Reachable
from backhaul_gateway.reads.auditfiles import AuditFileRoutes
from backhaul_gateway.reads.auditkeys import AuditKeyRoute
from backhaul_gateway.reads.auditrecount import AuditRecountRoutes
from backhaul_gateway.reads.audits import AuditRoutes
from backhaul_gateway.reads.batches import BatchRoutes
from backhaul_gateway.reads.callers import Callers
from backhaul_gateway.reads.communications import CommunicationRoutes
from backhaul_gateway.reads.deliveries import DeliveryRoutes
from backhaul_gateway.reads.eventstream import EventStreams
from backhaul_gateway.reads.members import MemberRoutes
from backhaul_gateway.reads.normalizer import NormalizerRoutes
from backhaul_gateway.reads.preview import PreviewRoutes
from backhaul_gateway.reads.recipients import RecipientRoutes
from backhaul_gateway.reads.reconciliation import ReconciliationRoutes
from backhaul_gateway.reads.replays import ReplayRoutes
from backhaul_gateway.reads.routes import tenant_router
from backhaul_gateway.reads.sends import SendRoutes
from backhaul_gateway.reads.standing import standing_of
from backhaul_gateway.reads.stats import StatsRoutes
from backhaul_gateway.reads.subscriptions import SubscriptionRoutes
from backhaul_gateway.reads.suppressionfiles import SuppressionFileRoutes
from backhaul_gateway.reads.suppressions import SuppressionRoutes
from backhaul_gateway.services import Services
from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.spool.wiring import spooled
from backhaul_gateway.twins.writing import Writer
from backhaul_gateway.web.accesslog import AccessLog
from backhaul_gateway.web.application import application_of
from backhaul_gateway.web.changes import ChangeLog
from backhaul_gateway.web.clients import ClientAddress
from backhaul_gateway.web.connections import Connections
from backhaul_gateway.web.edge import Edge
from backhaul_gateway.web.guard import Guard
from backhaul_gateway.web.https import Https, Origins
from backhaul_gateway.web.server import connections_of, listen, server_of

NAME = "gateway"


@dataclass(frozen=True, slots=True)
class Gateway:
    """The application, and what the server that runs it needs."""

    app: Edge
    publisher: GroupCommitPublisher
    connections: Connections
    streams: EventStreams


async def run(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set; then stop accepting, answer what is under way, and close everything."""
    # Unbuffered: a callback that was refused because the connection is away must not be stored once it is back.
    async with Service(NAME, settings, buffer_while_away=False, tenant_secrets=True) as service:
        listeners = listen(service, settings)
        gateway = build(service, settings, origins=listeners.origins)
        server = server_of(gateway.app, settings, gateway.connections, listeners)
        serving = asyncio.create_task(server.serve(listeners.all), name="http")
        service.log.info(
            "serving",
            host=settings.gateway_host,
            port=listeners.http_port,
            https_port=listeners.https_port,
            public_base_url=listeners.origins.public,
        )
        await service.until(stop, serving)
        gateway.streams.close()
        server.should_exit = True
        await serving
        await gateway.publisher.drain()


def build(
    service: Service,
    settings: GatewaySettings,
    *,
    origins: Origins,
    adapters: Mapping[str, Adapter[Any]] | None = None,
) -> Gateway:
    """The application and everything behind it."""
    metrics, tracing, tenants = service.metrics, service.tracing, service.tenants
    clock, version = asyncio.get_running_loop().time, metadata.version("backhaul-gateway")
    providers, box = load_adapters() if adapters is None else adapters, SecretBox(settings.encryption_keys())

    store = MongoTenantStore(service.database[TENANTS_COLLECTION], service.store_format)
    service.prepare("tenant_index", store.prepare)
    accounts = MongoServiceStore(service.database[SERVICES_COLLECTION], service.store_format)
    service.prepare("service_index", accounts.prepare)
    credentials = CredentialIndex(lambda: tenants.synced)
    states = TenantStates(providers, box, clock)
    changes = MongoChangeStore(service.database, service.store_format, days=settings.gateway_change_retention_days)
    service.prepare("change_index", changes.prepare)
    strangers = Strangers(tenants, store, credentials, clock)
    service.run("key_uses", KeyUses(credentials, store.used, clock).run)

    broker = Broker(service.nats, tenants)
    publisher = _publisher(service, settings, broker, room := CallbackRoom())
    callbacks, spool, overdraft = spooled(publisher, service, settings, states, room)
    admission = Admission(room, metrics, overdraft)

    ping = partial(mongo.ping, service.mongo_client)
    service.run("store_reachable", Reachable(ping, STORE_REACHABLE, metrics).run)

    to = Services(service, settings)

    updates = TenantUpdates(store, broker)
    keepers = {name: TenantDataServiceStub(service.channel(to)) for to, name in settings.keepers_of_data().items()}
    grants = ServiceRegistry(accounts, broker, store, tenants.tenants)
    data = GrantedData(ServicesData(list(keepers.values())), grants, changes)
    lifetime_s = partial(mongo.transaction_lifetime_s, service.mongo_client, settings.mongo_transaction_lifetime_s)
    removal = TenantRemoval(store, broker, data, broker, lifetime_s, clock)
    metrics.gauge(TENANTS_DELETING, lambda: removal.waiting)
    service.run("tenant_removal", removal.run)
    # Credentials after states: a tenant that is found by its key is then known already.
    for listener in (states.changed, credentials.changed, removal.changed):
        tenants.listen(listener)

    access_log = AccessLog(NAME, fmt=settings.log_format, level=settings.log_level)
    service.stack.callback(access_log.flush)
    connections = _connections(service, settings)
    clients = ClientAddress(settings.gateway_trusted_proxies)
    ingest = IngestEndpoint(
        states=states,
        credentials=credentials,
        strangers=strangers,
        wrong=(wrong := WrongCredentials(clock)),
        admission=admission,
        callbacks=callbacks,
        held=overdraft,
        access_log=access_log,
        metrics=metrics,
        tracing=tracing,
        clients=clients,
        https=(https := _https(clients, settings, origins)),
        body_timeout_s=settings.gateway_body_timeout_s,
        max_held_bytes=settings.gateway_max_held_bytes,
        max_bodies=connections.most,
    )
    addresses, channels = Addresses(origins.public, providers), ChannelRegistry(updates, providers, box)
    registry = TenantRegistry(updates, broker, data, grants, changes, stream_max_age_s=settings.stream_max_age_s)
    log = ChangeLog(changes, clients, sides_of(addresses), tenants.tenants)
    callers = Callers(guard := Guard(credentials, strangers, log), states, admission, writer := Writer())
    # After all by which callers are known: what it hears of a tenant's change, they have heard already.
    streams = _event_streams(service, settings, callers)
    standing = standing_of(
        service,
        settings,
        states=states,
        room=room,
        broker=broker,
        to=to,
        adapters=providers,
        spool=spool,
        overdraft=overdraft,
    )
    previews = PreviewRoutes(callers, to.normalizer, states=states, strangers=strangers, public_base_url=origins.public)
    reads = tenant_router(
        callers,
        [
            NormalizerRoutes(callers, admission, to.normalizer),
            ReplayRoutes(callers, admission, to.replays),
            MemberRoutes(admission, to.communications),
            BatchRoutes(callers, admission, to.communications),
            CommunicationRoutes(callers, admission, to.communications),
            StatsRoutes(callers, to.normalizer),
            previews,
            RecipientRoutes(keepers, stream_max_age_s=settings.stream_max_age_s),
        ],
        [
            SuppressionRoutes(callers, to.suppression),
            SuppressionFileRoutes(to.suppression),
            AuditFileRoutes(to.audit),
            AuditRecountRoutes(to.audit),
            AuditRoutes(callers, to.audit),
            ReconciliationRoutes(callers, to.reconciler),
            SubscriptionRoutes(callers, to.notifier),
            DeliveryRoutes(callers, to.notifier),
        ],
        strangers=strangers,
        states=states,
        status=standing.status,
        version=version,
    )
    sends = SendRoutes(
        callers, admission, callbacks, states=states, strangers=strangers, adapters=providers, metrics=metrics
    )
    tokens = TokenRoute(
        states=states,
        credentials=credentials,
        strangers=strangers,
        admission=admission,
        public_base_url=origins.public,
    )
    changed = ChangeRoutes(changes, tenants.tenants)
    published = AuditKeyRoute(to.audit, writer, clock)
    keys = audit_key_router(AuditKeyRoutes(to.audit, writer, published.outdated))
    edge = Edge(
        application_of(
            [
                reads,
                OwnRoutes(registry, channels, addresses).added_to(callers.router("/v1", 422)),
                whoami_of_tenants(callers.router("/v1"), states),
                streams.router(),
                standing.overview.router(callers),
                sends.router(),
                published.router(),
                tokens.router(),
                admin_router(
                    registry,
                    channels,
                    addresses,
                    OperatorSuppressionRoutes(to.suppression, writer),
                    OperatorReplayRoutes(to.replays, writer),
                ),
                whoami_router(),
                service_router(grants),
                keys,
                changed.added_to(callers.router("/v1", 422, 504)),
                change_router(changed),
                config_router(
                    ConfigRoutes(
                        Configuration(
                            updates,
                            registry,
                            channels,
                            told := NotifierSubscriptions(to.notifier, writer),
                            tenants.tenants,
                        ),
                        registry,
                        told,
                    )
                ),
                secret_key_router(
                    SecretKeyRoutes(box.key_id, to.secret_keys, of_tenants(service.database, box, service.store_format))
                ),
                overview_router(standing.overviews),
            ],
            guard,
            version,
            service.readiness,
            metrics,
        ),
        ingest=ingest,
        admins=AdminTokens(settings.gateway_admin_token.get_secret_value(), settings.gateway_admin_tokens),
        wrong=wrong,
        admin_port=settings.gateway_admin_port,
        body_timeout_s=settings.gateway_body_timeout_s,
        access_log=access_log,
        metrics=metrics,
        tracing=tracing,
        clients=clients,
        https=https,
    )
    edge.console = _console(service, settings, edge, https, origins) if settings.gateway_console else None
    return Gateway(edge, publisher, connections, streams)


def _console(service: Service, settings: GatewaySettings, edge: Edge, https: Https, origins: Origins) -> ASGIApp:
    store = MongoSessionStore(service.database, service.store_format)
    service.prepare("console_index", store.prepare)
    agreed = settings.openid(origins.public)
    box = SecretBox(settings.encryption_keys())
    return Console(
        api=partial(InProcess, edge),
        store=store,
        seal=box.of(SESSION),
        secure=lambda scope: https.is_secure(scope, scope["headers"]),
        takes_admin_tokens=settings.gateway_console_admin_tokens,
        people=(agreed, box.of("a sign-in to the console")) if agreed is not None else None,
    ).application()


def _connections(service: Service, settings: GatewaySettings) -> Connections:
    connections = connections_of(settings, service.metrics)
    service.stack.callback(connections.close)
    service.readiness.add("stop", connections.check)
    return connections


def _https(clients: ClientAddress, settings: GatewaySettings, origins: Origins) -> Https:
    return Https(
        clients,
        origins,
        redirects=settings.gateway_enable_https_redirection,
        hsts_max_age_s=settings.gateway_hsts_max_age_s,
        admin_port=settings.gateway_admin_port,
    )


def _event_streams(service: Service, settings: GatewaySettings, callers: Callers) -> EventStreams:
    """Streams of events, which hear of every connection to NATS and every change of a tenant."""
    most = settings.gateway_max_event_streams
    streams = EventStreams(callers, service.nats, service.js, most=most, metrics=service.metrics)
    service.on_connected("event_streams", streams.reconnected)
    service.tenants.listen(streams.changed)
    return streams


def _publisher(service: Service, settings: GatewaySettings, broker: Broker, room: CallbackRoom) -> GroupCommitPublisher:
    """What stores callbacks in JetStream, and whoever looks at what is stored there."""
    publisher = GroupCommitPublisher(
        timeout_s=settings.gateway_publish_timeout_s,
        metrics=service.metrics,
        tracing=service.tracing,
        on_stored=room.stored,
    )
    service.on_connected("publisher", partial(publisher.connected, service.nats))
    service.readiness.add("jetstream", broker.check)
    clock = asyncio.get_running_loop().time
    watch = LogWatch(CallbackStream(broker.connected), room, publisher, service.metrics, clock)
    service.run("callback_log", watch.run)
    return publisher
