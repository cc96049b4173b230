"""TLS of clients: what they are answered with, and handshakes, before which nobody is a client."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

from backhaul_common.certificates import Files
from backhaul_common.lifecycle import cancel, keep_running
from backhaul_common.logs import get_logger
from backhaul_common.pauses import pauses

from backhaul_gateway.admission.attempts import network_of

MAX_HANDSHAKES = 512
"""Handshakes of one port at a time. Beyond, the oldest of the address that has most is ended: an honest one takes two
ways there and back, and one host that only connects shuts nobody out."""

HANDSHAKE_S = 10.0

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2. Those of 1.3 are of this kind all: a key of its own for each connection, and authenticated encryption."""


def server_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """What handshakes are answered with. ssl.SSLError where the files do not belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Without a passphrase at hand OpenSSL would ask for one on the terminal.
    context.load_cert_chain(cert_file, key_file, password="")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


class TlsDoor:
    """A port of TLS: takes connections, and hands those on whose handshake succeeds.

    A server of the event loop's own would neither count handshakes nor give one up for another: whoever only connects
    could have all files that the gateway may open.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        certificate: Files[ssl.SSLContext],
        missed: Callable[[str], None],
        *,
        handshake_s: float,
        shutdown_s: float,
        most: int = MAX_HANDSHAKES,
    ) -> None:
        """``listener`` is bound; ``protocol`` makes what the connection is handed to; ``missed`` counts a
        handshake that led to none, by its reason. ``handshake_s`` bounds each, and
        ``shutdown_s`` the end of a connection: until all is sent, and the peer has said that it is done."""
        self._listener = listener
        self._protocol = protocol
        self._certificate = certificate
        self._missed = missed
        self._handshake_s = handshake_s
        self._shutdown_s = shutdown_s
        self._most = most
        self._greeting: dict[str, dict[asyncio.Task[None], None]] = {}
        """By the peer's network, and the oldest first."""
        self._count = 0
        self._taking: asyncio.Task[None] | None = None
        self._log = get_logger(component="tls")

    def open(self, backlog: int) -> None:
        """Begin to take connections."""
        self._listener.listen(backlog)
        self._listener.setblocking(False)
        self._taking = asyncio.create_task(keep_running("tls", self._take), name="tls")

    async def close(self) -> None:
        """Take no more of them, and end the handshakes; connections that were handed on are not touched."""
        for task in [self._taking, *(task for tasks in self._greeting.values() for task in tasks)]:
            if task is not None:
                await cancel(task)

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        waits = pauses(0.01, 1.0)
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError as exc:
                # Its peer is gone already, or no file can be opened, which does not end at once.
                self._log.warning("connection_not_taken", error=repr(exc))
                await asyncio.sleep(next(waits))
                continue
            waits = pauses(0.01, 1.0)
            if self._count >= self._most:
                self._make_room()
            peer = network_of(address[0])
            task = asyncio.create_task(self._greet(connection), name="handshake")
            self._greeting.setdefault(peer, {})[task] = None
            self._count += 1
            task.add_done_callback(partial(self._leave, peer))
            # Handshakes go on while a flood of connections is taken.
            await asyncio.sleep(0)

    def _make_room(self) -> None:
        # Where several have as many, the one that has had any for longest.
        peer, tasks = max(self._greeting.items(), key=lambda item: len(item[1]))
        oldest = next(iter(tasks))
        self._leave(peer, oldest)
        self._missed("room")
        oldest.cancel()

    def _leave(self, peer: str, task: asyncio.Task[None]) -> None:
        tasks = self._greeting.get(peer, {})
        if task in tasks:
            del tasks[task]
            self._count -= 1
        if not tasks:
            self._greeting.pop(peer, None)

    async def _greet(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                # As of the last look: strangers begin handshakes, and shall cost no look each.
                ssl=self._certificate.made.value,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=self._shutdown_s,
            )
        except OSError:
            # No TLS, none that is safe, none in time, or nobody there any more: the peer's affair.
            self._missed("handshake")
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise
