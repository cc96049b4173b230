"""The outermost layer of the application.

``Edge`` hands a callback to its endpoint at once. A callback needs none of the five layers that FastAPI puts around a
route, and they would cost a seventh of the time that it takes.

For every other request ``Edge`` decides whether it may come here, bounds its body in size and time, and writes one log
line and one count. Whatever goes wrong is answered with a problem document.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

from backhaul_common.errors import BackhaulError, Code, internal
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import HTTP_REQUESTS
from backhaul_common.sizes import MAX_HEADER_BYTES
from backhaul_common.tracing import Tracing, new_traceparent, trace_id_of, traceparent_of
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backhaul_gateway.admission.admins import AdminTokens
from backhaul_gateway.admission.attempts import WrongCredentials
from backhaul_gateway.admission.auth import unauthenticated
from backhaul_gateway.admission.principal import PRINCIPAL
from backhaul_gateway.web.accesslog import AccessLog
from backhaul_gateway.web.clients import ClientAddress
from backhaul_gateway.web.http import STEADY_BODY
from backhaul_gateway.web.https import EVERYWHERE, PERMANENT_REDIRECT, Fields, Https, first_segment
from backhaul_gateway.web.masking import masked
from backhaul_gateway.web.problems import TRACEPARENT, nothing_at, of_error
from backhaul_gateway.web.refusals import LATE_BODY, headers_too_large

INGEST_PATH = "/api/postevents"
_INGEST_LENGTH = len(INGEST_PATH)
_INGEST = re.compile("(?:/in/([^/]+))?" + INGEST_PATH, re.IGNORECASE)
_TOKEN = re.compile("/in/([^/]+)/oauth/token", re.IGNORECASE)

MAX_OTHER_BODY_BYTES = 256 * 1024
MAX_BODY = "backhaul.max_body"
"""Where a route that takes larger bodies says so in its request's scope, once it knows whose the body is."""

ANY_PORT = "backhaul.any_port"
"""Where the console says so in a request's scope, the platform team's paths are answered whatever port they have."""

MAX_ADDRESS_BYTES = 8 << 10
"""Of the path and the query together, but for callbacks. FastAPI parses them several times, at some 100 ns a byte."""

_MAX_LOGGED = 500
_ANY_CASE = frozenset({"/api/test", "/api/status"})
"""Paths that are answered in any case, as the ingest's are."""

_UNAUTHORIZED = 401
_ADMIN = "admin"
_CONSOLE = "console"
_ANYWHERE = EVERYWHERE | {_CONSOLE}
_APART = frozenset({_ADMIN, "metrics", "docs", "openapi.json"})
"""First segments of the paths that only the platform team needs, and that may have a port of their own."""

_QUIET = ("/healthz", "/readyz", "/metrics")
"""Machines ask these every few seconds. A log line for each would hide the others."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
"""Headers of every answer that does not have them already. They tell browsers to run nothing of it, and caches to keep
nothing of it."""


class Edge:
    """The ASGI application that the server calls; see the module."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        ingest: ASGIApp,
        admins: AdminTokens,
        wrong: WrongCredentials,
        admin_port: int,
        body_timeout_s: float,
        access_log: AccessLog,
        metrics: Metrics,
        tracing: Tracing,
        clients: ClientAddress,
        https: Https,
    ) -> None:
        """``admin_port`` is the only port that answers the platform team's paths, and answers no others; 0: each port
        answers all paths."""
        self.app = app
        """The application that answers everything but callbacks."""
        self._ingest = ingest
        self._admins = admins
        self._wrong = wrong
        self._admin_port = admin_port
        self._body_timeout_s = body_timeout_s
        self._access_log = access_log
        self._requests = metrics.counter(HTTP_REQUESTS)
        self._tracing = tracing
        self._clients = clients
        self._https = https
        self.console: ASGIApp | None = None
        """What answers ``/console``, where there is one. It asks this edge in turn, so it is made after it."""
        self._log = get_logger(component="http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the ingest's endpoint, or to the application."""
        path = scope["path"]
        if path[-_INGEST_LENGTH:].lower() == INGEST_PATH and not self._is_apart(scope):
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
        lowered = scope["path"].lower()
        if lowered in _ANY_CASE:
            scope["path"] = lowered
        elif (match := _TOKEN.fullmatch(scope["path"])) is not None:
            scope["path"] = f"/in/{match[1]}/oauth/token"
        strict = self._https.strict(scope, scope["headers"])
        exchange = _Exchange(scope, receive, send, self._body_timeout_s, self._refused, strict)
        incoming = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), "")
        with self._tracing.span(f"{exchange.method[:16]} {exchange.path[:100]}", parent=incoming or None) as span:
            scope[TRACEPARENT] = exchange.traceparent = traceparent_of(span) or new_traceparent()
            await self._answer(exchange)
            span.set_attributes({"http.request.method": exchange.method, "http.response.status_code": exchange.status})
        self._account(exchange)

    async def _refused(self, scope: Scope) -> bool:
        return await self._wrong.refused(self._clients.of(scope, scope["headers"]))

    async def _answer(self, exchange: _Exchange) -> None:
        """Let the application answer, or refuse. Raises only where an answer has begun that cannot be ended."""
        try:
            _refuse_large(exchange.scope)
            if url := self._https.elsewhere(exchange.scope):
                await exchange.redirect(url)
                return
            first = self._admit(exchange.scope)
            app = self.console if first == _CONSOLE and self.console is not None else self.app
            await app(exchange.scope, exchange.receive, exchange.send)
        except BackhaulError as exc:
            await exchange.answer(exc)
        except Exception as exc:  # noqa: BLE001  # the edge: whatever is unexpected is logged once and told to nobody
            self._log.error("request_failed", method=exchange.method, path=exchange.path, exc_info=exc)
            # Starlette answers with the problem and raises all the same, so usually there is nothing left to do.
            if not exchange.complete:
                await exchange.answer(internal())

    def _account(self, exchange: _Exchange) -> None:
        """Count the request, and write its line."""
        self._requests.add(exchange.method if exchange.method in _METHODS else "other", str(exchange.status))
        if exchange.path in _QUIET:
            return
        scope = exchange.scope
        self._access_log.write(
            time.time(),
            {
                "event": "request",
                "method": exchange.method,
                "path": exchange.path,
                "tenant": scope.get("backhaul.tenant", ""),
                "status": exchange.status,
                "duration_ms": round((time.perf_counter() - exchange.began) * 1000, 2),
                "client": self._clients.of(scope, scope["headers"]),
                "trace_id": trace_id_of(exchange.traceparent),
            },
        )

    def _admit(self, scope: Scope) -> str:
        """The first segment of the path of a request that may come here. One that may not is refused before its body is
        read: NOT_FOUND or UNAUTHENTICATED.

        The fixed parts of a path must not be percent-encoded. A proxy in front may keep strangers from ``/admin``, and
        take ``/%61dmin`` for another path.
        """
        sent = scope["raw_path"].split(b"/", 4)[1:4]
        first = first_segment(scope["path"])
        if any(b"%" in segment for segment in sent[: 3 if first == _ADMIN else 2]):
            raise nothing_at(scope["path"])
        misplaced = first not in _ANYWHERE and (first in _APART) != self._is_apart(scope)
        if self._admin_port and misplaced and ANY_PORT not in scope:
            raise nothing_at(scope["path"])
        if first == _ADMIN:
            # The console's visitor may be somebody whom an OpenID provider has vouched for.
            principal = scope.get(PRINCIPAL) or self._admins.of(scope["headers"])
            if principal is None:
                raise unauthenticated(
                    "The admin token is missing or wrong.", "Send it as Authorization: Bearer <admin token>."
                )
            scope[PRINCIPAL] = principal
        return first

    def _is_apart(self, scope: Scope) -> bool:
        """Whether the request came to the platform team's own port."""
        return self._admin_port != 0 and (scope.get("server") or ("", 0))[1] == self._admin_port


class _Exchange:
    """One request and its answer, as the application sees them: the body is bounded, the answer is observed."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        body_timeout_s: float,
        refused: Callable[[Scope], Awaitable[bool]],
        strict: Fields,
    ) -> None:
        self._refused = refused
        self._fields = (*_HEADERS, *strict)
        self.began = time.perf_counter()
        self.scope = scope
        self.method: str = scope["method"]
        self.path = _loggable(scope["path"])
        """As logs may show it."""
        self.traceparent = ""
        self.status = 0
        """Of the answer, once it has begun."""
        self.complete = False
        """Whether the answer is whole."""
        self._receive = receive
        self._send = send
        self._now = asyncio.get_running_loop().time
        self._timeout_s = body_timeout_s
        self._deadline = self._now() + body_timeout_s
        self._whole = False
        self._size = 0

    async def receive(self) -> Message:
        """The next part of the body, or the message that the client has gone.

        Raises Starlette's error for 413 and 408: FastAPI answers any other error in a body's reading with 400.
        """
        if self._whole:
            return await self._receive()
        if STEADY_BODY in self.scope:
            self.scope[STEADY_BODY] = object()
            self._deadline = self._now() + self._timeout_s
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, LATE_BODY) from None
        self._size += len(message.get("body", b""))
        limit: int = self.scope.get(MAX_BODY, MAX_OTHER_BODY_BYTES)
        if self._size > limit:
            raise HTTPException(413, f"The body is larger than {limit} bytes.")
        self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass a part of the answer to the server."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            if self.status == _UNAUTHORIZED and not await self._refused(self.scope):
                headers.append((b"connection", b"close"))
            names = {name for name, _ in headers}
            message = {**message, "headers": [*headers, *(field for field in self._fields if field[0] not in names)]}
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def redirect(self, url: str) -> None:
        """Answer with another address."""
        headers = [(b"location", url.encode("latin-1")), (b"content-length", b"0")]
        await self.send({"type": "http.response.start", "status": PERMANENT_REDIRECT, "headers": headers})
        await self.send({"type": "http.response.body", "body": b""})

    async def answer(self, error: BackhaulError) -> None:
        """Answer with a problem document.

        Raises ``error`` where an answer has begun. The server then cuts the connection, which is the only way left to
        say that the answer failed.
        """
        if self.status:
            raise error
        status, body, headers = of_error(error, trace_id_of(self.traceparent))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _refuse_large(scope: Scope) -> None:
    """TOO_LARGE for an address or headers that would take long to parse."""
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_ADDRESS_BYTES:
        raise BackhaulError(
            Code.TOO_LARGE, f"The address is longer than {MAX_ADDRESS_BYTES} bytes.", fix="Send a shorter one."
        )
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise headers_too_large()


def _loggable(path: str) -> str:
    """The path as logs may show it: short, without the ingest token that a mistyped callback URL may hold, and without
    the person whom it is about.

    What stands behind ``/in/`` is hidden whatever it is, since a mistyped token tells nearly as much.
    """
    # Cut before it is masked, for speed. What a cut leaves of a credential opens nothing.
    parts = masked(path[: 4 * _MAX_LOGGED]).split("/", 3)
    if len(parts) > 2 and parts[1].lower() == "in":
        parts[2] = "***"
    elif len(parts) > 3 and parts[2].lower() == "recipients":
        parts[3] = "***"
    return "/".join(parts)[:_MAX_LOGGED]
