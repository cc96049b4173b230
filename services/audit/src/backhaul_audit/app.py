"""The composition root: what this service is made of. ``Service`` makes the clients, and closes them."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from uuid import uuid4

from backhaul_channels import load_adapters
from backhaul_common import mongo, secretkeys, tenantdata
from backhaul_common.feed import PositionReader, ReaderConfig
from backhaul_common.fence import owners
from backhaul_common.jetstream import Publisher, translated
from backhaul_common.names import AUDIT_OUTBOX, EVENTS_STREAM
from backhaul_common.outbox import Outbox
from backhaul_common.secretkeys import SecretRenewal
from backhaul_common.secrets import SecretBox
from backhaul_common.service import Service
from backhaul_digests.line import to_object
from backhaul_proto.audit.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceStub

from backhaul_audit import people
from backhaul_audit.access import LOGGED, SERVICE, VERBS, WITHOUT_TENANT
from backhaul_audit.asking import Asking
from backhaul_audit.books import INDEXES, Books
from backhaul_audit.decrypting import Decrypting
from backhaul_audit.digests import keys, retention, store
from backhaul_audit.digests.keys import MongoKeys
from backhaul_audit.digests.making import DigestMaker
from backhaul_audit.digests.retention import Retention
from backhaul_audit.digests.store import MongoDigests
from backhaul_audit.erasing import ErasesKeys
from backhaul_audit.files import MongoFiles
from backhaul_audit.filing import Filing
from backhaul_audit.keyring import Keyring
from backhaul_audit.lateness import Lateness
from backhaul_audit.objects import Buckets, Place, Probes
from backhaul_audit.people import MongoPeople
from backhaul_audit.peoplesecrets import MongoSecrets
from backhaul_audit.piles import Limits
from backhaul_audit.reading import Reading
from backhaul_audit.recounting.communications import GrpcCommunications
from backhaul_audit.recounting.lookups import MongoContents
from backhaul_audit.recounting.recount import Recounting
from backhaul_audit.servicer import AuditServicer
from backhaul_audit.settings import AuditSettings
from backhaul_audit.standing import Standing
from backhaul_audit.states import MongoStates
from backhaul_audit.tenancy import AuditTenantData
from backhaul_audit.verification import BucketVerification


async def run(settings: AuditSettings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set."""
    async with Service("audit", settings, tenant_secrets=True) as service:
        database, js = service.database, service.js
        box = SecretBox(settings.encryption_keys())
        buckets = Buckets(Place.of(settings), service.tenants, box)
        service.stack.callback(buckets.close)
        probes = Probes(buckets, service.tenants)
        service.run("probes", probes.run, after=service.prepared)
        service.prepare("store", partial(mongo.make_indexes, database, INDEXES))
        for indexes in (keys.INDEXES, store.INDEXES, retention.INDEXES, people.INDEXES):
            service.prepare("digests", partial(mongo.make_indexes, database, indexes))
        signing = MongoKeys(database, box, _now_us)
        service.prepare("signing_keys", signing.renew)
        secrets = MongoSecrets(database, box, _now_us)
        service.prepare("people_secrets", secrets.renew)
        persons = MongoPeople(database, secrets, _now_us)
        service.readiness.add("mongodb", partial(mongo.ping, service.mongo_client))

        reader = PositionReader(service.nats, js, ReaderConfig(EVENTS_STREAM, service.name))
        service.on_connected("reader", reader.reconnected)
        service.readiness.add("reader", reader.check)
        service.run("reader", reader.run, after=service.prepared)

        async def first_position() -> int:
            async with translated():
                return (await js.stream_info(EVENTS_STREAM)).state.first_seq

        lateness = Lateness.of(settings.stream_max_age_s)
        asking = Asking(service.tenants, load_adapters(), buckets)
        filing = Filing(
            reader,
            Books(database, _now_us),
            states := MongoStates(database),
            service.tenants,
            asking,
            buckets,
            Keyring(persons, secrets),
            Limits(
                file_bytes=settings.audit_max_file_bytes,
                file_events=settings.audit_max_file_events,
                file_age_s=settings.audit_max_file_age_s,
                memory_bytes=settings.audit_memory_bytes,
            ),
            service.metrics,
            service.tracing,
            lateness=lateness,
            first_position=first_position,
            new_id=lambda: uuid4().hex,
            now_us=_now_us,
        )
        service.run("filing", filing.run, after=service.prepared)

        publisher = Publisher()
        service.on_connected("publisher", partial(publisher.attach, service.nats))
        outbox = Outbox(database, AUDIT_OUTBOX, publisher, partial(owners, database))
        service.run("outbox", outbox.run, after=service.prepared)
        digests = DigestMaker(
            database,
            records := MongoDigests(database, _now_us),
            signing,
            buckets,
            service.tenants,
            lambda tenant: bool(asking.destinations(tenant)),
            outbox,
            service.metrics,
            _now_us,
            every_s=settings.audit_digest_every_s,
        )
        service.run("digests", digests.run, after=service.prepared)
        old = Retention(database, buckets, service.tenants, service.metrics, _now_us)
        service.run("retention", old.run, after=service.prepared)

        files = MongoFiles(database)
        servicer = AuditServicer(
            service.tenants,
            files,
            records,
            Reading(files, buckets, Decrypting(persons)),
            people=persons,
            keys=signing,
            verification=BucketVerification(buckets, records, signing),
            recounts=Recounting(
                GrpcCommunications(NormalizerServiceStub(service.channel(settings.audit_normalizer_target))),
                MongoContents(database),
                states,
                asking.destinations,
                _now_us,
            ),
            standing=Standing(states, old, probes, asking.destinations, lateness, _now_us),
            stored=lambda digest: to_object(digest.line, digest.key_id, digest.signature),
            now_us=_now_us,
        )
        data = AuditTenantData(database, service.store_format, buckets)
        renewal = SecretRenewal(box, service.store_format, [signing.kept, secrets.kept])
        add = partial(add_AuditServiceServicer_to_server, servicer)
        await service.serve(
            settings.audit_grpc_listen,
            {
                SERVICE: add,
                **tenantdata.registrations(data, ErasesKeys(persons, files)),
                **secretkeys.registrations(renewal),
            },
            without_tenant=[*WITHOUT_TENANT, secretkeys.SERVICE],
            verbs=VERBS,
            logged=LOGGED,
        )
        await service.until(stop)


def _now_us() -> int:
    return time.time_ns() // 1000
