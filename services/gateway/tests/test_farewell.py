"""How a connection of TLS ends: with all of the answer, and soon where the peer says nothing more.

On uvloop, as the gateway runs.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from backhaul_common.certificates import Files
from backhaul_common.metering import Metrics
from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.web import connections as bounds
from backhaul_gateway.web.connections import Connections
from backhaul_gateway.web.https import Origins
from backhaul_gateway.web.server import Listeners, connections_of, server_of
from backhaul_gateway.web.tls import server_context
from backhaul_testing.authority import Authority
from starlette.types import Receive, Scope, Send

SIZE = 2 << 20
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def large(_: Scope, __: Receive, send: Send) -> None:
    headers = [(b"content-length", b"%d" % SIZE)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * SIZE})


@asynccontextmanager
async def served(authority: Authority) -> AsyncIterator[tuple[int, Connections]]:
    files, metrics = authority.issue("gateway"), Metrics("gateway")
    settings = GatewaySettings.model_validate(
        {
            "gateway_admin_token": "x" * 16,
            "secret_keys": "A" * 43 + "=",
            "gateway_tls_cert_file": files.cert,
            "gateway_tls_key_file": files.key,
            "gateway_read_timeout_s": 300,
        }
    )
    connections = connections_of(settings, metrics)
    with socket.socket() as listener:
        # The system would take the whole answer otherwise.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        certificate = Files(server_context, *files)
        server = server_of(
            large, settings, connections, Listeners([], [listener], certificate, 0, port, Origins("https://x"))
        )
        serving = asyncio.create_task(server.serve([listener]))
        async with asyncio.timeout(60):
            while not server.started:
                await asyncio.sleep(0.01)
        try:
            yield port, connections
        finally:
            server.should_exit = True
            await serving
            connections.close()
            metrics.close()


def ask(port: int, authority: Authority) -> ssl.SSLSocket:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    raw.settimeout(60)
    raw.connect(("127.0.0.1", port))
    context = ssl.create_default_context(cafile=str(authority.file))
    peer = context.wrap_socket(raw, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
    peer.sendall(GET)
    return peer


def body_of(peer: ssl.SSLSocket, pause_s: float) -> int:
    """The length of the answer's body; ``pause_s`` is slept in all while it is read."""
    got, pieces = b"", 28
    for _ in range(pieces):
        wanted = len(got) + SIZE // pieces
        while len(got) < wanted and (part := peer.recv(16 << 10)):
            got += part
        time.sleep(pause_s / pieces)  # of another thread: what is tried is a peer that takes its time
    while len(got.partition(b"\r\n\r\n")[2]) < SIZE and (part := peer.recv(16 << 10)):
        got += part
    return len(got.partition(b"\r\n\r\n")[2])


@pytest.mark.slow
def test_who_reads_slowly_gets_all_of_an_answer_that_ends_the_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def main() -> None:
        async with served(authority) as (port, _):
            peer = await asyncio.to_thread(ask, port, authority)
            with peer:
                assert await asyncio.to_thread(body_of, peer, 7.0) == SIZE

    on_uvloop(main)


def test_who_has_all_of_it_and_says_nothing_keeps_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be idle in a client's pool, and would hold up every stop."""
    monkeypatch.setattr(bounds, "FAREWELL_S", 0.2)
    authority = Authority(tmp_path)

    async def main() -> None:
        async with served(authority) as (port, connections):
            peer = await asyncio.to_thread(ask, port, authority)
            with peer:
                assert await asyncio.to_thread(body_of, peer, 0.0) == SIZE
                async with asyncio.timeout(60):
                    while connections._open:
                        await asyncio.sleep(0.02)

    on_uvloop(main)


def on_uvloop(main: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
