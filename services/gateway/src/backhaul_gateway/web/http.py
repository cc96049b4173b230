"""uvicorn's HTTP protocol on httptools, with a bound on everything that a peer can make it keep or wait for.

uvicorn itself bounds no head, no trailers and no number of pipelined requests, and its only timer runs between
requests. It also drops the body of a request that offers an upgrade, and takes trailers for fields of the head.

A request that arrives in one read costs no more than with uvicorn alone: ``Connections`` stands in for the timers of
uvicorn, and that saves as much as the bounds cost.

Nothing that this module relies on is a public interface of uvicorn. It was read from uvicorn 0.54, and pyproject.toml
keeps to that release:

- ``HttpToolsProtocol`` with ``parser``, ``transport``, ``flow``, ``pipeline``, ``server_state``, ``scope``, ``cycle``,
  ``headers``, ``url`` and ``_start_asgi_task``, and all methods that are overridden here;
- ``RequestResponseCycle`` with ``scope``, ``body``, ``more_body``, ``message_event``, ``keep_alive``, ``disconnected``,
  ``on_response``, ``response_started``, ``response_complete``, ``transport``, ``flow``, ``default_headers``,
  ``waiting_for_100_continue`` and ``send``, which an application gets bound to it;
- ``STATUS_LINE``;
- ``FlowControl`` with ``read_paused``, ``write_paused``, ``pause_reading`` and ``resume_reading``;
- ``HIGH_WATER_LIMIT``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import termios
from array import array
from collections.abc import Sequence
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools
from starlette.types import Send
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

if TYPE_CHECKING:
    from backhaul_gateway.web.connections import Connections

PIECE_BYTES = 16 << 10
"""The parser is given at most so much at once, and the bounds are checked in between. One read may bring a quarter of a
megabyte. If those are the shortest fields, they take up forty times as much memory once they are parsed."""

MAX_HEAD_BYTES = 64 << 10
"""How many bytes may follow each other without a head's end and without any of a body among them: those of a head, of
trailers, or of chunk extensions. The piece in which they begin does not count. Before a head is complete nobody knows
whose request it is, so no tenant's limit bounds what a stranger can have kept here."""

MAX_FIELDS = 200
"""Fields of one head."""

MAX_PIPELINED = 16
"""How many requests of one connection may wait until those before them are answered."""

STEADY_BODY = "backhaul.steady_body"
"""Where a route that takes bodies of any length says so in its request's scope: by an object, and another one with each
part of the body that it has read. Such a body may take as long as it likes, as long as it keeps coming."""

STRANGERS_BODY = "backhaul.strangers_body"
"""Where a route that reads a body before it knows whose it is says so in its request's scope, until it does."""

_UPGRADES = frozenset({b"upgrade", b"http2-settings"})


class Wait(Enum):
    """What the gateway waits for, of one peer."""

    HEAD = "head"
    BODY = "body"
    IDLE = "idle"
    """The first byte of the next request."""
    READ = "read"
    """That the peer reads its answer."""
    FAREWELL = "farewell"
    """That the peer, which has all answers, says that it is done, as TLS has it do."""


def refusal(status: HTTPStatus, text: str) -> bytes:
    """An answer that the server gives by itself, without the application. It ends the connection."""
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "content-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(text)}\r\n"
        "connection: close\r\n\r\n"
        f"{text}"
    ).encode()


_MALFORMED = refusal(HTTPStatus.BAD_REQUEST, "Invalid HTTP request received.")
_LONG_HEAD = refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are larger than 64 KB.")
_MANY_FIELDS = refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"There are more than {MAX_FIELDS} headers.")
_LONG_FRAMING = refusal(HTTPStatus.BAD_REQUEST, "The chunks' extensions or trailers are larger than 64 KB.")
_CONNECT = refusal(HTTPStatus.NOT_IMPLEMENTED, "CONNECT is not supported.")
_SLOW = refusal(HTTPStatus.REQUEST_TIMEOUT, "The request did not arrive in time.")
_FULL = refusal(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections are open. Try again later.")


async def answer(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a whole answer. ``headers`` are the gateway's own words, in lower case, nothing that a request brought.

    uvicorn checks each header by patterns and writes head and body apart, which takes a tenth of what a callback costs.
    Where nothing stands in the way, both are written at once, unchecked.
    """
    cycle = getattr(send, "__self__", None)
    if isinstance(cycle, RequestResponseCycle) and _answered_at_once(cycle, status, headers, body):
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _answered_at_once(
    cycle: RequestResponseCycle, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> bool:
    if cycle.disconnected or cycle.response_started or cycle.flow.write_paused or not cycle.keep_alive:
        return False
    content = [STATUS_LINE[status]]
    has_length = False
    for name, value in (*cycle.default_headers, *headers):
        has_length |= name == b"content-length"
        content += name, b": ", value, b"\r\n"
    if not has_length:
        return False
    content += b"\r\n", body
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(content))
    cycle.message_event.set()
    cycle.on_response()
    return True


class _RefusedError(Exception):
    """Stops the parser, where one of its callbacks raises it. There is no other way to stop it."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer)
        self.answer = answer


class _Trailers(list[tuple[bytes, bytes]]):
    """A list that keeps nothing, to which the parser adds fields after the head.

    RFC 9110, 6.5.1, forbids to merge trailers into the head. A credential or a signature among them must prove nothing:
    a proxy that checks only the head has not seen it.
    """

    def append(self, _: tuple[bytes, bytes]) -> None:
        """Forget the field."""


_TRAILERS = _Trailers()


class BoundedProtocol(HttpToolsProtocol):
    """One connection; see the module. ``Connections`` asks ``owes`` once a second, and calls ``give_up`` when the same
    wait has lasted too long."""

    def __init__(self, *, watch: Connections, config: Config, server_state: ServerState, **others: Any) -> None:
        super().__init__(config=config, server_state=server_state, **others)
        self._watch = watch
        self.headers = []
        self._barren = 0
        """Bytes that have followed each other without a head's end and without any of a body among them."""
        self._deaf = False
        """Nothing more is read. The connection ends when the requests that came before have been answered."""
        self._offered = False
        """The head that was just read offers an upgrade."""
        self._backlog: object = None
        """A new object each time that answers begin to pile up, because the peer does not read them."""
        # ``Connections`` keeps these here: the present wait, what tells it from others of its kind, and its end.
        self.wait: Wait | None = None
        self.wait_of: object = None
        self.deadline = 0.0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """A peer has connected."""
        super().connection_made(transport)
        if not self._watch.opened(self):
            self._deaf = True
            transport.write(_FULL)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed; nothing of it is kept."""
        self._watch.closed(self)
        super().connection_lost(exc)
        for cycle, _ in self.pipeline:
            cycle.disconnected = True
            # The cycle refers to this protocol, and this protocol to the cycle. Unless that is cut, only a full garbage
            # collection would free them.
            cycle.on_response = _nothing
        self.pipeline.clear()
        self.wait_of = None

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._deaf:
            return
        if len(data) > PIECE_BYTES:
            for start in range(0, len(data), PIECE_BYTES):
                self.data_received(data[start : start + PIECE_BYTES])
            return
        scope = self.scope  # uvicorn makes a new one whenever a request begins.
        self._barren += len(data)
        rest = self._feed(data)
        while rest is not None:
            rest = self._decline(rest)
        if self.scope is not scope:
            self._barren = 0
        elif self._barren > MAX_HEAD_BYTES:
            self._refuse(_LONG_FRAMING if self._in_body() else _LONG_HEAD)
        if self.headers is not _TRAILERS and len(self.headers) > MAX_FIELDS:
            self._refuse(_MANY_FIELDS)  # At once, since the end of this head may never come.

    def pause_writing(self) -> None:
        """The peer reads more slowly than it is answered."""
        self._backlog = object()
        super().pause_writing()

    # What the parser calls. on_body and on_message_complete do not call uvicorn's own, which would cost each request a
    # call.

    def on_headers_complete(self) -> None:
        """A head is whole."""
        if self.parser.should_upgrade():
            self._offered = True
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _RefusedError(_MALFORMED)  # Which answer does not matter: it is never sent, as others come first.
        if len(self.headers) > MAX_FIELDS:
            raise _RefusedError(_MANY_FIELDS)
        super().on_headers_complete()
        self.headers = _TRAILERS
        if self._watch.leaving:
            self.cycle.keep_alive = False  # Its answer says that the connection closes, and uvicorn closes it then.

    def on_body(self, body: bytes) -> None:
        """A part of a body, as large as it was read."""
        self._barren = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """A request is whole."""
        if not self._offered:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # What a request's cycle calls.

    def on_response_complete(self) -> None:
        """An answer was handed to the transport."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._deaf:
            self.transport.close()
        elif self.cycle.body:
            self.cycle.body = bytearray()  # The request was answered before its body was read; nobody needs it now.

    # What ``Connections`` calls.

    def owes(self) -> tuple[Wait | None, object]:
        """What the gateway waits for, and an object that stays the same as long as the wait is the same; None for no
        wait."""
        if self.transport.is_closing():
            # The transport closes when the peer has read everything, and with TLS has said so.
            return (Wait.READ if self._unsent() else Wait.FAREWELL), self.transport
        if self.flow.write_paused:
            return Wait.READ, self._backlog
        if self._deaf or self.flow.read_paused:
            return None, None
        return self._owes_of_request()

    def _owes_of_request(self) -> tuple[Wait | None, object]:
        cycle = self._newest()
        if cycle is None:
            return Wait.HEAD, None
        if cycle.scope is not self.scope:
            return Wait.HEAD, self.scope
        if cycle.more_body:
            return Wait.BODY, cycle.scope.get(STEADY_BODY, cycle)
        return (Wait.IDLE, cycle) if cycle.response_complete else (None, None)

    def _newest(self) -> RequestResponseCycle | None:
        """The last request whose head is whole, or None before the first. uvicorn's type leaves out the None."""
        return self.cycle

    @property
    def is_answered(self) -> bool:
        """Whether the application is done with every request whose head is whole."""
        cycle = self._newest()
        return cycle is None or cycle.response_complete

    @property
    def is_strangers(self) -> bool:
        """Whether the application reads the last request's body without knowing whose it is."""
        cycle = self._newest()
        return cycle is not None and STRANGERS_BODY in cycle.scope

    def unread(self) -> int:
        """Bytes of answers that the peer has not taken."""
        return self.transport.get_write_buffer_size()

    def give_up(self, wait: Wait) -> None:
        """End a wait that took too long."""
        if wait in (Wait.READ, Wait.FAREWELL):
            self.transport.abort()
        elif wait is Wait.IDLE or self.scope is None:
            self.transport.close()
        else:
            self._refuse(_SLOW)

    def _unsent(self) -> int:
        # What lies below TLS only the system counts, which is never left without while more lies there.
        lying, sock = array("i", [self.unread()]), self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError, ValueError):  # It is closed already.
            if sock is not None and not lying[0]:
                fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, lying)
        return lying[0]

    def _in_body(self) -> bool:
        cycle = self._newest()
        return cycle is not None and cycle.scope is self.scope and cycle.more_body

    def _feed(self, data: bytes) -> bytes | None:
        """Parse ``data``. Returns the bytes behind a head that offers an upgrade; None where no head does."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            return data[offer.args[0] :]
        except httptools.HttpParserError as error:
            reason = error.__context__
            self._refuse(reason.answer if isinstance(reason, _RefusedError) else _MALFORMED)
        return None

    def _decline(self, rest: bytes) -> bytes | None:
        """Read a request as if it had not offered an upgrade, which RFC 9110, 7.8, allows. Returns what ``_feed`` does.

        Some clients offer HTTP/2 with each request. The parser stops behind such a head, as if ``rest`` were of another
        protocol. So a new parser is given the head without the offer, and ``rest`` behind it.
        """
        self._offered = False
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(_CONNECT)
            return None
        head = b"%s %s HTTP/%s\r\n%s\r\n" % (
            method,
            self.url,
            self.parser.get_http_version().encode(),
            b"".join([b"%s: %s\r\n" % field for field in _without_offer(self.headers)]),
        )
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return self._feed(head + rest)

    def _refuse(self, answer: bytes) -> None:
        """Read nothing more, since nobody knows where the next request would begin. ``answer`` is sent unless the
        answers to earlier requests are still to come."""
        self._deaf = True
        if self.transport.is_closing():
            return
        cycle = self._newest()
        if cycle is not None and self._in_body():
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()  # Others wait before it, and their answers come first.
                cycle.on_response = _nothing
                return
            if not cycle.response_started:
                self.transport.write(answer)
            self.transport.close()
        elif cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False  # Its answer says that the connection closes, and uvicorn closes it then.
        else:
            self.transport.write(answer)
            self.transport.close()


def _without_offer(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = []
    for name, value in fields:
        if name in (b"connection", b"proxy-connection"):
            tokens = [token.strip() for token in value.split(b",")]
            tokens = [token for token in tokens if token and token.lower() not in _UPGRADES]
            if tokens:
                kept.append((name, b", ".join(tokens)))
        elif name not in _UPGRADES:
            kept.append((name, value))
    return kept


def _nothing() -> None:
    return None
