"""What of the callback log is processed, by what a real consumer of it tells."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import nats.errors
from backhaul_common.names import CALLBACKS_STREAM, CALLBACKS_SUBJECTS, NORMALIZER_CONSUMER
from backhaul_gateway.ingest.callbackstream import CallbackStream
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig


async def test_what_was_deleted_before_it_was_acknowledged_keeps_nothing_else_for_ever(fresh_nats: NatsServer) -> None:
    client = await broker.connect(fresh_nats.uri)
    try:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name=CALLBACKS_STREAM, subjects=[CALLBACKS_SUBJECTS]))
        await js.add_consumer(
            CALLBACKS_STREAM,
            ConsumerConfig(durable_name=NORMALIZER_CONSUMER, ack_policy=AckPolicy.EXPLICIT, ack_wait=0.5),
        )
        log = CallbackStream(lambda: client)
        assert await log.processed_up_to() == 0
        for path in ("kept", "deleted"):
            await js.publish(f"callbacks.{path}.twilio", b"x")
        subscription = await js.pull_subscribe_bind(NORMALIZER_CONSUMER, CALLBACKS_STREAM)
        assert len(await subscription.fetch(2, timeout=60)) == 2
        # A normalizer has both in hand and dies; one of their tenants is deleted.
        await js.purge_stream(CALLBACKS_STREAM, subject="callbacks.deleted.>")
        assert await log.processed_up_to() == 0
        (again,) = await subscription.fetch(1, timeout=60)
        await again.ack_sync()

        async with asyncio.timeout(60):
            while (await js.consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)).num_ack_pending:
                # Whoever asks makes the broker notice that the other one is gone.
                with suppress(nats.errors.TimeoutError, TimeoutError):
                    await subscription.fetch(1, timeout=0.1)
        # The broker's own floor stays below both until the next message is acknowledged. Where the log is full there
        # will be none before what is processed makes room.
        assert await log.processed_up_to() == 2

        await js.publish("callbacks.kept.twilio", b"x")
        (last,) = await subscription.fetch(1, timeout=60)
        assert await log.processed_up_to() <= 2
        await last.ack_sync()
        assert await log.processed_up_to() == 3
    finally:
        await client.close()
