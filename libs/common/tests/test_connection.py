"""Connections to NATS that die without saying so, and servers that say more than they should."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from backhaul_common import jetstream
from backhaul_common.jetstream import connection
from backhaul_common.jetstream.connection import (
    LAST_WORDS_S,
    MAX_OUTSTANDING_PINGS,
    PING_INTERVAL_S,
    Connection,
    require_connected,
)
from backhaul_common.lifecycle import cancel
from backhaul_common.settings import CommonSettings
from backhaul_local.nats_server import NatsServer
from backhaul_testing.proxy import SilentProxy
from nats.aio.client import Client
from nats.aio.msg import Msg
from structlog.testing import capture_logs

CHUNK = 100_000


@dataclass
class Linked:
    """A client that is connected through one of two proxies, each an address of the same server."""

    client: Client
    used: SilentProxy
    other: SilentProxy
    back: asyncio.Event


@pytest.fixture
def linked(
    fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AbstractAsyncContextManager[Linked]]:
    """``async with linked(buffer_while_away=…) as link``; pings come ten times as often as usual."""
    monkeypatch.setattr(connection, "PING_INTERVAL_S", PING_INTERVAL_S / 10)

    @asynccontextmanager
    async def run(*, buffer_while_away: bool = True) -> AsyncIterator[Linked]:
        async with SilentProxy(fresh_nats.port) as one, SilentProxy(fresh_nats.port) as two, AsyncExitStack() as stack:
            back = asyncio.Event()

            async def reconnected() -> None:
                back.set()

            settings = CommonSettings(nats_url=f"nats://127.0.0.1:{one.port},nats://127.0.0.1:{two.port}")
            stack.enter_context(capture_logs())
            client = await jetstream.connect(
                settings, "test", buffer_while_away=buffer_while_away, on_reconnect=reconnected
            )
            stack.push_async_callback(client.close)
            url = client.connected_url
            assert url is not None
            used, other = (one, two) if url.port == one.port else (two, one)
            yield Linked(client, used, other, back)

    return run


def test_a_dead_connection_is_given_up_within_ten_seconds() -> None:
    # The last answer may have come just before a ping, and the one above the limit ends it.
    assert (MAX_OUTSTANDING_PINGS + 1) * PING_INTERVAL_S + LAST_WORDS_S < 10


@pytest.mark.parametrize("unsent", [0, 200_000, 9_000_000])
@pytest.mark.parametrize("buffer_while_away", [True, False])
async def test_a_connection_that_goes_silent_is_left_for_another_address(
    linked: Callable[..., AbstractAsyncContextManager[Linked]], unsent: int, buffer_while_away: bool
) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message: Msg) -> None:
        await heard.put(message.data)

    async with linked(buffer_while_away=buffer_while_away) as link:
        await link.client.subscribe("news", cb=hear)
        await link.client.flush()
        link.used.go_silent()

        async def publish() -> None:
            for _ in range(unsent // CHUNK):
                await link.client.publish("bulk", bytes(CHUNK))

        publishing = asyncio.create_task(publish())
        async with asyncio.timeout(60):
            await link.back.wait()
            await link.client.publish("news", b"x")
            assert await heard.get() == b"x"
        url = link.client.connected_url
        assert url is not None
        assert url.port == link.other.port
        publishing.cancel()


async def test_what_a_dead_connection_did_not_take_is_not_sent_over_the_next_unless_it_shall_be(
    linked: Callable[..., AbstractAsyncContextManager[Linked]], fresh_nats: NatsServer
) -> None:
    for buffered in (True, False):
        async with linked(buffer_while_away=buffered) as link:
            heard: list[bytes] = []

            async def hear(message: Msg, heard: list[bytes] = heard) -> None:
                heard.append(message.data[:1])

            listener = await jetstream.connect(CommonSettings(nats_url=fresh_nats.uri), "listener")
            await listener.subscribe("bulk", cb=hear)
            await listener.flush()
            link.used.go_silent()

            async def publish(client: Client = link.client) -> None:
                for _ in range(90):
                    await client.publish("bulk", bytes(CHUNK))
                await client.publish("bulk", b"last")

            publishing = asyncio.create_task(publish())
            async with asyncio.timeout(60):
                await link.back.wait()
                if buffered:
                    await publishing
                await link.client.flush()
                await listener.flush()
            assert (b"l" in heard) is buffered
            publishing.cancel()
            await listener.close()


@pytest.mark.timed
async def test_closing_does_not_wait_for_a_connection_that_is_silent(
    linked: Callable[..., AbstractAsyncContextManager[Linked]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STUCK_S", 0.3)
    monkeypatch.setattr(connection, "PING_INTERVAL_S", 60)
    async with linked(buffer_while_away=False) as link:
        link.used.go_silent()
        for _ in range(90):
            await link.client.publish("bulk", bytes(CHUNK))
        async with asyncio.timeout(3):
            await link.client.close()


async def test_a_slow_reader_is_no_dead_one(
    linked: Callable[..., AbstractAsyncContextManager[Linked]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STUCK_S", 0.3)
    async with linked(buffer_while_away=False) as link:
        link.used.go_silent()
        for _ in range(90):
            await link.client.publish("bulk", bytes(CHUNK))
        await asyncio.sleep(0.1)  # Less than would be taken for the end.
        link.used.speak()
        await link.client.flush()
        assert link.client.stats["reconnects"] == 0


async def test_an_error_of_the_server_ends_the_connection_and_not_the_client() -> None:
    """The server tells its clients something final once, and serves them when they come again."""
    connections = 0
    back = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        own = connections
        info = {"version": "2.15.1", "max_payload": 1 << 20, "proto": 1, "headers": True}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
            if line.startswith(b"SUB ") and own == 1:
                writer.write(b"-ERR 'User Authentication Expired'\r\n")
                break
        writer.close()

    async def reconnected() -> None:
        back.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with capture_logs() as lines:
        client = await jetstream.connect(
            CommonSettings(nats_url=f"nats://127.0.0.1:{port}"), "test", on_reconnect=reconnected
        )
        await client.subscribe("news")
        async with asyncio.timeout(60):
            await back.wait()
        assert client.is_connected
        await client.close()
    server.close()
    assert any("authentication expired" in line.get("error", "") for line in lines)


@pytest.mark.parametrize(
    ("version", "taken"),
    [("2.14.4", False), ("2.9.25", False), ("2.14.5", True), ("2.15.0-RC.1", True), ("3.0.0", True)],
)
async def test_a_server_that_is_too_old_is_refused_in_words(version: str, taken: bool) -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps({"version": version, "max_payload": 1 << 20}).encode() + b"\r\n")
        asked.set()
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = Connection()
    settings = CommonSettings(nats_url=f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with capture_logs() as lines:
        connecting = asyncio.create_task(jetstream.connect(settings, "test", client=client))
        async with asyncio.timeout(60):
            if taken:
                await connecting
                require_connected(client)
            else:
                while not lines:  # The refusal is only seen in the log.
                    await asyncio.sleep(0.01)
                with pytest.raises(ConnectionError, match=f"nats-server {version} is too old: 2.14.5 or newer"):
                    require_connected(client)
                # Replaced by a newer one meanwhile, it is taken: it is tried again, and said once.
                asked.clear()
                await asked.wait()
                assert not connecting.done()
        await cancel(connecting)
        said = [line["event"] for line in lines]
        await client.close()
    server.close()
    assert said == ([] if taken else ["nats_error"])
