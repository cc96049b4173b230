"""The connection of a process: what is done whenever it stands anew, over a real nats-server that comes and goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from backhaul_common.bus import LAST_WORDS_S, Bus
from backhaul_common.jetstream import connection
from backhaul_common.lifecycle import cancel
from backhaul_common.settings import CommonSettings
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from backhaul_testing.proxy import SilentProxy
from nats.aio.msg import Msg
from nats.errors import FlushTimeoutError
from structlog.testing import capture_logs


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # plain values, on purpose
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(bus: Bus) -> AsyncIterator[None]:
    task = asyncio.create_task(bus.run())
    try:
        yield
    finally:
        await cancel(task)
        await bus.close()


async def given_up(bus: Bus) -> None:
    """Give up waiting for an answer of a server that was paused: the process takes its time to stop."""
    with suppress(FlushTimeoutError):
        while True:
            await bus.client.flush(timeout=0.2)  # type: ignore[arg-type]  # fractions work and are only not declared


async def test_hooks_run_over_every_connection_and_none_waits_for_another(fresh_nats: NatsServer) -> None:
    bus = Bus(CommonSettings(nats_url=fresh_nats.uri), "test")
    done: list[str] = []
    failures = [OSError("not yet")] * 2
    late = asyncio.Event()

    async def fails_twice() -> None:
        if failures:
            raise failures.pop()
        done.append("fails_twice")

    first = [True]

    async def hangs_at_first() -> None:
        done.append("begins")
        if first:
            first.pop()
            await asyncio.Event().wait()
        done.append("ends")

    async def waits() -> None:
        await late.wait()
        done.append("waits")

    for hook in (hangs_at_first, fails_twice, waits):
        bus.on_connected(hook.__name__, hook)
    async with running(bus):
        await until(lambda: done == ["begins", "fails_twice"])
        assert not bus.settled.is_set()
        # What hangs over a connection that is lost begins anew over the next one.
        await fresh_nats.kill()
        await fresh_nats.start()
        await until(lambda: done == ["begins", "fails_twice", "begins", "ends", "fails_twice"])
        assert not bus.settled.is_set()
        late.set()
        await asyncio.wait_for(bus.settled.wait(), 60)
        assert done[-1] == "waits"
        done.clear()
        await fresh_nats.kill()
        await fresh_nats.start()
        await until(lambda: sorted(done) == ["begins", "ends", "fails_twice", "waits"])


async def test_no_hook_takes_another_ones_place() -> None:
    bus = Bus(CommonSettings(), "test")
    bus.on_connected("reader", _passes)
    with pytest.raises(ValueError, match="reader"):
        bus.on_connected("reader", _passes)


async def _passes() -> None: ...


async def test_a_server_that_is_away_at_the_start_is_waited_for(fresh_nats: NatsServer) -> None:
    bus = Bus(CommonSettings(nats_url=fresh_nats.uri), "test")
    await fresh_nats.kill()
    with capture_logs() as lines:
        async with running(bus):
            await until(lambda: [line["event"] for line in lines] == ["nats_error"])  # It was refused.
            assert not bus.settled.is_set()
            await fresh_nats.start()
            await asyncio.wait_for(bus.settled.wait(), 60)
            assert bus.client.is_connected


async def test_what_was_published_arrives_although_it_is_closed_at_once(fresh_nats: NatsServer) -> None:
    listener = await broker.connect(fresh_nats.uri)
    subscription = await listener.subscribe("news")
    await listener.flush()
    bus = Bus(CommonSettings(nats_url=fresh_nats.uri), "test")
    async with running(bus):
        await asyncio.wait_for(bus.settled.wait(), 60)
        for number in range(1000):
            await bus.client.publish("news", b"%d" % number)
    assert [(await subscription.next_msg(timeout=60)).data for _ in range(1000)] == [b"%d" % n for n in range(1000)]
    await listener.close()


@pytest.mark.timed
async def test_a_server_that_is_silent_does_not_hold_up_the_end(fresh_nats: NatsServer) -> None:
    async with SilentProxy(fresh_nats.port) as proxy:
        bus = Bus(CommonSettings(nats_url=f"nats://127.0.0.1:{proxy.port}"), "test")
        async with running(bus):
            await asyncio.wait_for(bus.settled.wait(), 10)
            proxy.go_silent()
            await bus.client.publish("news", b"x")
            began = time.monotonic()
        assert time.monotonic() - began < LAST_WORDS_S + 2


async def test_an_answer_that_comes_after_it_was_given_up_does_not_end_the_reading(
    fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than this test takes: the connection is not to be saved by being given up.
    monkeypatch.setattr(connection, "PING_INTERVAL_S", 60)
    bus = Bus(CommonSettings(nats_url=fresh_nats.uri), "test")
    heard = asyncio.Event()

    async def hear(_: Msg) -> None:
        heard.set()

    async with running(bus):
        await asyncio.wait_for(bus.settled.wait(), 60)
        await bus.client.subscribe("news", cb=hear)
        fresh_nats.pause()
        await given_up(bus)
        fresh_nats.resume()
        await bus.client.flush()
        await bus.client.publish("news", b"x")
        await asyncio.wait_for(heard.wait(), 60)
        assert bus.client.stats["reconnects"] == 0
