"""The server side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from backhaul_common import tls
from backhaul_common.lifecycle import Readiness, cancel
from backhaul_common.logs import get_logger
from backhaul_common.metering import Counter
from backhaul_common.rpc import keepalive
from backhaul_common.rpc.access import Access
from backhaul_common.rpc.changes import CallLog
from backhaul_common.rpc.edge import Edge
from backhaul_common.rpc.naming import TenantRule
from backhaul_common.settings import GrpcSettings
from backhaul_common.sizes import MAX_REQUEST_BYTES
from backhaul_common.tracing import Tracing

STOP_GRACE_S = 5.0
"""How long calls that will end by themselves may take to do so when the server stops."""


class Server:
    """A running server. ``port`` is the one it listens on."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self.grpc = server
        self.port = port


async def serve(
    stack: AsyncExitStack,
    settings: GrpcSettings,
    tracing: Tracing,
    readiness: Readiness,
    *,
    listen: str,
    services: Sequence[str],
    register: Callable[[grpc.aio.Server], None],
    without_tenant: Collection[str] = (),
    access: Access | None = None,
    changes: CallLog | None = None,
    calls: Counter | None = None,
    frequent: Collection[str] = (),
    max_request_bytes: int = MAX_REQUEST_BYTES,
) -> Server:
    """Start serving on ``listen`` (host:port, port 0 picks one), closed by ``stack``.

    ``services`` are the full names of what ``register`` adds: they appear in reflection, and in the health service,
    which follows ``readiness`` once a second, and says NOT_SERVING before anything else stops. Every request must carry
    a ``tenant_id``, but for methods and services whose full names are in ``without_tenant``.

    With ``access`` each call is let in by its credential; health and reflection answer everybody. Handlers ask
    ``rpc.caller()`` who calls. What service accounts change is put down in ``changes``.

    ``calls`` counts them. ``frequent`` are full names of methods, as above: those whose calls have a line only
    where they fail or are slow. Requests of more than ``max_request_bytes`` are refused.
    """
    tenants = TenantRule(services, without_tenant)
    if access is not None:
        access.require_served(tenants.methods)
        if changes is not None:
            changes.require_decided(access.changing)
    often = {f"/{service}/{method}" for service, _, method in (name.rpartition(".") for name in frequent)}
    if unknown := often.difference(tenants.methods):
        raise ValueError(f"called often, and not served: {', '.join(sorted(unknown))}")
    edge = Edge(tracing, tenants, access, changes=changes, calls=calls, frequent=often)
    server = grpc.aio.server(
        interceptors=[edge],
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", max_request_bytes),
            *keepalive.of_server(),
        ],
    )
    register(server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = _listening(server, listen, tls.server_credentials(settings))
    names = ["", *services]
    for name in names:
        # Before the first question can come: the servicer begins with SERVING.
        await health_servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    await server.start()

    async def stop() -> None:
        # Whoever watches goes elsewhere at once. A watcher that takes no answers must not hold the stop.
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await health_servicer.enter_graceful_shutdown()
        edge.stop()
        await server.stop(STOP_GRACE_S)

    stack.push_async_callback(stop)
    follow = asyncio.create_task(_follow(readiness, health_servicer, names), name="health")
    stack.push_async_callback(cancel, follow)
    return Server(server, port)


def _listening(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> int:
    """The port. OSError where it cannot be had; gRPC tells of its own variables for debugging."""
    try:
        return server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    except RuntimeError as exc:
        raise OSError(
            f"No gRPC server can listen on {listen}: it is no address of this machine, another program listens there, "
            "or an outgoing connection has its port for a moment. Choose another, or start again."
        ) from exc


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
