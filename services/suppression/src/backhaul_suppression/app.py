"""The composition root: what this service is made of. ``Service`` makes the clients, and closes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial

from backhaul_common import tenantdata
from backhaul_common.accounts import Verb
from backhaul_common.changelog import Logged, logged
from backhaul_common.feed import FairFeed
from backhaul_common.fence import owners
from backhaul_common.jetstream import Publisher
from backhaul_common.names import SUPPRESSION_OUTBOX
from backhaul_common.outbox import Outbox
from backhaul_common.service import Service
from backhaul_common.tenantdata import MongoTenantData
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceStub
from backhaul_proto.suppression.v1 import suppression_pb2
from backhaul_proto.suppression.v1.suppression_pb2_grpc import add_SuppressionServiceServicer_to_server

from backhaul_suppression.arrivals import GrpcArrivals
from backhaul_suppression.checks import Checks
from backhaul_suppression.commands import Commands
from backhaul_suppression.consumer import Consumer
from backhaul_suppression.enforcement import Enforcement
from backhaul_suppression.erasing import KeepsSuppressions
from backhaul_suppression.feed import feed_config
from backhaul_suppression.files.calls import ExportCalls, ImportCalls
from backhaul_suppression.files.exporting import Export
from backhaul_suppression.files.importing import Import
from backhaul_suppression.lane import Lane
from backhaul_suppression.lease import clock
from backhaul_suppression.memory import Memory
from backhaul_suppression.reads import MongoReads
from backhaul_suppression.servicer import SuppressionServicer
from backhaul_suppression.settings import SuppressionSettings
from backhaul_suppression.settling import Settling
from backhaul_suppression.store import COUNTED, INDEXES, MongoSuppressions
from backhaul_suppression.tenancy import KnownTenants
from backhaul_suppression.unsettled import MongoUnsettled
from backhaul_suppression.watching import WatchCalls, Watching

_METHODS: Mapping[Verb, tuple[str, ...]] = {
    "check": ("Check", "CheckBatch", "CheckStream"),
    "read": ("Get", "List"),
    "add": ("Add",),
    "lift": ("Lift", "Reactivate"),
    "import": ("Import",),
    "export": ("Export",),
    "watch": ("Watch",),
}

SERVICE = suppression_pb2.DESCRIPTOR.services_by_name["SuppressionService"].full_name

VERBS: Mapping[str, Verb] = {f"{SERVICE}.{method}": verb for verb, methods in _METHODS.items() for method in methods}
"""What callers need for each method."""

# A note, and what somebody is quoted with, may hold anything.
_PERSON = "address note evidence.reference evidence.text"
LOGGED: Mapping[str, Logged | None] = {
    f"{SERVICE}.{method}": kept
    for method, kept in {
        "Add": logged(
            "suppression", "family kind scope source effective_at_us evidence.source evidence.at_us", _PERSON
        ),
        "Lift": logged("suppression", "family kind scope evidence.source evidence.at_us", _PERSON),
        "Reactivate": logged("suppression", "family", "address note"),
        "Import": logged("suppression_list", "format kind family scope effective_at_us", file=True),
    }.items()
}
"""What the log of changes keeps of each by which something is changed."""

MAX_REQUEST_BYTES = 4 << 20
"""Of a request: 10,000 of the longest mail addresses, each with the longest id. An import sends its file in pieces."""

FREQUENT = [f"{SERVICE}.Check", f"{SERVICE}.CheckBatch"]
"""Methods that are called too often for a line of each call."""


async def run(settings: SuppressionSettings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set."""
    async with Service("suppression", settings) as service:
        database, metrics = service.database, service.metrics
        publisher = Publisher()
        outbox = Outbox(database, SUPPRESSION_OUTBOX, publisher, partial(owners, database))
        store = MongoSuppressions(service.mongo_client, database, _now_us, outbox.written)
        reads = MongoReads(database)
        service.prepare("store", store.prepare)
        service.on_connected("publisher", partial(publisher.attach, service.nats))
        service.run("outbox", outbox.run, after=service.prepared)
        service.readiness.add("mongodb", store.ping)

        memory = Memory(database, service.nats, clock(), metrics)
        memory.add_to(service)
        facts = Lane(store, memory.barrier)
        service.stack.push_async_callback(facts.close)
        enforcement = Enforcement(metrics, _now_us)

        feed = FairFeed(service.nats, service.js, feed_config(settings))
        service.on_connected("feed", feed.reconnected)
        service.readiness.add("nats", feed.check)
        service.run("feed", feed.run, after=service.prepared)
        consumer = Consumer(
            feed,
            service.tenants,
            facts,
            memory.barrier,
            memory.index,
            store,
            enforcement,
            metrics,
            service.tracing,
            _now_us,
        )
        service.readiness.add("consumer", consumer.check)
        # Not before: see what the consumer does with deliveries while this copy may not answer.
        service.run("consumer", consumer.run, after=memory.follower.loaded)

        normalizer = NormalizerServiceStub(service.channel(settings.suppression_normalizer_target))
        settling = Settling(
            MongoUnsettled(database),
            GrpcArrivals(normalizer),
            service.tenants,
            facts,
            memory.barrier,
            _now_us,
        )
        service.run("settling", settling.run, after=service.prepared)

        tenants = KnownTenants(service.tenants, memory.follower)
        servicer = SuppressionServicer(
            tenants,
            Checks(memory.index, metrics),
            Commands(facts, reads, memory.index, enforcement, _now_us),
            reads,
            imports=ImportCalls(Import(facts, memory.index), _now_us, metrics),
            exports=ExportCalls(Export(reads)),
            watches=WatchCalls(Watching(reads, tenants, memory.follower)),
        )
        data = MongoTenantData(database, service.store_format, collections=INDEXES, counted=COUNTED)
        add = partial(add_SuppressionServiceServicer_to_server, servicer)
        await service.serve(
            settings.suppression_grpc_listen,
            {SERVICE: add, **tenantdata.registrations(data, KeepsSuppressions(database))},
            verbs=VERBS,
            logged=LOGGED,
            frequent=FREQUENT,
            max_request_bytes=MAX_REQUEST_BYTES,
        )
        await service.until(stop)


def _now_us() -> int:
    return time.time_ns() // 1000
