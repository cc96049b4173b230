"""nats-py's client, mended where it waits without end for a connection that is dead, or gives one up for good.

What is here overrides private methods of nats-py 2.16, or calls them; the lock file pins it, and the tests go through
each of them.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import ParseResult

import nats.errors
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport

from backhaul_common.jetstream.outage import AWAY
from backhaul_common.logs import get_logger
from backhaul_common.pauses import pauses
from backhaul_common.settings import NatsSettings
from backhaul_common.tls import context_to

PING_INTERVAL_S = 2.5
MAX_OUTSTANDING_PINGS = 2
"""A dead connection is given up at the third ping, 7.5 s after its last answer at the latest."""

LAST_WORDS_S = 0.5
"""How long a connection that is being closed may take to send what it still holds."""

STUCK_S = 8.0
"""How long a connection may take nothing of what waits to be sent."""

OLDEST_SERVER = (2, 14, 5)
"""Releases before it lose schedules, pulls that are bounded in bytes, and positions after a recovery, in this way or
that. (Release notes of nats-server 2.12.x and 2.14.x.)"""


class ServerTooOldError(nats.errors.Error):
    """The server is older than what the streams need."""


class PlainServerError(nats.errors.Error):
    """The server speaks without TLS, and must not."""


class Connection(Client):
    """A client whose connection is never waited for longer than its peer is alive, and that always reconnects.

    With ``keep_unsent`` false, what waits to be sent is dropped when the connection is lost, instead of being sent over
    the next one.
    """

    def __init__(self, *, keep_unsent: bool = True) -> None:
        super().__init__()
        self.keep_unsent = keep_unsent

    async def _connect_to_server(self, s: Srv) -> None:
        if s.uri.scheme in ("ws", "wss"):
            await super()._connect_to_server(s)
            return
        s.last_attempt = time.monotonic()
        if not isinstance(self._transport, _Link):
            self._transport = _Link()  # type: ignore[no-untyped-call]  # nats-py's constructor is not annotated
        await self._transport.connect(
            s.uri, buffer_size=DEFAULT_BUFFER_SIZE, connect_timeout=self.options["connect_timeout"]
        )

    async def close(self) -> None:
        await super().close()
        # nats-py leaves one open on which the handshake failed.
        if isinstance(self._transport, _Link):
            self._transport.abort()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # The server's first words, before anything is said to it. What is raised here is tried again, like a failure.
        version = str(info.get("version", ""))
        if initial_connection and version and _numbers(version) < OLDEST_SERVER:
            oldest = ".".join(map(str, OLDEST_SERVER))
            raise ServerTooOldError(f"nats-server {version} is too old: {oldest} or newer is needed.")
        # nats-py encrypts where the server demands it, whatever was asked for.
        if initial_connection and self._asks_for_tls() and not info.get("tls_required"):
            raise PlainServerError("NATS does not demand TLS, which BACKHAUL_TLS_SERVERS or its URL asks for.")
        await super()._process_info(info, initial_connection)
        self._know_servers_once()

    def _asks_for_tls(self) -> bool:
        return "tls" in self.options or (self._current_server is not None and self._current_server.uri.scheme == "tls")

    def _know_servers_once(self) -> None:
        # A cluster's servers name each other by address alone. nats-py takes each for one more server, also where it
        # was given with credentials, and shows none to it: every attempt there would be refused.
        #
        # These names are heard before TLS stands, and may be anybody's. So where TLS is asked for, an address is held
        # against the name of the server that named it, and a name that was not given is no server of ours: whoever has
        # it may well have a certificate for it.
        current = self._current_server
        known_as = None if current is None else current.tls_name or current.uri.hostname
        given = [server for server in self._server_pool if not server.discovered]
        addresses = {(server.uri.hostname, server.uri.port) for server in given}
        credentials = next((found for server in given if (found := server.uri.netloc.rpartition("@")[0])), "")
        pool = []
        for server in self._server_pool:
            if server.discovered and server is not self._current_server:
                address = server.uri.hostname, server.uri.port
                if address in addresses:
                    continue
                if self._asks_for_tls():
                    if self._host_is_ip(server.uri.hostname):
                        server.tls_name = server.tls_name or known_as
                    elif server.uri.hostname not in {known.uri.hostname for known in given}:
                        continue
                addresses.add(address)
                if credentials and "@" not in server.uri.netloc:
                    server.uri = server.uri._replace(netloc=f"{credentials}@{server.uri.netloc}")
            pool.append(server)
        self._server_pool = pool

    async def _attempt_reconnect(self) -> None:
        if not self.keep_unsent:
            self._pending.clear()
            self._pending_data_size = 0
        await super()._attempt_reconnect()

    async def _process_pong(self) -> None:
        # nats-py reads nothing any more once an answer comes that nobody waits for. Such an answer is put aside.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_err(self, err_msg: str) -> None:
        # nats-py closes for good after any error but two. The server ends the connection after most of them, and all
        # may pass: a limit of connections, a user whose credentials expired and are being renewed, a restart.
        if "permissions violation" in err_msg.lower():
            await super()._process_err(err_msg)
            return
        error = nats.errors.Error(f"nats: {err_msg.strip(chr(39))}")
        await self._error_cb(error)
        await self._process_op_err(error)


async def connect(
    settings: NatsSettings,
    name: str,
    *,
    client: Client | None = None,
    buffer_while_away: bool = True,
    on_reconnect: Callable[[], Awaitable[None]] | None = None,
) -> Client:
    """A client that reconnects for ever. Returns when the first connection stands; cancel it to give up.

    Pass ``client`` to hold on to it before: nats-py connects the object that it is called on.
    With ``buffer_while_away`` false, publishing while the connection is down raises OutboundBufferLimitError at once
    instead of keeping the message for later: what was answered as not stored must not be stored behind one's back.
    A connection that carries nothing any more is given up within 10 seconds, and another of the servers is tried.
    """
    log = get_logger(component="nats")
    connecting = client if client is not None else Connection(keep_unsent=buffer_while_away)
    last_error = ""

    async def disconnected() -> None:
        log.warning("nats_disconnected")

    async def reconnected() -> None:
        nonlocal last_error
        last_error = ""
        log.info("nats_reconnected")
        if on_reconnect is not None:
            try:
                await on_reconnect()
            except Exception as exc:  # noqa: BLE001  # raised into nats-py, it would end the reconnecting for good
                log.warning("on_reconnect_failed", error=repr(exc))

    async def failed(exc: Exception) -> None:
        # While a server is away every attempt fails alike; one line says it.
        nonlocal last_error
        if repr(exc) != last_error:
            last_error = repr(exc)
            log.warning("nats_error", error=last_error)

    options: dict[str, object] = {} if buffer_while_away else {"pending_size": 0}
    if (context := context_to("nats", settings)) is not None:
        options["tls"] = context
    if settings.nats_credentials_file is not None:
        options["user_credentials"] = str(settings.nats_credentials_file)
    for pause_s in pauses():
        try:
            await connecting.connect(
                servers=[url.strip() for url in settings.nats_url.split(",")],
                name=name,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; fractions work and are only not declared
                connect_timeout=2,
                ping_interval=PING_INTERVAL_S,  # type: ignore[arg-type]  # as above
                max_outstanding_pings=MAX_OUTSTANDING_PINGS,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                error_cb=failed,
                **options,  # type: ignore[arg-type]  # the options' values are typed one by one
            )
        except AWAY as exc:
            await failed(exc)
            await asyncio.sleep(pause_s)
        else:
            break
    return connecting


async def write_at_once(client: Client, published: bytes, messages: int) -> None:
    """Send ``published``, the bytes that publish that many ``messages``, over one connection or not at all.

    Raises as ``Client.publish``, which makes bytes of one message at a time, and looks at each.
    """
    if client.is_closed:
        raise nats.errors.ConnectionClosedError
    if client.is_draining_pubs:
        raise nats.errors.ConnectionDrainingError
    if not client.is_connected and len(published) + client.pending_data_size > client._max_pending_size:
        raise nats.errors.OutboundBufferLimitError
    client.stats["out_msgs"] += messages
    client.stats["out_bytes"] += len(published)
    await client._send_command(published)
    if client._flush_queue is not None and client._flush_queue.empty():
        await client._flush_pending()


def require_connected(client: Client) -> None:
    """Raises ConnectionError, with words for whoever operates the service, when ``client`` has no connection."""
    if not client.is_connected:
        error = client.last_error
        raise ConnectionError(
            str(error) if isinstance(error, (ServerTooOldError, PlainServerError)) else "NATS is away"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """2.14.5-RC.1 is (2, 14, 5): a release that is being tried counts as what it will be."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


class _Link(TcpTransport):
    """A TCP connection that ends when it is told to, also where the peer takes nothing any more.

    asyncio closes a connection when all that was written has been sent. A peer that went silent never takes it, and
    the operating system tries for a quarter of an hour.
    """

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        # nats-py forgets the connection on which a handshake failed. A server that accepts and then says nothing would
        # collect one more with every attempt.
        self.abort()
        await super().connect(uri, buffer_size, connect_timeout)

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        # nats-py does not tell the protocol, which would have asyncio complain in the log of each connection that ends.
        writer: Any = self._io_writer
        writer.transport.get_protocol()._over_ssl = True

    async def drain(self) -> None:
        writer = self._io_writer
        if writer is None:
            return
        watch = _Watch(writer.transport) if writer.transport.get_write_buffer_size() else None
        try:
            await super().drain()  # type: ignore[no-untyped-call]  # as above
        finally:
            if watch is not None:
                watch.cancel()

    async def wait_closed(self) -> None:
        # By a timer and not by a timeout: cancelled, asyncio's wait_closed would raise that for ever after.
        timer = asyncio.get_running_loop().call_later(LAST_WORDS_S, self.abort)
        try:
            await super().wait_closed()  # type: ignore[no-untyped-call]  # as above
        finally:
            timer.cancel()

    def abort(self) -> None:
        for writer in (self._io_writer, self._bare_io_writer):
            if writer is not None:
                writer.transport.abort()


class _Watch:
    """Aborts ``transport`` when it takes nothing for ``STUCK_S``; however slowly it does take something, it may."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._look()

    def cancel(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        self._size = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(STUCK_S, self._judge)

    def _judge(self) -> None:
        if self._transport.get_write_buffer_size() < self._size:
            self._look()
            return
        get_logger(component="nats").warning("nats_takes_nothing", unsent_bytes=self._size)
        self._transport.abort()
