"""The outermost layer of the application.

An ingest is handed to its endpoint at once: of the five layers that FastAPI puts around routes it needs none, and
together they cost a seventh of it. Around every other request: who may come here at all, one log line, one count, a
body that is bounded in size and time, and no answer but a problem.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from backhaul_common.errors import CATALOGUE, BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.metrics import HTTP_REQUESTS, Metrics
from backhaul_common.tracing import Tracing, new_traceparent, traceparent_of
from starlette.exceptions import HTTPException

from backhaul_gateway.admission.auth import is_admin, unauthenticated
from backhaul_gateway.web.accesslog import AccessLog
from backhaul_gateway.web.clients import ClientAddress
from backhaul_gateway.web.masking import masked
from backhaul_gateway.web.problems import nothing_at, of_error
from backhaul_gateway.web.refusals import MAX_HEADER_BYTES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

INGEST_PATH = "/api/postevents"
_INGEST_LENGTH = len(INGEST_PATH)
_INGEST = re.compile("(?:/in/([^/]+))?" + INGEST_PATH, re.IGNORECASE)

MOST_BODY_BYTES = 256 * 1024
MOST_ADDRESS_BYTES = 8 << 10
"""Path and query of what is no ingest. Frameworks take them apart several times, at some 100 ns a byte."""

_LONGEST_LOGGED = 500
_ANY_CASE = frozenset({"/api/test", "/api/status"})
"""As the ingest's, these paths are written in any case."""

_ADMIN = "admin"
_APART = frozenset({_ADMIN, "metrics", "docs", "openapi.json"})
"""First segments of what is for the platform team only, and may listen on a port of its own."""

_QUIET = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds by machines: a line each would hide the others."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
"""Of every answer that does not say otherwise: what a browser makes of it, and that nobody keeps it."""


class Edge:
    """See the module."""

    def __init__(
        self,
        app: App,
        *,
        ingest: App,
        admin_token: str,
        admin_port: int,
        body_timeout_s: float,
        access_log: AccessLog,
        metrics: Metrics,
        tracing: Tracing,
        clients: ClientAddress,
    ) -> None:
        """``admin_port``: the only one that the platform team's paths are found on; 0: there is but one port."""
        self.app = app
        """What is inside."""
        self._ingest = ingest
        self._admin_token = admin_token
        self._admin_port = admin_port
        self._body_timeout_s = body_timeout_s
        self._access_log = access_log
        self._requests = metrics.counter(HTTP_REQUESTS)
        self._tracing = tracing
        self._clients = clients
        self._log = get_logger(component="http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        path = scope["path"]
        if path[-_INGEST_LENGTH:].lower() == INGEST_PATH:
            if len(path) == _INGEST_LENGTH:
                scope["path_params"] = {}
                await self._ingest(scope, receive, send)
                return
            match = _INGEST.fullmatch(path)
            if match is not None:
                scope["path_params"] = {"token": match[1]}
                await self._ingest(scope, receive, send)
                return
        await self._other(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        lowered = scope["path"].lower()
        if lowered in _ANY_CASE:
            scope["path"] = lowered
        path, method = _loggable(scope["path"]), scope["method"]
        exchange = _Exchange(receive, send, self._body_timeout_s)
        incoming = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), "")
        with self._tracing.span(f"{method[:16]} {path[:100]}", parent=incoming or None) as span:
            traceparent = traceparent_of(span) or new_traceparent()
            scope["backhaul.traceparent"] = traceparent
            try:
                _refuse_large(scope)
                self._admit(scope)
                await self.app(scope, exchange.receive, exchange.send)
            except BackhaulError as exc:
                await exchange.answer(exc, traceparent)
            except Exception as exc:  # noqa: BLE001  # the edge: whatever is unexpected is logged once and told to nobody
                self._log.error("request_failed", method=method, path=path, exc_info=exc)
                # Starlette answers with the problem and raises all the same, so usually there is nothing left to do.
                if not exchange.complete:
                    await exchange.answer(BackhaulError(Code.INTERNAL, CATALOGUE[Code.INTERNAL].title), traceparent)
            span.set_attributes({"http.request.method": method, "http.response.status_code": exchange.status})
        self._requests.add(method if method in _METHODS else "other", str(exchange.status))
        if path not in _QUIET:
            tenant = scope.get("backhaul.tenant", "")
            self._access_log.write(
                time.time(),
                {
                    "event": "request",
                    "method": method,
                    "path": path,
                    "tenant": tenant,
                    "status": exchange.status,
                    "duration_ms": round((time.perf_counter() - began) * 1000, 2),
                    "client": self._clients.of(scope, scope["headers"]),
                    "trace_id": traceparent[3:35],
                },
            )

    def _admit(self, scope: Scope) -> None:
        """Refuse, before anything of it is read, what has no business here: NOT_FOUND or UNAUTHENTICATED.

        The fixed parts of a path are compared as they were sent. A proxy's rules are about what it sees, and to many
        ``/%61dmin`` is not ``/admin``.
        """
        sent = scope["raw_path"].split(b"/", 4)[1:4]
        first = scope["path"].split("/", 2)[1].lower() if "/" in scope["path"] else ""
        if any(b"%" in segment for segment in sent[: 3 if first == _ADMIN else 2]):
            raise nothing_at(scope["path"])
        if first in _APART and self._admin_port and (scope.get("server") or ("", 0))[1] != self._admin_port:
            raise nothing_at(scope["path"])
        if first == _ADMIN and not is_admin(scope["headers"], self._admin_token):
            raise unauthenticated(
                "The admin token is missing or wrong.", "Send it as Authorization: Bearer <admin token>."
            )


class _Exchange:
    """One request and its answer, as the application sees them: bounded on the one side, observed on the other."""

    def __init__(self, receive: Receive, send: Send, body_timeout_s: float) -> None:
        self.status = 0
        """Of the answer, once it has begun."""
        self.complete = False
        """Whether the answer is whole."""
        self._receive = receive
        self._send = send
        self._deadline = asyncio.get_running_loop().time() + body_timeout_s
        self._whole = False
        self._size = 0

    async def receive(self) -> Message:
        """A part of the body, or that the client has gone. 413 or 408 as Starlette's own error, which FastAPI lets
        through while it reads a body."""
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            # What would still come on this connection belongs to a request that is over.
            raise HTTPException(408, "The body did not arrive in time.", headers={"connection": "close"}) from None
        self._size += len(message.get("body", b""))
        if self._size > MOST_BODY_BYTES:
            raise HTTPException(413, f"The body is larger than {MOST_BODY_BYTES} bytes.")
        self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            names = {name for name, _ in headers}
            message = {**message, "headers": [*headers, *(field for field in _HEADERS if field[0] not in names)]}
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def answer(self, error: BackhaulError, traceparent: str) -> None:
        """Answer with a problem. Raises it where an answer has begun: cutting the connection is then the only way left
        to say that it failed."""
        if self.status:
            raise error
        status, body, headers = of_error(error, traceparent[3:35])
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _refuse_large(scope: Scope) -> None:
    """Raise TOO_LARGE for what would cost more to look at than anybody's request is worth."""
    if len(scope["raw_path"]) + len(scope["query_string"]) > MOST_ADDRESS_BYTES:
        raise BackhaulError(
            Code.TOO_LARGE, f"The address is longer than {MOST_ADDRESS_BYTES} bytes.", fix="Send a shorter one."
        )
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise BackhaulError(
            Code.TOO_LARGE,
            f"The headers are larger than {MAX_HEADER_BYTES} bytes.",
            field="headers",
            fix="Send fewer or shorter headers; look whether a proxy adds them.",
        )


def _loggable(path: str) -> str:
    """The path without the ingest token that a mistyped callback URL may hold, not even one that is mistyped itself."""
    # Of a credential that is cut off here nothing is left that opens anything.
    parts = masked(path[: 4 * _LONGEST_LOGGED]).split("/", 3)
    if len(parts) > 2 and parts[1].lower() == "in":
        parts[2] = "***"
    return "/".join(parts)[:_LONGEST_LOGGED]
