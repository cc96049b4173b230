"""aiohttp's pool over connections that the ``Dialer`` makes.

aiohttp looks up, connects, and speaks to proxies by itself, and has no place where an address is checked that covers
all of it; nor does it CONNECT for plain HTTP. So the one method by which its connectors differ is our own. The tests go
through real sockets, and fail if another version of aiohttp does not call it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import BaseConnector, ClientTimeout, ServerDisconnectedError, StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.tracing import Trace

from backhaul_notifier.door.dialing import Dialer, Stage
from backhaul_notifier.door.outcome import MAX_ANSWER_BYTES, DoorError, Failure
from backhaul_notifier.door.target import Target

MAX_HEADER_BYTES, MAX_HEADERS = 8_192, 100

MAX_EXCHANGE_BYTES = 1 << 20
"""What an endpoint may send for one request until its answer's head is whole, and the first 4 KiB behind it. Of a body
the kernel and the loop hand over some 256 KiB before the reader can hang up."""

_HEADS_END = b"\r\n\r\n"


class Attempt:
    """One request on its way. ``peer`` is the connection that it has got; ``may_send`` is the request's."""

    __slots__ = ("may_send", "peer", "reused", "stage", "target")

    def __init__(self, target: Target, may_send: Callable[[], bool]) -> None:
        self.target = target
        self.may_send = may_send
        self.stage = Stage.WAITING
        self.peer: Peer | None = None
        self.reused = True

    def at(self, stage: Stage) -> None:
        """It has come so far."""
        self.stage = stage

    def over(self) -> None:
        """Whatever its connection does from now on is no matter of this request's."""
        if self.peer is not None and self.peer.attempt is self:
            self.peer.attempt = None


class Peer(ResponseHandler):
    """A connection that counts what it is sent."""

    def __init__(self, loop: Any, open_peers: dict[Peer, None]) -> None:
        super().__init__(loop)
        self._open = open_peers
        self.attempt: Attempt | None = None
        self.received = 0
        self._headed = False
        self._content: StreamReader | None = None
        self._answered = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._open[self] = None

    def connection_lost(self, exc: BaseException | None) -> None:
        self._open.pop(self, None)
        super().connection_lost(exc)

    def begin(self, attempt: Attempt) -> None:
        """It is ``attempt``'s from now on."""
        if self._parser is None:
            # For all answers of the connection.
            self.set_response_params(
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=MAX_ANSWER_BYTES,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
                max_headers=MAX_HEADERS,
            )
        attempt.peer, self.attempt = self, attempt
        attempt.at(Stage.ANSWERING)
        self.received = 0
        self._headed = False
        self._content = None
        self._answered = False
        # The one that was used last is the last to be shed.
        if self._open.pop(self, self) is None:
            self._open[self] = None

    def send(self, data: bytes) -> None:
        """Write ``data``. Raises ServerDisconnectedError where the connection has ended."""
        if self.transport is None or self.transport.is_closing():
            raise ServerDisconnectedError
        self.transport.write(data)

    @property
    def has_sent(self) -> bool:
        """Whether all of it has left."""
        return self.transport is None or not self.transport.get_write_buffer_size()

    def feed_data(self, data: tuple[Any, Any], size: int = 0) -> None:
        """An answer's head is whole, or one of what comes before it."""
        super().feed_data(data, size)
        message, payload = data
        if message.code >= 200:
            self._headed = True
            self._content = payload
            payload.on_eof(self._end)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """What comes is no HTTP, or nothing comes any more. Whoever reads a body would wait for its end otherwise."""
        super().set_exception(exc, *cause)
        content = self._content
        if isinstance(exc, HttpProcessingError) and content is not None and not content.is_eof():
            content.set_exception(exc, *cause)

    def _end(self) -> None:
        self._answered = True

    def data_received(self, data: bytes) -> None:
        if data and self._answered:
            # Nobody asked for it, and the next request would take it for its own answer.
            self.abort()
            return
        self.received += len(data)
        if self.received > MAX_EXCHANGE_BYTES:
            self.set_exception(DoorError(Failure.PROTOCOL_ERROR, "The endpoint sends without end."))
            if self.transport is not None:
                # Not by abort(), which forgets the exception.
                self.transport.abort()
            return
        head, end, rest = (data, b"", b"") if self._headed else data.partition(_HEADS_END)
        # The head by itself: aiohttp's parser would forget it where it finds something wrong in the same bytes.
        super().data_received(head + end)
        if rest and self._answered:
            self.abort()
        elif rest and self.exception() is None:
            super().data_received(rest)

    def close(self) -> None:
        """At once: an endpoint that does not take leave of TLS would keep the connection for half a minute."""
        self.abort()


class Connector(BaseConnector):
    """``limit`` is for open connections, idle ones included. There is none for a host: it is that of many tenants'
    endpoints, and whoever hung there would keep the others from it. Who may call is shared out by tenant."""

    def __init__(self, dialer: Dialer, *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, limit_per_host=0, keepalive_timeout=keepalive_timeout)
        self._dialer = dialer
        self._peers: dict[Peer, None] = {}
        self._make: Callable[[], Peer] = partial(Peer, self._loop, self._peers)

    @property
    def open_connections(self) -> int:
        """Idle ones included."""
        return len(self._peers)

    async def _create_connection(self, req: Any, traces: list[Trace], timeout: ClientTimeout) -> Peer:  # noqa: ARG002, ASYNC109  # aiohttp's signature
        attempt: Attempt = req.attempt
        attempt.reused = False
        if len(self._peers) >= self.limit:
            self._shed()
        return await self._dialer.connect(self._make, attempt.target, req.tls, attempt.at)

    def _shed(self) -> None:
        """Close the idle connection that was used least recently."""
        for peer in self._peers:
            if peer.attempt is None:
                del self._peers[peer]
                peer.abort()
                return
