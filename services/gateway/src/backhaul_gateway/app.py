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
from backhaul_proto.audit.v1.audit_pb2_grpc import AuditServiceStub
from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceStub
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceStub
from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceStub
from backhaul_proto.tenantdata.v1.tenantdata_pb2_grpc import TenantDataServiceStub

from backhaul_gateway.admin.addresses import Addresses
from backhaul_gateway.admin.auditroutes import AuditKeyRoutes
from backhaul_gateway.admin.channels import ChannelRegistry
from backhaul_gateway.admin.removal import TenantRemoval
from backhaul_gateway.admin.routes import admin_router, audit_key_router, service_router
from backhaul_gateway.admin.services import ServiceRegistry
from backhaul_gateway.admin.store import MongoServiceStore, MongoTenantStore
from backhaul_gateway.admin.suppressionroutes import OperatorSuppressionRoutes
from backhaul_gateway.admin.tenantdata import GrantedData, ServicesData
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
from backhaul_gateway.ingest.tokens import TokenRoute
from backhaul_gateway.ingest.watch import LogWatch, Reachable
from backhaul_gateway.reads.auditfiles import AuditFileRoutes
from backhaul_gateway.reads.auditkeys import AuditKeyRoute
from backhaul_gateway.reads.auditrecount import AuditRecountRoutes
from backhaul_gateway.reads.audits import AuditRoutes
from backhaul_gateway.reads.auditstate import AuditStates
from backhaul_gateway.reads.batches import BatchRoutes
from backhaul_gateway.reads.callers import Callers
from backhaul_gateway.reads.communications import CommunicationRoutes
from backhaul_gateway.reads.members import MemberRoutes
from backhaul_gateway.reads.normalizer import NormalizerRoutes
from backhaul_gateway.reads.objectstore import BucketCheck
from backhaul_gateway.reads.preview import PreviewRoutes
from backhaul_gateway.reads.routes import tenant_router
from backhaul_gateway.reads.sends import SendRoutes
from backhaul_gateway.reads.stats import StatsRoutes
from backhaul_gateway.reads.status import ChannelStatus
from backhaul_gateway.reads.suppressionfiles import SuppressionFileRoutes
from backhaul_gateway.reads.suppressions import SuppressionRoutes
from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.twins.writing import Writer
from backhaul_gateway.web.accesslog import AccessLog
from backhaul_gateway.web.application import application_of
from backhaul_gateway.web.clients import ClientAddress
from backhaul_gateway.web.connections import Connections
from backhaul_gateway.web.edge import Edge
from backhaul_gateway.web.server import connections_of, listen, server_of

NAME = "gateway"


@dataclass(frozen=True, slots=True)
class Gateway:
    """The application, and what the server that runs it needs."""

    app: Edge
    publisher: GroupCommitPublisher
    connections: Connections


async def run(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set; then stop accepting, answer what is under way, and close everything."""
    # Unbuffered: a callback that was refused because the connection is away must not be stored once it is back.
    async with Service(NAME, settings, buffer_while_away=False, tenant_secrets=True) as service:
        listeners = listen(service.stack, settings)
        port: int = listeners[0].getsockname()[1]
        gateway = build(service, settings, public_base_url=(url := settings.public_base_url(port)))
        server = server_of(gateway.app, settings, gateway.connections)
        serving = asyncio.create_task(server.serve(listeners), name="http")
        service.log.info("serving", host=settings.gateway_host, port=port, public_base_url=url)
        await service.until(stop, serving)
        server.should_exit = True
        await serving
        await gateway.publisher.drain()


def build(
    service: Service,
    settings: GatewaySettings,
    *,
    public_base_url: str,
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
    strangers = Strangers(tenants, store, credentials, clock)
    admission = Admission(room := CallbackRoom(), metrics)

    broker = Broker(service.nats, tenants)
    service.readiness.add("jetstream", broker.check)
    publisher = GroupCommitPublisher(
        timeout_s=settings.gateway_publish_timeout_s, metrics=metrics, tracing=tracing, on_stored=room.stored
    )
    service.on_connected("publisher", partial(publisher.connected, service.nats))
    log = CallbackStream(broker.connected)
    service.run("callback_log", LogWatch(log, room, publisher, metrics, clock).run)

    ping = partial(mongo.ping, service.mongo_client)
    service.run("store_reachable", Reachable(ping, STORE_REACHABLE, metrics).run)

    normalizer = NormalizerServiceStub(service.channel(settings.gateway_normalizer_target))
    communications = CommunicationServiceStub(service.channel(settings.gateway_normalizer_target))
    suppression = SuppressionServiceStub(service.channel(settings.gateway_suppression_target))
    audit = AuditServiceStub(service.channel(settings.gateway_audit_target))

    updates = TenantUpdates(store, broker)
    keepers = dict.fromkeys((settings.gateway_normalizer_target, *settings.gateway_tenant_data_targets))
    grants = ServiceRegistry(accounts, broker, store, tenants.tenants)
    data = GrantedData(ServicesData([TenantDataServiceStub(service.channel(target)) for target in keepers]), grants)
    lifetime_s = partial(mongo.transaction_lifetime_s, service.mongo_client, settings.mongo_transaction_lifetime_s)
    removal = TenantRemoval(store, broker, data, broker, lifetime_s, clock)
    metrics.gauge(TENANTS_DELETING, lambda: removal.waiting)
    service.run("tenant_removal", removal.run)
    # Credentials after states: a tenant that is found by its key is then known already.
    for listener in (states.changed, credentials.changed, removal.changed):
        tenants.listen(listener)

    access_log = AccessLog(NAME, fmt=settings.log_format, level=settings.log_level)
    service.stack.callback(access_log.flush)
    connections = connections_of(settings, metrics)
    service.stack.callback(connections.close)
    clients = ClientAddress(settings.gateway_trusted_proxies)
    ingest = IngestEndpoint(
        states=states,
        credentials=credentials,
        strangers=strangers,
        admission=admission,
        callbacks=publisher,
        access_log=access_log,
        metrics=metrics,
        tracing=tracing,
        clients=clients,
        public_base_url=public_base_url,
        body_timeout_s=settings.gateway_body_timeout_s,
        max_held_bytes=settings.gateway_max_held_bytes,
        max_bodies=connections.most,
    )
    callers = Callers(credentials, strangers, states, admission, writer := Writer())
    previews = PreviewRoutes(callers, normalizer, states=states, strangers=strangers, public_base_url=public_base_url)
    reads = tenant_router(
        callers,
        [
            NormalizerRoutes(callers, admission, normalizer),
            MemberRoutes(admission, communications),
            BatchRoutes(callers, admission, communications),
            CommunicationRoutes(callers, admission, communications),
            StatsRoutes(callers, normalizer),
            previews,
            SuppressionRoutes(callers, suppression),
            SuppressionFileRoutes(suppression),
            AuditFileRoutes(audit),
            AuditRecountRoutes(audit),
            AuditRoutes(callers, audit),
        ],
        strangers=strangers,
        states=states,
        status=ChannelStatus(
            streams=broker,
            check_store=ping,
            object_storage=BucketCheck(settings),
            states=states,
            audit=AuditStates(audit, providers),
        ),
        version=version,
    )
    sends = SendRoutes(
        callers, admission, publisher, states=states, strangers=strangers, adapters=providers, metrics=metrics
    )
    tokens = TokenRoute(
        states=states,
        credentials=credentials,
        strangers=strangers,
        admission=admission,
        public_base_url=public_base_url,
    )
    admin = admin_router(
        TenantRegistry(updates, broker, data, grants, stream_max_age_s=settings.stream_max_age_s),
        ChannelRegistry(updates, providers, box),
        Addresses(public_base_url, providers),
        OperatorSuppressionRoutes(suppression, writer),
    )
    services = service_router(grants)
    published = AuditKeyRoute(audit, writer, clock)
    keys = audit_key_router(AuditKeyRoutes(audit, writer, published.outdated))
    edge = Edge(
        application_of(
            [reads, sends.router(), published.router(), tokens.router(), admin, services, keys],
            version,
            service.readiness,
            metrics,
        ),
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
