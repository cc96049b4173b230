"""The client side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from grpc.aio import ClientCallDetails, Metadata

from backhaul_common.rpc import keepalive
from backhaul_common.rpc.errors import from_rpc
from backhaul_common.settings import CommonSettings
from backhaul_common.tracing import current_traceparent

DEADLINE_S = 5.0
"""A call that is given no timeout gets this one."""


class _Edge(grpc.aio.UnaryUnaryClientInterceptor):
    """Passes the trace on, sets a deadline, and rebuilds the server's typed error."""

    async def intercept_unary_unary(
        self,
        continuation: Callable[[ClientCallDetails, Any], Any],
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> Any:
        metadata = Metadata(*(client_call_details.metadata or ()))
        traceparent = current_traceparent()
        if traceparent:
            metadata.add("traceparent", traceparent)
        details = ClientCallDetails(
            method=client_call_details.method,
            timeout=client_call_details.timeout if client_call_details.timeout is not None else DEADLINE_S,
            metadata=metadata,
            credentials=client_call_details.credentials,
            wait_for_ready=client_call_details.wait_for_ready,
        )
        call = await continuation(details, request)
        try:
            return await call
        except grpc.aio.AioRpcError as exc:
            raise from_rpc(exc) from exc


def connect(target: str, settings: CommonSettings) -> grpc.aio.Channel:
    """A channel to ``target`` (host:port). It connects when first used, and again whenever it must."""
    options = [
        ("grpc.max_receive_message_length", 32 << 20),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        *keepalive.of_client(),
        # Internal services are never reached through a web proxy. The environment may name one for the outside world,
        # and gRPC would take it even to this very machine.
        ("grpc.enable_http_proxy", 0),
    ]
    if settings.grpc_tls_cert_file and settings.grpc_tls_key_file and settings.grpc_tls_ca_file:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=settings.grpc_tls_ca_file.read_bytes(),
            private_key=settings.grpc_tls_key_file.read_bytes(),
            certificate_chain=settings.grpc_tls_cert_file.read_bytes(),
        )
        return grpc.aio.secure_channel(target, credentials, options=options, interceptors=[_Edge()])
    return grpc.aio.insecure_channel(target, options=options, interceptors=[_Edge()])
