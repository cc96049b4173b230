"""One request and its answer, over a connection of the ``Connector``: aiohttp's pool and parser without its session.

A session makes objects of the request's URL, headers, cookies, body and writer, and of the answer, that nothing here
looks at; they take longer than sending and reading. What is left of them is what stands here.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import ClientTimeout
from aiohttp.client_reqrep import ConnectionKey

from backhaul_notifier.door.connector import Attempt, Connector, Peer
from backhaul_notifier.door.outcome import STOOD_STILL, DoorError, Failure, Request
from backhaul_notifier.door.target import Target

if TYPE_CHECKING:
    from aiohttp import StreamReader
    from aiohttp.http_parser import RawResponseMessage

_NO_LIMIT: Final = ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=None)
_CONTINUES: Final = range(100, 200)
_SWITCHES: Final = 101


@dataclass(slots=True)
class Wanted:
    """What the connector asks of a request."""

    connection_key: ConnectionKey
    attempt: Attempt
    tls: ssl.SSLContext | None
    proxy: None = None


@dataclass(slots=True)
class Answer:
    """What came back, and the first bytes of its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def exchange(
    connector: Connector, request: Request, attempt: Attempt, tls: ssl.SSLContext | None, status: list[int]
) -> Answer:
    """Send ``request`` and read its answer. ``status`` gets the answer's as soon as it is known.

    Whether it may be sent is asked in the turn of the loop in which it is.
    """
    target = attempt.target
    # Who shows one certificate gets no connection of who shows another, nor does one tenant get another's. The last is
    # the name that a certificate is to have, which is the host's here, and is only compared.
    key = ConnectionKey(target.host, target.port, tls is not None, tls or True, None, None, None, request.of)
    wanted: Any = Wanted(key, attempt, tls)
    connection = await connector.connect(wanted, [], _NO_LIMIT)
    if not attempt.may_send():
        connection.release()
        raise DoorError(Failure.NO_ROOM, STOOD_STILL)
    try:
        peer = cast(Peer, connection.protocol)
        peer.begin(attempt)
        peer.send(_written(request, target))
        message, content = await _head(peer, target)
        status.append(message.code)
        # Most answers are whole by now.
        most = request.answer_bytes
        body = content.read_nowait(most) if content.is_eof() else await _beginning(content, most)
        if content.at_eof() and peer.has_sent:
            connection.release()
        else:
            # Whatever else comes is not read, or goes is not waited for, and the connection is of no more use.
            connection.close()
    except BaseException:
        connection.close()
        raise
    finally:
        attempt.over()
    return Answer(message.code, message.headers, body)


def _written(request: Request, target: Target) -> bytes:
    """The request on the wire. Its headers were required to be such as can be written."""
    lines = [f"{request.method} {target.rest} HTTP/1.1\r\nHost: {target.authority}\r\n"]
    if "accept-encoding" not in map(str.lower, request.headers):
        lines.append("Accept-Encoding: identity\r\n")
    lines += [f"{name}: {value}\r\n" for name, value in request.headers.items()]
    if request.method == "GET":
        return "".join((*lines, "\r\n")).encode()
    lines.append(f"Content-Length: {len(request.body)}\r\n\r\n")
    return "".join(lines).encode() + request.body


async def _head(peer: Peer, target: Target) -> tuple[RawResponseMessage, StreamReader]:
    """An answer's head, and what its body is read from."""
    message, content = await peer.read()
    while message.code in _CONTINUES and message.code != _SWITCHES:
        message, content = await peer.read()
    if message.code < _CONTINUES.start:
        raise DoorError(Failure.PROTOCOL_ERROR, f"{target.host} answered with a status that is none.")
    return message, content


async def _beginning(content: StreamReader, most: int) -> bytes:
    found = b""
    while len(found) < most and not content.at_eof():
        found += await content.read(most - len(found))
    return found
