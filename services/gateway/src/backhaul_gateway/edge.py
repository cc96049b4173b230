"""The outermost layer of the application.

An ingest is handed to its route at once: of the five layers that FastAPI puts around routes it needs none, and together
they cost a seventh of it. Around every other request: one log line, one count, a bounded body, and no answer but a
problem.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from backhaul_common.errors import CATALOGUE, BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.metrics import HTTP_REQUESTS, Metrics
from backhaul_common.tracing import Tracing, new_traceparent, traceparent_of
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from backhaul_gateway.accesslog import AccessLog
from backhaul_gateway.clients import ClientAddress
from backhaul_gateway.masking import masked
from backhaul_gateway.problems import of_error

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

INGEST_PATH = "/api/postevents"
_INGEST_LENGTH = len(INGEST_PATH)

MOST_BODY_BYTES = 256 * 1024
_ANY_CASE = frozenset({"/api/test", "/api/status"})
"""As the ingest's, these paths are written in any case."""

_QUIET = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds by machines: a line each would hide the others."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _too_large() -> HTTPException:
    """Starlette's own error, which FastAPI lets through while it reads a body."""
    return HTTPException(413, f"The body is larger than {MOST_BODY_BYTES} bytes.")


class Application(FastAPI):
    """FastAPI inside of an ``Edge``, which ``enclose`` is given before the first request."""

    enclose: Callable[[ASGIApp], ASGIApp] | None = None

    def build_middleware_stack(self) -> ASGIApp:
        """FastAPI's stack, enclosed."""
        stack = super().build_middleware_stack()
        return stack if self.enclose is None else self.enclose(stack)


class Edge:
    """See the module."""

    def __init__(
        self,
        app: App,
        *,
        hot_routes: Sequence[Route],
        access_log: AccessLog,
        metrics: Metrics,
        tracing: Tracing,
        clients: ClientAddress,
    ) -> None:
        self._app = app
        self._hot_routes = tuple(hot_routes)
        self._access_log = access_log
        self._requests = metrics.counter(HTTP_REQUESTS)
        self._tracing = tracing
        self._clients = clients
        self._log = get_logger(component="http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path[-_INGEST_LENGTH:].lower() == INGEST_PATH:
            if len(path) == _INGEST_LENGTH:
                # What the first route matches; asking it costs as much as authenticating.
                scope["path_params"] = {}
                await self._hot_routes[0].app(scope, receive, send)
                return
            for route in self._hot_routes:
                match, child_scope = route.matches(scope)
                if match is Match.FULL:
                    scope.update(child_scope)
                    await route.handle(scope, receive, send)
                    return
        await self._other(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        lowered = scope["path"].lower()
        if lowered in _ANY_CASE:
            scope["path"] = lowered
        path, method = _loggable(scope["path"]), scope["method"]
        status = 0
        complete = False
        size = 0

        async def counted_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MOST_BODY_BYTES:
                raise _too_large()
            return message

        async def observed_send(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            await send(message)

        incoming = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), "")
        with self._tracing.span(f"{method[:16]} {path[:100]}", parent=incoming or None) as span:
            traceparent = traceparent_of(span) or new_traceparent()
            scope["backhaul.traceparent"] = traceparent
            try:
                await self._app(scope, counted_receive, observed_send)
            except Exception as exc:  # noqa: BLE001  # the edge: whatever is unexpected is logged once and told to nobody
                self._log.error("request_failed", method=method, path=path, exc_info=exc)
                error = BackhaulError(Code.INTERNAL, CATALOGUE[Code.INTERNAL].title)
                # Starlette answers with the problem and raises all the same, so usually there is nothing left to do.
                if not complete:
                    await _answer(observed_send, error, traceparent, started=bool(status))
            span.set_attributes({"http.request.method": method, "http.response.status_code": status})
        self._requests.add(method if method in _METHODS else "other", str(status))
        if path not in _QUIET:
            tenant = scope.get("backhaul.tenant", "")
            self._access_log.write(
                time.time(),
                {
                    "event": "request",
                    "method": method,
                    "path": path,
                    "tenant": tenant,
                    "status": status,
                    "duration_ms": round((time.perf_counter() - began) * 1000, 2),
                    "client": self._clients.of(scope, scope["headers"]),
                    "trace_id": traceparent[3:35],
                },
            )


def _loggable(path: str) -> str:
    """The path without the ingest token that a mistyped callback URL may hold, not even one that is mistyped itself."""
    parts = masked(path).split("/", 3)
    if len(parts) > 2 and parts[1].lower() == "in":
        parts[2] = "***"
    return "/".join(parts)[:500]


async def _answer(send: Send, error: BackhaulError, traceparent: str, *, started: bool) -> None:
    if started:
        # Half an answer is out; cutting the connection is the only way left to say that it failed.
        raise error
    status, body, headers = of_error(error, traceparent[3:35])
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
