"""How the gateway stops: whoever is about to send something is told to go elsewhere, and not cut off.

On uvloop, as the gateway runs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import pytest
import uvloop
from backhaul_common.metering import Metrics
from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.web.connections import Connections
from backhaul_gateway.web.https import Origins
from backhaul_gateway.web.server import Listeners, Server, connections_of, server_of
from starlette.types import Receive, Scope, Send

POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


async def answer(_: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@dataclass
class Running:
    port: int
    server: Server
    connections: Connections


@asynccontextmanager
async def running(leave_s: float) -> AsyncIterator[Running]:
    """It is stopped at the end at the latest, and has ended then."""
    settings = GatewaySettings.model_validate(
        {"gateway_admin_token": "x" * 16, "secret_keys": "A" * 43 + "=", "gateway_leave_s": leave_s}
    )
    connections = connections_of(settings, Metrics("gateway"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listeners = Listeners([listener], [], None, port, 0, Origins(f"http://127.0.0.1:{port}"))
        server = server_of(answer, settings, connections, listeners)
        serving = asyncio.create_task(server.serve(listeners.all))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield Running(port, server, connections)
        finally:
            server.should_exit = True
            await serving
            connections.close()


class Kept:
    """A connection that is kept, as a balancer keeps it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def post(self) -> bool:
        """Whether the connection closes with the answer. IncompleteReadError or ConnectionError where it was cut."""
        self._writer.write(POST)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert await self._reader.readexactly(2) == b"ok"
        return b"connection: close" in head.lower()

    async def until_told(self) -> int:
        """Post until the connection closes; how often it was answered."""
        answered = 1
        while not await self.post():
            answered += 1
        return answered

    async def close(self) -> bytes:
        """Whatever comes to the end."""
        rest = await self._reader.read()
        self._writer.close()
        await self._writer.wait_closed()
        return rest


def on_uvloop(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(work, 60))


@pytest.mark.slow
def test_who_keeps_a_connection_and_who_comes_are_answered_and_told() -> None:
    async def work() -> None:
        async with running(leave_s=3) as gateway:
            kept = await Kept.to(gateway.port)
            assert not await kept.post()
            await gateway.connections.check()
            gateway.server.should_exit = True
            while not gateway.connections.leaving:
                await asyncio.sleep(0.01)
            with pytest.raises(RuntimeError, match="about to stop"):
                await gateway.connections.check()
            for client in (kept, await Kept.to(gateway.port)):
                assert await client.post()
                assert await client.close() == b""

    on_uvloop(work())


@pytest.mark.slow
def test_none_of_many_who_send_without_a_pause_is_cut() -> None:
    async def work() -> None:
        async with running(leave_s=0.5) as gateway:
            clients = [await Kept.to(gateway.port) for _ in range(32)]
            for client in clients:
                assert not await client.post()
            async with asyncio.TaskGroup() as group:
                told = [group.create_task(client.until_told()) for client in clients]
                gateway.server.should_exit = True
            assert min(task.result() for task in told) >= 1
            for client in clients:
                assert await client.close() == b""

    on_uvloop(work())
