"""The composition root: the only place where clients are built, closed in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial

from backhaul_channels import load_adapters
from backhaul_common import jetstream, logs, mongo
from backhaul_common.errors import BackhaulError
from backhaul_common.fence import owners
from backhaul_common.lifecycle import Readiness, cancel, keep_running, spare_the_collector, until_done
from backhaul_common.metrics import MESSAGES_UNOWNED, PARKED_MESSAGES, Metrics
from backhaul_common.metrics_http import serve_metrics
from backhaul_common.names import TENANTS_COLLECTION
from backhaul_common.rpc import serve
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenants import TenantDirectory
from backhaul_common.tracing import Tracing
from backhaul_proto.normalizer.v1 import normalizer_pb2, normalizer_pb2_grpc
from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError

from backhaul_normalizer.consumer import Consumer
from backhaul_normalizer.feed import CallbacksFeed, feed_config
from backhaul_normalizer.normalize import Normalizer
from backhaul_normalizer.publisher import JetStreamCallbacks, JetStreamPublisher, require_room
from backhaul_normalizer.purge import TenantData
from backhaul_normalizer.quota import BoundedDeadLetters
from backhaul_normalizer.reads import MongoReads
from backhaul_normalizer.service import NormalizerUseCases
from backhaul_normalizer.servicer import NormalizerServicer
from backhaul_normalizer.settings import NormalizerSettings
from backhaul_normalizer.store import MongoEventStore
from backhaul_normalizer.unowned import Unowned

SERVICE = normalizer_pb2.DESCRIPTOR.services_by_name["NormalizerService"].full_name


async def run(settings: NormalizerSettings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set. Dependencies may be away at any time: readiness says which."""
    logs.configure("normalizer", fmt=settings.log_format, level=settings.log_level)
    tracing, metrics = Tracing.from_environment("normalizer"), Metrics("normalizer")
    readiness = Readiness()
    async with AsyncExitStack() as stack:
        stack.callback(tracing.close)
        stack.callback(metrics.close)
        if settings.metrics_port:
            await serve_metrics(stack, metrics, host=settings.metrics_host, port=settings.metrics_port)

        client = mongo.connect(settings.mongo_uri.get_secret_value())
        stack.callback(client.close)
        database = mongo.database(client, settings.mongo_database)
        store_format = StoreFormat(database)
        directory = TenantDirectory(database[TENANTS_COLLECTION], before_reading=store_format.ensure)
        store, reads = MongoEventStore(client, database), MongoReads(database)
        normalizer = Normalizer(load_adapters(), directory)

        nats = jetstream.Connection()
        js = nats.jetstream(timeout=5)
        unowned = Unowned(directory, metrics.counter(MESSAGES_UNOWNED))
        feed = CallbacksFeed(nats, js, feed_config(settings), directory, unowned)
        metrics.gauge(PARKED_MESSAGES, lambda: feed.parked)
        publisher = jetstream.Publisher()
        consumer = Consumer(
            feed,
            directory,
            normalizer,
            BoundedDeadLetters(store, database, settings.normalizer_most_dead_letters),
            JetStreamPublisher(publisher, partial(owners, database)),
            metrics,
            tracing,
        )
        for name, check in (
            ("store_format", store_format.ensure),
            ("tenants", directory.check),
            ("mongodb", store.ping),
            ("nats", feed.check),
            ("consumer", consumer.check),
        ):
            readiness.add(name, check)
        data = TenantData(database, store_format)
        servicer = NormalizerServicer(
            NormalizerUseCases(directory, normalizer, reads, JetStreamCallbacks(publisher)), reads, data
        )
        await serve(
            stack,
            settings,
            tracing,
            readiness,
            listen=settings.normalizer_grpc_listen,
            services=[SERVICE],
            register=lambda server: normalizer_pb2_grpc.add_NormalizerServiceServicer_to_server(servicer, server),
        )

        def start(name: str, work: Callable[[], Awaitable[None]]) -> None:
            stack.push_async_callback(cancel, asyncio.create_task(keep_running(name, work), name=name))

        async def reconnected() -> None:
            await feed.reconnected()
            # What changed while the connection was down was not heard. If MongoDB is away too, the next full read
            # brings it.
            with suppress(BackhaulError):
                await directory.refresh()

        async def consume() -> None:
            await jetstream.connect(settings, "normalizer", client=nats, on_reconnect=reconnected)
            await until_done("ensure_streams", lambda: jetstream.ensure_streams(js, settings))
            await store_format.then(partial(until_done, "prepare_store", store.prepare))
            await until_done("publisher", partial(_publish_over, publisher, nats))
            await _follow(directory, nats)
            start("feed", feed.run)
            start("consumer", consumer.run)

        spare_the_collector()
        stack.push_async_callback(cancel, asyncio.create_task(store_format.run(), name="store_format"))
        start("tenants", partial(store_format.then, directory.run))
        stack.push_async_callback(_close, nats)
        stack.push_async_callback(cancel, asyncio.create_task(consume(), name="consume"))
        await stop.wait()
        logs.get_logger().info("stopping")


async def _follow(directory: TenantDirectory, nats: NatsClient) -> None:
    """Hear of every tenant's change from now on, or, at the latest, from the next reconnection on."""
    try:
        await directory.follow(nats)
    except (NatsError, OSError) as exc:
        # It is subscribed, and only the server's word for that did not come. It must not be subscribed twice, nor can
        # the connection be kept: nats-py stops reading when an answer comes after it was given up. A new one renews
        # the subscription, and whatever is done after a reconnection reads what was not heard.
        logs.get_logger().warning("tenants_not_followed", error=repr(exc))
        await nats.force_reconnect()


async def _publish_over(publisher: jetstream.Publisher, nats: NatsClient) -> None:
    require_room(nats)
    await publisher.attach(nats)


async def _close(nats: NatsClient) -> None:
    if nats.is_connected:
        await nats.flush()  # Acknowledgements that are still on their way out.
    await nats.close()
