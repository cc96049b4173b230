"""The gateway's own API as an httpx transport, without a network in between.

A request that the console makes for its visitor goes through the same edge as the visitor's own would: the same
admission, limits, log lines and log of changes, and it comes from where the visitor is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import httpx
from backhaul_console import Person
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Scope

from backhaul_gateway.admission.principal import PRINCIPAL, Principal
from backhaul_gateway.web.edge import ANY_PORT
from backhaul_gateway.web.problems import TRACEPARENT

_OF_PROXIES = (b"x-forwarded-for", b"x-forwarded-proto")
_ENDS_S = 2.0
"""How long a request may take to end of which nobody reads on."""
_AHEAD = 8
"""Pieces of an answer that wait for the console to take them."""


class InProcess(httpx.AsyncBaseTransport):
    """Asks ``app``, which answers as it would answer ``visitor``."""

    def __init__(self, app: ASGIApp, visitor: Request, person: Person | None, *, any_port: bool = False) -> None:
        """``any_port``: on whichever port the visitor is, the platform team's paths are there."""
        self._app = app
        self._any_port = any_port
        self._visitor = visitor.scope
        self._person = person

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, as soon as it begins. ReadTimeout, or ReadError where it breaks off."""
        answer = _Answer(self._app, self._scope(request), request)
        timeout_s = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(timeout_s):
                status, headers = await answer.begun()
        except TimeoutError:
            await answer.aclose()
            raise httpx.ReadTimeout("no answer", request=request) from None
        except BaseException:
            await answer.aclose()
            raise
        return httpx.Response(status, headers=headers, stream=answer)

    def _scope(self, request: httpx.Request) -> Scope:
        visitor = self._visitor
        sent, _, query = request.url.raw_path.partition(b"?")
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        headers += [(name, value) for name, value in visitor["headers"] if name in _OF_PROXIES]
        if TRACEPARENT in visitor:
            headers.append((b"traceparent", visitor[TRACEPARENT].encode()))
        scope = {
            "type": "http",
            "asgi": visitor["asgi"],
            "http_version": "1.1",
            "method": request.method,
            # Nothing lies between, so that it is encrypted as soon as it says so.
            "scheme": "https" if request.url.scheme == "https" else visitor["scheme"],
            "server": visitor.get("server"),
            "client": visitor.get("client"),
            "root_path": "",
            "path": unquote(sent.decode("ascii")),
            "raw_path": sent,
            "query_string": query,
            "headers": headers,
        }
        if self._person is not None:
            scope[PRINCIPAL] = Principal.admin(self._person.name, self._person.role)
        if self._any_port:
            scope[ANY_PORT] = True
        return scope


class _Answer(httpx.AsyncByteStream):
    """One request under way, and its answer piece by piece."""

    def __init__(self, app: ASGIApp, scope: Scope, request: httpx.Request) -> None:
        self._request = request
        self._pieces: asyncio.Queue[Message | None] = asyncio.Queue(_AHEAD)
        self._gone = asyncio.Event()
        self._sent: AsyncIterator[bytes] | None = self._body()
        self._task = asyncio.create_task(self._run(app, scope), name="console_asks")

    async def begun(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Status and headers."""
        message = await self._pieces.get()
        if message is None:
            raise self._broken()
        return message["status"], [*message.get("headers", ())]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._pieces.get()) is not None:
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                return
        raise self._broken()

    async def aclose(self) -> None:
        """Have the application notice that nobody reads on, and wait until it is done: what it does behind its answer
        belongs to it, as its log line."""
        self._gone.set()
        while not self._pieces.empty():
            self._pieces.get_nowait()
        done, _ = await asyncio.wait([self._task], timeout=_ENDS_S)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._take)
        finally:
            await self._take(None)

    async def _take(self, message: Message | None) -> None:
        """Hand on a piece. Where nobody reads on it is dropped, as a server does of a client that has gone."""
        if not self._gone.is_set():
            await self._pieces.put(message)

    async def _receive(self) -> Message:
        if self._sent is not None:
            piece = await anext(self._sent, None)
            if piece is not None:
                return {"type": "http.request", "body": piece, "more_body": True}
            self._sent = None
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _body(self) -> AsyncIterator[bytes]:
        stream: Any = self._request.stream
        async for piece in stream:
            yield piece

    def _broken(self) -> httpx.ReadError:
        cause = self._task.exception() if self._task.done() and not self._task.cancelled() else None
        return httpx.ReadError(f"the answer broke off: {cause!r}", request=self._request)
