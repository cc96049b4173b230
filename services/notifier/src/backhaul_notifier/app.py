"""The composition root: what this service is made of. ``Service`` makes the clients, and closes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from functools import partial
from uuid import uuid4

from backhaul_common import mongo, secretkeys, tenantdata
from backhaul_common.directory import TenantDirectory
from backhaul_common.fence import owners
from backhaul_common.jetstream import Publisher
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    ENDPOINTS_COLLECTION,
    EVENTS_STREAM,
    NOTICES_STREAM,
    NOTICES_WANTED_COLLECTION,
    NOTIFIER_ERASURES_COLLECTION,
    NOTIFIER_OUTBOX,
    SUBSCRIPTIONS_COLLECTION,
    SWITCHED_COLLECTION,
)
from backhaul_common.outbox import Outbox
from backhaul_common.revisioned import Directory, Documents
from backhaul_common.secretkeys import SecretRenewal
from backhaul_common.secrets import SecretBox
from backhaul_common.service import Service
from backhaul_common.tenantdata import Erasures, MongoTenantData, erasures
from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceStub
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceStub
from backhaul_proto.notifier.v1.notifier_pb2_grpc import add_NotifierServiceServicer_to_server

from backhaul_notifier import indexes
from backhaul_notifier.access import LOGGED, SERVICE, VERBS
from backhaul_notifier.calling.caller import Calling, HttpCalling
from backhaul_notifier.calling.knowing import GrpcKnowing
from backhaul_notifier.calling.mail import MailCalling, Mailer
from backhaul_notifier.calling.oauth import Tokens
from backhaul_notifier.deliveries.erasing import Erasing
from backhaul_notifier.deliveries.keeping import Keeping
from backhaul_notifier.deliveries.reading import MongoDeliveries
from backhaul_notifier.deliveries.redelivering import Redelivering
from backhaul_notifier.disabling import GrpcCommunications
from backhaul_notifier.door.client import Door
from backhaul_notifier.enqueuing import Counts, Enqueuer, Subscribers
from backhaul_notifier.holding import switches
from backhaul_notifier.holding.comparing import Comparing
from backhaul_notifier.holding.switches import SWITCHED, Switching
from backhaul_notifier.model import Subscription
from backhaul_notifier.payloads import Renderer
from backhaul_notifier.servicer import NotifierServicer
from backhaul_notifier.servicer_deliveries import DeliveryCalls
from backhaul_notifier.servicer_subscriptions import SubscriptionCalls
from backhaul_notifier.servicer_types import TypeCalls
from backhaul_notifier.settings import NotifierSettings
from backhaul_notifier.subscriptions import store, stored
from backhaul_notifier.subscriptions.secrets_of import Seals, of_subscriptions
from backhaul_notifier.subscriptions.standings import Standings
from backhaul_notifier.subscriptions.store import MongoSubscriptions
from backhaul_notifier.subscriptions.sweeping import Sweep
from backhaul_notifier.subscriptions.writing import NatsSignals
from backhaul_notifier.working.counts import Counts as WorkingCounts
from backhaul_notifier.working.working import Working

_COUNTED = (SUBSCRIPTIONS_COLLECTION, DELIVERIES_COLLECTION)
_OWNED = (
    *_COUNTED,
    ENDPOINTS_COLLECTION,
    SWITCHED_COLLECTION,
    NOTIFIER_OUTBOX,
    NOTICES_WANTED_COLLECTION,
    NOTIFIER_ERASURES_COLLECTION,
)


async def run(settings: NotifierSettings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set."""
    async with Service("notifier", settings) as service:
        database = service.database
        service.prepare(
            "store",
            partial(
                mongo.make_indexes,
                database,
                {
                    **indexes.INDEXES,
                    **store.INDEXES,
                    **switches.INDEXES,
                    NOTIFIER_ERASURES_COLLECTION: erasures.INDEXES,
                },
            ),
        )
        service.readiness.add("mongodb", partial(mongo.ping, service.mongo_client))

        publisher = Publisher()
        service.on_connected("publisher", partial(publisher.attach, service.nats))
        outbox = Outbox(database, NOTIFIER_OUTBOX, publisher, partial(owners, database))
        service.run("outbox", outbox.run, after=service.prepared)

        directory = Directory(
            stored.SUBSCRIPTION,
            Documents(database[SUBSCRIPTIONS_COLLECTION]),
            before_reading=service.store_format.ensure,
        )
        service.on_connected(
            "subscriptions", partial(service.store_format.then, partial(directory.follow, service.nats))
        )
        service.readiness.add("subscriptions", directory.check)
        service.run("subscriptions", partial(service.store_format.then, directory.run))

        switched = Directory(
            SWITCHED, Documents(database[SWITCHED_COLLECTION]), before_reading=service.store_format.ensure
        )
        service.on_connected(
            "communications", partial(service.store_format.then, partial(switched.follow, service.nats))
        )
        service.readiness.add("communications", switched.check)
        service.run("communications", partial(service.store_format.then, switched.run))

        door, seals = Door(settings), Seals(box := SecretBox(settings.encryption_keys()))
        service.stack.push_async_callback(door.close)
        normalizer = service.channel(settings.notifier_normalizer_target)
        knowing = GrpcKnowing(NormalizerServiceStub(normalizer), CommunicationServiceStub(normalizer))
        service.stack.push_async_callback(knowing.close)
        tokens = Tokens(door)
        service.stack.push_async_callback(tokens.close)
        renderer = Renderer(settings.notifier_public_base_url)
        mail = MailCalling(Mailer(settings), service.tracing, now_us=_now_us)
        caller, of_examples = (
            Calling(HttpCalling(door, renderer, seals, knows, tokens, service.tracing, now_us=_now_us), mail)
            for knows in (knowing, None)
        )

        signals = NatsSignals(service.nats, directory.reload)
        subscriptions = MongoSubscriptions(
            database,
            directory,
            seals,
            signals,
            check_address=door.check,
            outbox_written=outbox.written,
            now_us=_now_us,
        )
        service.run("sweep", Sweep(database, _now_us).run, after=service.prepared)
        keeping = Keeping(database, partial(_shorter, service.tenants, settings.notifier_retention_days), _now_us)
        service.run("keeping", keeping.run, after=service.prepared)

        subscribers, counts = Subscribers(database, directory), Counts(service.metrics)
        for stream in (EVENTS_STREAM, NOTICES_STREAM):
            enqueuer = Enqueuer(database, stream, subscribers, service.nats, counts, service.tracing)
            enqueuer.reads(service.follow(stream, enqueuer))
            service.on_connected(f"parked_{stream.lower()}", enqueuer.reconnected)

        async def subscribed() -> Iterable[Subscription]:
            await directory.check()
            return list(directory.values.values())

        communications = CommunicationServiceStub(normalizer)
        note = Switching(database, switched, service.nats, _now_us).note
        service.run(
            "comparing", Comparing(communications, subscribed, switched, note, _now_us).run, after=service.prepared
        )

        working = Working(
            database,
            uuid4().hex,
            caller,
            subscriptions,
            GrpcCommunications(communications, knowing.communication_of, note),
            switched,
            WorkingCounts(service.metrics),
            connections=settings.notifier_max_connections,
            days=partial(_days, service.tenants, settings.notifier_retention_days),
            pause_after_s=settings.notifier_pause_after_s,
        )
        service.on_connected("working", partial(working.follow, service.nats))
        service.run("working", working.run, after=service.prepared)

        servicer = NotifierServicer(
            SubscriptionCalls(service.tenants, subscriptions, Standings(database), of_examples, _now_us),
            DeliveryCalls(
                service.tenants, MongoDeliveries(database), Redelivering(database, signals.due, _now_us), _now_us
            ),
            TypeCalls(service.tenants, renderer),
        )
        data = MongoTenantData(database, service.store_format, collections=_OWNED, counted=_COUNTED)
        await service.serve(
            settings.notifier_grpc_listen,
            {
                SERVICE: partial(add_NotifierServiceServicer_to_server, servicer),
                **tenantdata.registrations(data, _erasing(service, settings)),
                **secretkeys.registrations(SecretRenewal(box, service.store_format, [of_subscriptions(database, box)])),
            },
            without_tenant=[secretkeys.SERVICE],
            verbs=VERBS,
            logged=LOGGED,
        )
        await service.until(stop)
        # What is under way comes to its end, and is written down, while everything is there that it needs.
        await working.stop()


def _erasing(service: Service, settings: NotifierSettings) -> Erasing:
    # An event lies in EVENTS for as long after it was published as its callback did before.
    kept_s = 2 * settings.stream_max_age_s
    own = Erasures(service.database, service.store_format, NOTIFIER_ERASURES_COLLECTION, kept_s)
    return Erasing(service.database, own)


def _days(tenants: TenantDirectory, most: float, registration: str) -> float:
    """For how many days a registration keeps what has been told."""
    tenant = tenants.get(registration.rpartition(".")[0])
    if tenant is None or tenant.registration != registration:
        return most
    kept = tenant.retention
    days = (kept.event_retention_days, kept.address_retention_days)
    return min(most, *(each for each in days if each is not None)) if any(days) else most


def _shorter(tenants: TenantDirectory, most: float) -> Mapping[str, float]:
    """The days of those that keep what has been told for less than ``most``."""
    days = {one.registration: _days(tenants, most, one.registration) for one in tenants.tenants.values()}
    return {registration: each for registration, each in days.items() if each < most}


def _now_us() -> int:
    return time.time_ns() // 1000
