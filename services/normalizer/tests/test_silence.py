"""Connections of a normalizer that go silent and stay open: it does not wait for them."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from backhaul_common import bus
from backhaul_common.jetstream import connection
from backhaul_common.jetstream.connection import PING_INTERVAL_S, Connection
from backhaul_common.names import CALLBACKS_STREAM, NORMALIZER_CONSUMER
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from backhaul_local.ports import Hold
from backhaul_testing import make
from backhaul_testing.proxy import SilentProxy
from grpc_health.v1 import health_pb2, health_pb2_grpc
from normalizer_rig import RigFactory
from pydantic import SecretStr

CHUNK = 100_000


@pytest.mark.parametrize("unsent", [200_000, 9_000_000])
async def test_it_goes_on_over_another_address_when_its_connection_goes_silent(
    rig_factory: RigFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch, unsent: int
) -> None:
    monkeypatch.setattr(connection, "PING_INTERVAL_S", PING_INTERVAL_S / 10)
    connections: list[Connection] = []

    class Watched(Connection):
        def __init__(self, *, keep_unsent: bool) -> None:
            super().__init__(keep_unsent=keep_unsent)
            connections.append(self)

    monkeypatch.setattr(bus, "Connection", Watched)
    async with (
        SilentProxy(fresh_nats.port) as one,
        SilentProxy(fresh_nats.port) as two,
        rig_factory(copies=0, normalizer_ack_wait_s=1) as rig,
        rig.another(nats_url=f"nats://127.0.0.1:{one.port},nats://127.0.0.1:{two.port}"),
    ):
        acme = make.tenant("acme")
        await rig.register(acme)
        await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))
        await rig.drained()
        used = one if one.accepted else two
        used.go_silent()

        async def publish() -> None:
            for _ in range(unsent // CHUNK):
                await connections[0].publish("bulk", bytes(CHUNK))

        publishing = asyncio.create_task(publish())
        await rig.publish(acme, make.callback(acme, make.twilio("SM2", "sent")))
        await rig.drained(timeout_s=10)
        publishing.cancel()
        assert {row["message_id"] for row in await rig.rows("messages")} == {"SM1", "SM2"}
        assert {event.message_id for event in await rig.published()} == {"SM1", "SM2"}


@pytest.mark.timed
async def test_a_copy_whose_database_connection_hangs_hands_its_share_to_another(
    rig_factory: RigFactory, mongo_server: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than this test waits: what the copy does not give back itself would come too late.
    async with (
        SilentProxy(mongo_server.port) as proxy,
        rig_factory(copies=0, normalizer_ack_wait_s=60, normalizer_batch_bytes=4096) as rig,
    ):
        acme = make.tenant("acme")
        await rig.register(acme)
        through = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
        hold = Hold()
        [port] = hold.choose(1)
        async with rig.another(mongo_uri=SecretStr(through), normalizer_grpc_listen=f"127.0.0.1:{port}"):
            await rig.publish(acme, make.callback(acme, make.twilio("SM0", "sent")))
            await rig.drained()
            proxy.go_silent()
            # More than one batch: one in the transaction, one that was read, and some that wait behind them.
            for n in range(1, 60):
                await rig.publish(acme, make.callback(acme, make.twilio(f"SM{n}", "sent")))
            info = await rig.nats.jetstream().consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
            async with asyncio.timeout(60):
                while info.num_ack_pending < 59:  # The broker has no event for what a copy has in hand.
                    await asyncio.sleep(0.02)
                    info = await rig.nats.jetstream().consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
            began = time.monotonic()
            async with rig.another():
                await rig.drained(timeout_s=15)
                assert await serving(port) == health_pb2.HealthCheckResponse.NOT_SERVING
            assert time.monotonic() - began < 15
            assert {row["message_id"] for row in await rig.rows("messages")} == {f"SM{n}" for n in range(60)}
            proxy.speak()
            async with asyncio.timeout(60):
                while await serving(port) != health_pb2.HealthCheckResponse.SERVING:
                    await asyncio.sleep(0.1)  # The health service is followed once a second.
            await rig.publish(acme, make.callback(acme, make.twilio("SM60", "sent")))
            await rig.drained()


async def serving(port: int) -> int:
    """What the health service on ``port`` says."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=""), timeout=2)
        status: int = answer.status
        return status
