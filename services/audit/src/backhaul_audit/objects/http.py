"""How requests leave: the only place where HTTP is more than what the ``minio`` client makes of it.

The client's public calls cannot ask for If-None-Match, but it takes the pool of connections that it sends by. The one
here adds the condition where an object comes into being: to a PUT of a whole object, and to the completion of one that
was sent in parts. The header is not among those that are signed, nor need it be.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from threading import Lock, Timer, local
from typing import Any
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary, WeakSet

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

CONNECT_S = 2.0
ANSWER_S = 10.0
"""How long an answer may take, and more by what was sent: see ``SLOWEST_BYTES_S``."""
SLOWEST_BYTES_S = 2 << 20
STALL_S = 10.0
"""How long nothing of a body may leave."""
COMPLETE_S = 60.0
"""How long a server may put parts together."""
MAX_CALL_S = 600.0
"""How long one call of the client may go on asking: for the largest file, or for page after page of a listing."""
MAX_ANSWER_BYTES = 16 << 20
"""Of an answer that is read as a whole: a page of a listing has some hundred kilobytes."""
_BLOCK_BYTES = 1 << 17


class NotS3(Exception):  # noqa: N818  # It is what was found there, as much as an error.
    """An answer that is none of S3's: a proxy's, or that of a server of another kind. ``status`` is HTTP's."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Deadline:
    """Ends what goes on over a connection when its time is over. A server that gives, or takes, a byte now and then
    never makes a socket wait for long, and would keep whoever waits for the whole."""

    def __init__(self, over: socket.socket | None) -> None:
        self.socket = over
        self.connection: HTTPConnection | None = None
        self.over = False
        self._lock = Lock()
        self._left = False

    def end(self) -> None:
        """Time is over."""
        with self._lock:
            if not self._left:
                self.over = True
                _shut(self.socket or (self.connection.sock if self.connection is not None else None))

    def leave(self) -> None:
        """Whoever waited does not any more: the connection is another's."""
        with self._lock:
            self._left = True


@contextmanager
def within(seconds: float, over: socket.socket | None = None) -> Iterator[_Deadline]:
    """What is done ``over`` a socket in this time. ``ReadTimeoutError`` where it takes longer."""
    deadline = _Deadline(over)
    timer = Timer(seconds, deadline.end)
    timer.daemon = True
    timer.start()
    try:
        yield deadline
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        if not deadline.over:
            raise
    finally:
        timer.cancel()
        deadline.leave()
    if deadline.over:
        raise too_long()


_calls = local()


@contextmanager
def one_call() -> Iterator[None]:
    """What this thread asks in here is one call: ``ReadTimeoutError`` where it goes on for longer than ``MAX_CALL_S``.
    A listing of which there is always one more page ends so."""
    _calls.ends = time.monotonic() + MAX_CALL_S
    try:
        yield
    finally:
        del _calls.ends


class Pool(urllib3.PoolManager):
    """Connections to one server. Nothing is tried twice, and no redirect is followed: it would lead the request, and
    what it shows, to wherever the answer says. With ``create`` nothing is replaced. Without ``tls``, https trusts whom
    this machine trusts."""

    def __init__(self, *, create: bool = False, connections: int = 8, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(maxsize=connections, retries=False, blocksize=_BLOCK_BYTES, ssl_context=tls)
        self._create = create
        self._open: WeakSet[HTTPConnection] = WeakSet()
        self._asking = local()
        self._streams: WeakKeyDictionary[urllib3.BaseHTTPResponse, socket.socket | None] = WeakKeyDictionary()
        opened, asking = self._open, self._asking

        class Plain(HTTPConnection):
            def connect(self) -> None:
                _connect(self, super().connect)
                opened.add(self)

            def request(self, *args: Any, **kw: Any) -> None:
                asking.deadline.connection = self
                super().request(*args, **kw)
                asking.deadline.socket = self.sock  # The connection lets go of it where an answer has no length.

        class Tls(HTTPSConnection):
            def connect(self) -> None:
                _connect(self, super().connect)
                opened.add(self)

            def request(self, *args: Any, **kw: Any) -> None:
                asking.deadline.connection = self
                super().request(*args, **kw)
                asking.deadline.socket = self.sock  # The connection lets go of it where an answer has no length.

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class TlsPool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Tls

        self.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}

    def urlopen(  # type: ignore[override]  # As urllib3's own, whose base is overridden in the same way.
        self, method: str, url: str, **kw: Any
    ) -> urllib3.BaseHTTPResponse:
        """See ``urllib3``. ``NotS3`` where the answer is none of S3's, or longer than any that is read as a whole."""
        if time.monotonic() > getattr(_calls, "ends", float("inf")):
            raise too_long()
        query = parse_qs(urlsplit(url).query, keep_blank_values=True)
        completes = method == "POST" and "uploadId" in query
        if self._create and (completes or (method == "PUT" and "uploadId" not in query)):
            kw["headers"]["If-None-Match"] = "*"
        body = kw.get("body") or b""
        if len(body) > _BLOCK_BYTES:
            # By blocks, so that the time that it may take to send one does not depend on how large the whole is.
            kw["body"] = BytesIO(body)
        answer_s = COMPLETE_S if completes else ANSWER_S + len(body) / SLOWEST_BYTES_S
        # What urllib3 calls the connect timeout is that of sending, too: see _connect.
        kw["timeout"] = urllib3.Timeout(connect=STALL_S, read=answer_s)
        streams = not kw.pop("preload_content", True)
        # As much for the request to leave as for the answer to come.
        with within(STALL_S + answer_s + len(body) / SLOWEST_BYTES_S) as deadline:
            self._asking.deadline = deadline
            response = super().urlopen(method, url, **{**kw, "redirect": False, "preload_content": False})
            kind = response.headers.get("content-type", "")
            if response.status >= 400 and method != "HEAD" and "application/xml" not in kind.split(";"):
                response.close()
                raise NotS3(response.status)
            if not streams or response.status >= 300:
                return _whole(response)
            self._streams[response] = deadline.socket
            return response

    def read(self, response: urllib3.BaseHTTPResponse, size: int) -> bytes:
        """The next ``size`` bytes of an object, as it is stored: urllib3 would inflate what says of itself that it is
        compressed. ``ReadTimeoutError`` where they come too slowly."""
        with within(ANSWER_S + size / SLOWEST_BYTES_S, self._streams.get(response)):
            return response.read(size, decode_content=False)

    def end(self) -> None:
        """Close every connection, also those on which somebody waits for an answer: that fails at once."""
        for connection in list(self._open):
            _shut(connection.sock)
        self.clear()


class Pieces:
    """What several pieces hold, for whoever reads: they are not put together as a whole."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = list(pieces)
        self._piece = 0
        self._offset = 0

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer at the end."""
        parts: list[bytes | memoryview] = []
        while size and self._piece < len(self._pieces):
            piece = self._pieces[self._piece]
            part: bytes | memoryview = piece
            if self._offset or len(piece) > size:
                part = memoryview(piece)[self._offset : self._offset + size]
            parts.append(part)
            size -= len(part)
            self._offset += len(part)
            if self._offset == len(piece):
                self._piece, self._offset = self._piece + 1, 0
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts[0]
        return b"".join(parts)


def too_long() -> urllib3.exceptions.ReadTimeoutError:
    """The error for what never waits for long, and takes too long as a whole."""
    return urllib3.exceptions.ReadTimeoutError(None, None, "It took too long as a whole.")  # type: ignore[arg-type]  # It only keeps them.


def _whole(response: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
    """The answer with all of its body, as it came: urllib3 would inflate what says of itself that it is compressed."""
    data = response.read(MAX_ANSWER_BYTES, decode_content=False)
    # Also where it has ended: only who reads beyond the end of an answer without a length lets go of it.
    if response.read(1, decode_content=False):
        response.close()
        raise NotS3(response.status)
    response.release_conn()
    return urllib3.HTTPResponse(
        BytesIO(data),
        headers=response.headers,
        status=response.status,
        version=response.version,
        reason=response.reason,
        decode_content=False,
    )


def _shut(sock: socket.socket | None) -> None:
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _connect(connection: HTTPConnection, connect: Any) -> None:
    whole = connection.timeout
    connection.timeout = CONNECT_S
    try:
        connect()
    finally:
        connection.timeout = whole
    if connection.sock is not None:
        connection.sock.settimeout(whole)
