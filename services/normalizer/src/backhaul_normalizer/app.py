"""The composition root: what this service is made of. ``Service`` makes the clients, and closes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from secrets import token_hex
from typing import Any

from backhaul_channels import load_adapters
from backhaul_common import tenantdata
from backhaul_common.fence import owners
from backhaul_common.jetstream import Publisher
from backhaul_common.metrics import (
    BATCHES_COMPLETED,
    BATCHES_LINKED_LATE,
    MEMBERS_TOLD,
    MESSAGES_LINKED,
    MESSAGES_UNOWNED,
    PARKED_MESSAGES,
    REPLAYED,
)
from backhaul_common.names import NORMALIZER_ERASURES_COLLECTION, NORMALIZER_OUTBOX
from backhaul_common.outbox import Outbox
from backhaul_common.service import Service
from backhaul_common.tenantdata import Erasures, MongoTenantData
from backhaul_proto.normalizer.v1 import communications_pb2, normalizer_pb2, records_pb2, replays_pb2
from backhaul_proto.normalizer.v1.communications_pb2_grpc import add_CommunicationServiceServicer_to_server
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import add_NormalizerServiceServicer_to_server
from backhaul_proto.normalizer.v1.records_pb2_grpc import add_RecordServiceServicer_to_server
from backhaul_proto.normalizer.v1.replays_pb2_grpc import add_ReplayServiceServicer_to_server

from backhaul_normalizer.activity import Activity
from backhaul_normalizer.communications.adding import Adding
from backhaul_normalizer.communications.calls import AddCalls
from backhaul_normalizer.communications.completing import Completing
from backhaul_normalizer.communications.consequences import Consequences
from backhaul_normalizer.communications.linking import Linking
from backhaul_normalizer.communications.processed import MembersProcessed
from backhaul_normalizer.communications.reading import MongoCommunications
from backhaul_normalizer.communications.registering import MongoRegister
from backhaul_normalizer.communications.relinking import Relinking
from backhaul_normalizer.communications.roster import MongoRoster
from backhaul_normalizer.communications.sending import JetStreamSends
from backhaul_normalizer.communications.servicer import CommunicationServicer
from backhaul_normalizer.consumer import Consumer
from backhaul_normalizer.counts import Shards
from backhaul_normalizer.erasing import Erasing, kept_s
from backhaul_normalizer.feed import CallbacksFeed, feed_config
from backhaul_normalizer.fenced import Fenced
from backhaul_normalizer.having import Having
from backhaul_normalizer.heldstream import HeldStream
from backhaul_normalizer.holds import HeldCallbacks
from backhaul_normalizer.normalize import Normalizer
from backhaul_normalizer.preview import Previews
from backhaul_normalizer.publisher import JetStreamCallbacks, JetStreamPublisher, require_room, subjects_under
from backhaul_normalizer.quota import BoundedDeadLetters
from backhaul_normalizer.reads import MongoReads
from backhaul_normalizer.records.comparing import Comparisons
from backhaul_normalizer.records.servicer import RecordServicer
from backhaul_normalizer.replays.callbacks import CallbackPages
from backhaul_normalizer.replays.held import MongoHeld
from backhaul_normalizer.replays.letters import LetterPages
from backhaul_normalizer.replays.servicer import ReplayServicer
from backhaul_normalizer.replays.tasks import Replays
from backhaul_normalizer.replays.working import Working
from backhaul_normalizer.retained import Retained
from backhaul_normalizer.retention import Retention, now_us
from backhaul_normalizer.reviews import MongoReviews
from backhaul_normalizer.service import NormalizerUseCases
from backhaul_normalizer.servicer import NormalizerServicer
from backhaul_normalizer.settings import NormalizerSettings
from backhaul_normalizer.silence import Silences
from backhaul_normalizer.store import COUNTED, INDEXES, SEVERAL, MongoEventStore
from backhaul_normalizer.streamfill import StreamFill
from backhaul_normalizer.subjects import EventSubjects
from backhaul_normalizer.unowned import Unowned

SERVICE = normalizer_pb2.DESCRIPTOR.services_by_name["NormalizerService"].full_name
COMMUNICATIONS = communications_pb2.DESCRIPTOR.services_by_name["CommunicationService"].full_name
RECORDS = records_pb2.DESCRIPTOR.services_by_name["RecordService"].full_name
REPLAYS = replays_pb2.DESCRIPTOR.services_by_name["ReplayService"].full_name


async def run(settings: NormalizerSettings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set."""
    async with Service("normalizer", settings) as service:
        database, tenants, metrics, publisher = service.database, service.tenants, service.metrics, Publisher()
        outbox = Outbox(database, NORMALIZER_OUTBOX, publisher, partial(owners, database))
        shards = Shards()
        completing = Completing(database, outbox.written, now_us, metrics.counter(BATCHES_COMPLETED))
        linking = Linking(database, shards, metrics.counter(MESSAGES_LINKED))
        processed, having, fenced = MembersProcessed(database, outbox.written, now_us), Having(database), Fenced()
        consequences = Consequences(database, linking, processed, completing, having)
        erasing = Erasing(database, erasures := _erasures(service, settings))
        store = MongoEventStore(service.mongo_client, database, shards, consequences, erasing, having, fenced)
        reads = MongoReads(database)
        service.prepare("store", store.prepare)
        service.readiness.add("mongodb", store.ping)

        service.on_connected("publisher", partial(publisher.attach, service.nats))
        service.on_connected("room_for_events", partial(require_room, service.nats))

        unowned = Unowned(tenants, metrics.counter(MESSAGES_UNOWNED))
        feed = CallbacksFeed(service.nats, service.js, feed_config(settings), tenants, unowned)
        metrics.gauge(PARKED_MESSAGES, lambda: feed.parked)
        service.on_connected("feed", feed.reconnected)
        service.readiness.add("nats", feed.check)
        service.run("feed", feed.run, after=service.prepared)

        adapters = load_adapters()
        normalizer = Normalizer(adapters, tenants)
        service.run("outbox", outbox.run, after=service.prepared)
        service.run("completing", completing.run, after=service.prepared)
        relinking = Relinking(database, consequences, now_us, metrics.counter(BATCHES_LINKED_LATE))
        service.run("relinking", relinking.run, after=service.prepared)
        letters = BoundedDeadLetters(store, database, settings.normalizer_max_dead_letters, on_reached=outbox.written)
        subjects = EventSubjects(partial(subjects_under, service.js), asyncio.get_running_loop().time)
        events = JetStreamPublisher(publisher, subjects, partial(owners, database), fenced)
        stream = HeldStream(service.nats, service.js)
        holds = HeldCallbacks(
            stream,
            publisher,
            tenants,
            partial(owners, database),
            metrics,
            max_age_s=settings.stream_max_age_s,
            max_waiting=settings.normalizer_max_pending // 2,
        )
        service.run("holds", holds.run, after=service.prepared)
        service.run("stream_fill", StreamFill(service.js, metrics).run, after=service.prepared)
        activity = _activity(service, outbox)
        consumer = Consumer(
            feed,
            tenants,
            normalizer,
            letters,
            events,
            holds,
            activity,
            metrics,
            service.tracing,
            ack_wait_s=settings.normalizer_ack_wait_s,
        )
        service.readiness.add("consumer", consumer.check)
        service.run("consumer", consumer.run, after=service.prepared)

        reviews = MongoReviews(database, outbox.written)
        use_cases = NormalizerUseCases(tenants, reads, JetStreamCallbacks(publisher), adapters, reviews)
        retained = _retained(service)
        servicer = NormalizerServicer(use_cases, reads, Previews(tenants, normalizer), retained)
        data = MongoTenantData(database, service.store_format, collections=INDEXES, counted=COUNTED, several=SEVERAL)
        sends, told = JetStreamSends(publisher, now_us), metrics.counter(MEMBERS_TOLD)
        communications = CommunicationServicer(
            tenants,
            MongoRegister(database, consequences, now_us, outbox.written),
            AddCalls(Adding(MongoRoster(database, now_us), sends, consequences, told)),
            MongoCommunications(database),
            reads,
        )
        records = RecordServicer(tenants, Comparisons(database, tenants, normalizer), activity)
        services: dict[str, Callable[[Any], None]] = {
            SERVICE: partial(add_NormalizerServiceServicer_to_server, servicer),
            COMMUNICATIONS: partial(add_CommunicationServiceServicer_to_server, communications),
            RECORDS: partial(add_RecordServiceServicer_to_server, records),
            REPLAYS: partial(
                add_ReplayServiceServicer_to_server,
                _replays(service, stream, normalizer, store, events, erasures, use_cases),
            ),
            **tenantdata.registrations(data, erasing),
        }
        await service.serve(settings.normalizer_grpc_listen, services)
        await service.until(stop)


def _erasures(service: Service, settings: NormalizerSettings) -> Erasures:
    """Who is erased."""
    kept = kept_s(settings.stream_max_age_s)
    return Erasures(service.database, service.store_format, NORMALIZER_ERASURES_COLLECTION, kept)


def _replays(
    service: Service,
    stream: HeldStream,
    normalizer: Normalizer,
    store: MongoEventStore,
    publisher: JetStreamPublisher,
    erasures: Erasures,
    use_cases: NormalizerUseCases,
) -> ReplayServicer:
    """What is asked of replays, and who works them."""
    database, tenants = service.database, service.tenants
    leases = MongoHeld(database, token_hex(8))
    callbacks = CallbackPages(database, stream, normalizer, store, publisher, erasures, leases)
    letters = LetterPages(database, stream, use_cases, leases)
    working = Working(tenants, leases, callbacks, letters, service.metrics.counter(REPLAYED))
    service.run("replays", working.run, after=service.prepared)
    return ReplayServicer(Replays(database, tenants, stream, now_us, working.changed))


def _retained(service: Service) -> Retained:
    """What says how much of events is kept; what is beyond ends."""
    retained = Retained(service.database, now_us)
    retention = Retention(service.database, service.tenants, retained, service.metrics, now_us)
    service.run("retention", retention.run, after=service.prepared)
    return retained


def _activity(service: Service, outbox: Outbox) -> Activity:
    """What notes the channels' activity; who finds silent ones goes by it."""
    activity = Activity(service.database)
    service.run("activity", activity.run, after=service.prepared)
    silences = Silences(service.database, service.tenants, outbox.written, now_us)
    service.run("silences", silences.run, after=service.prepared)
    return activity
