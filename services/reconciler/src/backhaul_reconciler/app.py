"""The composition root: what this service is made of. ``Service`` makes the clients, and closes them."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from uuid import uuid4

from backhaul_channels import load_adapters
from backhaul_common import mongo, tenantdata
from backhaul_common.fence import owners
from backhaul_common.jetstream import Publisher
from backhaul_common.names import (
    RECONCILED_CHANNELS_COLLECTION,
    RECONCILED_DAYS_COLLECTION,
    RECONCILED_DIFFERENCES_COLLECTION,
    RECONCILED_RUNS_COLLECTION,
    RECONCILED_SEEN_COLLECTION,
)
from backhaul_common.secrets import SecretBox
from backhaul_common.service import Service
from backhaul_common.tenantdata import KeepsNobody, Kept, MongoTenantData
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceStub
from backhaul_proto.normalizer.v1.records_pb2_grpc import RecordServiceStub
from backhaul_proto.reconciler.v1.reconciler_pb2_grpc import add_ReconcilerServiceServicer_to_server
from pymongo import IndexModel

from backhaul_reconciler import accounts, channels, days, differences, reports
from backhaul_reconciler.access import LOGGED, SERVICE, VERBS
from backhaul_reconciler.accounts import MongoAccounts
from backhaul_reconciler.activity import GrpcActivities
from backhaul_reconciler.asking import Asking
from backhaul_reconciler.books import Books
from backhaul_reconciler.calls import MongoCalls
from backhaul_reconciler.channels import Channels
from backhaul_reconciler.comparing import GrpcRecords
from backhaul_reconciler.days import MongoDays
from backhaul_reconciler.differences import MongoDifferences
from backhaul_reconciler.finding import Backfill
from backhaul_reconciler.following import Following
from backhaul_reconciler.knowing import Knowing
from backhaul_reconciler.passes.closing import Seen
from backhaul_reconciler.reports import MongoReports
from backhaul_reconciler.run import Turns
from backhaul_reconciler.servicer import ReconcilerServicer
from backhaul_reconciler.settings import ReconcilerSettings
from backhaul_reconciler.standings import Standings
from backhaul_reconciler.transport import Requests
from backhaul_reconciler.work import Parts, Recent

_OWNED = (
    RECONCILED_CHANNELS_COLLECTION,
    RECONCILED_RUNS_COLLECTION,
    RECONCILED_DIFFERENCES_COLLECTION,
    RECONCILED_DAYS_COLLECTION,
    RECONCILED_SEEN_COLLECTION,
)

_KEPT = (Kept("differences", "Ids of messages, states and error codes; nothing that says who the person is."),)

INDEXES = {
    RECONCILED_SEEN_COLLECTION: [IndexModel("registration")],
    **accounts.INDEXES,
    **channels.INDEXES,
    **reports.INDEXES,
    **differences.INDEXES,
    **days.INDEXES,
}


async def run(settings: ReconcilerSettings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set."""
    async with Service("reconciler", settings, tenant_secrets=True) as service:
        database, metrics, adapters = service.database, service.metrics, load_adapters()
        service.prepare("store", partial(mongo.make_indexes, database, INDEXES))
        service.readiness.add("mongodb", partial(mongo.ping, service.mongo_client))

        publisher = Publisher()
        service.on_connected("publisher", partial(publisher.attach, service.nats))
        requests = Requests(metrics, settings.reconciler_origins)
        service.stack.push_async_callback(requests.close)
        normalizer = service.channel(settings.reconciler_normalizer_target)
        records = RecordServiceStub(normalizer)

        written, differing, dated = MongoReports(database), MongoDifferences(database), MongoDays(database)
        knowing = Knowing(adapters, SecretBox(settings.encryption_keys()))
        asked = Channels(database, service.tenants, knowing, written, _now_us)
        held = MongoAccounts(database, uuid4().hex)
        parts = Parts.metered(
            metrics,
            books=Books(database, held),
            records=GrpcRecords(records, NormalizerServiceStub(normalizer)),
            backfill=Backfill(publisher, service.js, partial(owners, database)),
            reports=written,
            differences=differing,
            days=dated,
            requests=requests,
            tracing=service.tracing,
            recent=Recent(),
        )
        asking = Asking(asked, held, Turns(parts, asked, Seen(database)), adapters, metrics)
        service.run("asking", asking.run, after=service.prepared)

        servicer = ReconcilerServicer(
            service.tenants,
            MongoCalls(database, asked, knowing, written, _now_us),
            Following(written, asyncio.get_running_loop().time),
            reports=written,
            differences=differing,
            days=dated,
            standings=Standings(database, knowing, GrpcActivities(records)),
            now_us=_now_us,
        )
        add = partial(add_ReconcilerServiceServicer_to_server, servicer)
        data = MongoTenantData(database, service.store_format, collections=_OWNED, counted=_OWNED)
        await service.serve(
            settings.reconciler_grpc_listen,
            {SERVICE: add, **tenantdata.registrations(data, KeepsNobody(_KEPT))},
            verbs=VERBS,
            logged=LOGGED,
        )
        await service.until(stop)


def _now_us() -> int:
    return time.time_ns() // 1000
