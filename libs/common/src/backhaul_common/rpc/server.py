"""The server side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.trace import SpanKind

from backhaul_common.errors import CATALOGUE, BackhaulError, Code
from backhaul_common.lifecycle import Readiness, cancel
from backhaul_common.logs import get_logger
from backhaul_common.rpc import keepalive
from backhaul_common.rpc.errors import DETAILS_KEY, shortened, to_details
from backhaul_common.settings import CommonSettings
from backhaul_common.tracing import Tracing

LONGEST_CALL_S = 30.0
"""A call without a deadline gets this one."""

_QUIET = ("/grpc.health.v1.Health/", "/grpc.reflection.")


class _Edge(grpc.aio.ServerInterceptor):
    """Around every unary call: trace, deadline, one log line, and the only translation of errors."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._log = get_logger()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or handler.unary_unary is None or method.startswith(_QUIET):
            return handler
        call = handler.unary_unary
        metadata = dict(handler_call_details.invocation_metadata)

        async def wrapped(request: Any, context: Any) -> Any:
            began = time.perf_counter()
            code = "ok"
            with self._tracing.span(
                method.lstrip("/"), parent=str(metadata.get("traceparent", "")) or None, kind=SpanKind.SERVER
            ):
                try:
                    return await _bounded(call(request, context), context)
                except BackhaulError as exc:
                    code = exc.code.value
                    await _abort(context, exc)
                except (asyncio.CancelledError, grpc.aio.AbortError):
                    code = "cancelled"
                    raise
                except Exception as exc:  # noqa: BLE001  # the edge: whatever is unexpected becomes INTERNAL without detail
                    code = Code.INTERNAL.value
                    self._log.error("rpc_failed", method=method, exc_info=exc)
                    await _abort(context, BackhaulError(Code.INTERNAL, CATALOGUE[Code.INTERNAL].title))
                finally:
                    self._log.info(
                        "rpc",
                        method=method,
                        tenant=getattr(request, "tenant_id", ""),
                        outcome=code,
                        duration_ms=round((time.perf_counter() - began) * 1000, 2),
                    )

        return grpc.unary_unary_rpc_method_handler(
            wrapped, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )


async def _bounded(call: Awaitable[Any], context: Any) -> Any:
    remaining = context.time_remaining()
    limit_s = LONGEST_CALL_S if remaining is None else min(remaining, LONGEST_CALL_S)
    try:
        async with asyncio.timeout(limit_s) as deadline:
            return await call
    except TimeoutError:
        if not deadline.expired():
            raise  # The call's own, about something else that was slow.
        raise BackhaulError(Code.DEADLINE_EXCEEDED, "The call took longer than its deadline.") from None


async def _abort(context: Any, error: BackhaulError) -> None:
    await context.abort(
        error.meaning.grpc_status, shortened(error.message), trailing_metadata=((DETAILS_KEY, to_details(error)),)
    )


class Server:
    """A running server. ``port`` is the one it listens on."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self.grpc = server
        self.port = port


async def serve(
    stack: AsyncExitStack,
    settings: CommonSettings,
    tracing: Tracing,
    readiness: Readiness,
    *,
    listen: str,
    services: Sequence[str],
    register: Callable[[grpc.aio.Server], None],
) -> Server:
    """Start serving on ``listen`` (host:port, port 0 picks one), closed by ``stack``.

    ``services`` are the full names of what ``register`` adds: they appear in reflection, and in the health service,
    which follows ``readiness`` once a second.
    """
    server = grpc.aio.server(
        interceptors=[_Edge(tracing)],
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 << 20), *keepalive.of_server()],
    )
    register(server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    if settings.grpc_tls_cert_file and settings.grpc_tls_key_file and settings.grpc_tls_ca_file:
        credentials = grpc.ssl_server_credentials(
            [(settings.grpc_tls_key_file.read_bytes(), settings.grpc_tls_cert_file.read_bytes())],
            root_certificates=settings.grpc_tls_ca_file.read_bytes(),
            require_client_auth=True,
        )
        port = server.add_secure_port(listen, credentials)
    else:
        port = server.add_insecure_port(listen)
    names = ["", *services]
    for name in names:
        # Before the first question can come: the servicer begins with SERVING.
        await health_servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    await server.start()
    stack.push_async_callback(server.stop, 5)
    follow = asyncio.create_task(_follow(readiness, health_servicer, names), name="health")
    stack.push_async_callback(cancel, follow)
    return Server(server, port)


async def _follow(readiness: Readiness, servicer: Any, names: Sequence[str]) -> None:
    log = get_logger()
    last: dict[str, str] | None = None
    while True:
        failing = await readiness.failing()
        if failing != last:
            status = health_pb2.HealthCheckResponse.NOT_SERVING if failing else health_pb2.HealthCheckResponse.SERVING
            for name in names:
                await servicer.set(name, status)
            if failing:
                log.warning("not_ready", **failing)
            else:
                log.info("ready")
            last = failing
        # Readiness has no event of its own: it is the sum of what others report when asked.
        await asyncio.sleep(0.25 if failing else 1.0)
