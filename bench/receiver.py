"""A tenant's endpoint, in a process of its own: ``python receiver.py`` prints its port, and answers until it is ended.

``POST /answer`` is answered at once, ``POST /hang`` never. What the bench asks of it, by GET and in JSON: ``/count``
says how many calls came and how many hang, ``/take`` gives what came since it was asked last, ``/release`` ends the
connections that hang.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Calls:
    """What came."""

    def __init__(self) -> None:
        self.count = 0
        self.arrived: list[tuple[str, float]] = []
        self.latest = b""
        self.hanging: list[asyncio.Transport] = []

    def called(self, request: bytes, body: bytes, now: float) -> None:
        """A call came: the message and the state that it tells, and when, by the clock that all processes have."""
        self.count += 1
        self.latest = request
        self.arrived.append((f"{_value(body, b'message_id')}:{_value(body, b'provider_status')}", now))

    def asked(self, path: bytes) -> object:
        """What the bench is told."""
        if path == b"/count":
            return {"calls": self.count, "hanging": sum(not one.is_closing() for one in self.hanging)}
        if path == b"/release":
            for transport in self.hanging:
                transport.abort()
            self.hanging.clear()
            return {}
        arrived, self.arrived = self.arrived, []
        return {"arrived": arrived, "latest": self.latest.decode("latin-1")}


class _Connection(asyncio.Protocol):
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        end = received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        at = received[:end].lower().find(b"content-length:")
        length = int(received[at + 15 : end].partition(b"\r\n")[0]) if at >= 0 else 0
        if len(received) < end + length:
            return
        self._received = b""
        method, path, _ = received.split(b" ", 2)
        if method == b"GET":
            body = json.dumps(self._calls.asked(path)).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            return
        self._calls.called(received, received[end:], time.perf_counter())
        if path == b"/hang":
            self._calls.hanging.append(self._transport)
        else:
            self._transport.write(_ANSWER)


def _value(body: bytes, name: bytes) -> str:
    return body.partition(b'"%b":"' % name)[2].partition(b'"')[0].decode()


async def main() -> None:
    """Serve until ended."""
    calls = Calls()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(calls), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
