"""A gRPC connection that goes silent and stays open, while the server is there for whoever connects anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

import grpc
import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc import keepalive
from backhaul_testing.proxy import SilentProxy
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving_rig import SETTINGS, served

pytestmark = pytest.mark.slow

QUICKLY = 0.1
"""How much sooner than in earnest everything happens here."""


@dataclass
class Line:
    """A client whose connection to a server goes through a proxy."""

    proxy: SilentProxy
    channel: grpc.aio.Channel

    async def ask(self, timeout_s: float | None = None) -> int:
        question = health_pb2.HealthCheckRequest()
        answer = await health_pb2_grpc.HealthStub(self.channel).Check(question, timeout=timeout_s)
        return int(answer.status)


@pytest.fixture
async def line(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Line]:
    monkeypatch.setattr(keepalive, "INTERVAL_S", keepalive.INTERVAL_S * QUICKLY)
    monkeypatch.setattr(keepalive, "PATIENCE_S", keepalive.PATIENCE_S * QUICKLY)
    async with AsyncExitStack() as stack:
        server = await served(stack)
        proxy = await stack.enter_async_context(SilentProxy(server.port))
        channel = rpc.connect(f"127.0.0.1:{proxy.port}", SETTINGS)
        stack.push_async_callback(channel.close)
        yield Line(proxy, channel)


def test_a_dead_connection_is_noticed_within_ten_seconds() -> None:
    assert keepalive.INTERVAL_S + keepalive.PATIENCE_S < 10


@pytest.mark.timed
@pytest.mark.parametrize("age", [0, 3], ids=["new", "old"])
@pytest.mark.parametrize("idle", [True, False], ids=["nobody asks", "somebody asks"])
async def test_a_silent_connection_is_left_for_a_new_one(line: Line, idle: bool, age: int) -> None:
    await line.ask()
    # A connection that was just used has gRPC's own pings under way, a quiet one only those that keep it alive.
    await asyncio.sleep(age * keepalive.INTERVAL_S)
    line.proxy.go_silent()
    line.proxy.speak_to_newcomers()
    loop = asyncio.get_running_loop()
    began = loop.time()
    notices_s = keepalive.INTERVAL_S + keepalive.PATIENCE_S
    if idle:
        # A read that comes later is answered at once.
        async with asyncio.timeout(notices_s * 4):
            while line.channel.get_state() is grpc.ChannelConnectivity.READY:
                await line.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        await line.ask(1.0)
    else:
        with pytest.raises(BackhaulError) as caught:
            await line.ask(20.0)
        assert caught.value.code is Code.UNAVAILABLE
        # gRPC waits a moment before it connects anew, and refuses meanwhile.
        async with asyncio.timeout_at(began + notices_s * 4):
            while True:
                with suppress(BackhaulError):
                    await line.ask(1.0)
                    break
                await asyncio.sleep(0.05)  # gRPC refuses at once, so there is nothing to wait for
    assert loop.time() - began < notices_s * 4
    assert line.proxy.accepted == 2


async def test_a_connection_that_nobody_uses_stays(line: Line) -> None:
    await line.ask()
    # A server ends the connection of a client that asks too often for its taste, which is after three or four times.
    await asyncio.sleep(keepalive.INTERVAL_S * 12)
    assert line.channel.get_state() is grpc.ChannelConnectivity.READY
    await line.ask(1.0)
    assert line.proxy.accepted == 1
