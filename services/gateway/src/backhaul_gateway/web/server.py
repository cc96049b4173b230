"""The HTTP server: uvicorn, with connections that are bounded."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial

import uvicorn
from backhaul_common.metrics import Metrics
from starlette.types import ASGIApp

from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.web.connections import Connections, Patience
from backhaul_gateway.web.http import BoundedProtocol


class Server(uvicorn.Server):
    """uvicorn's server, which leaves the signals of the process to the code that runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none. Whoever runs the server sets ``should_exit`` instead."""
        yield


def connections_of(settings: GatewaySettings, metrics: Metrics) -> Connections:
    """The bounds on connections that are configured."""
    patience = Patience(
        head_s=settings.gateway_head_timeout_s,
        # Later than the application's own limit, as the application's answer says what went wrong.
        body_s=settings.gateway_body_timeout_s * 1.25 + 2,
        idle_s=settings.gateway_keep_alive_s,
        read_s=settings.gateway_read_timeout_s,
    )
    return Connections(patience, settings.gateway_max_connections, metrics)


def server_of(app: ASGIApp, settings: GatewaySettings, connections: Connections) -> Server:
    """The server. Every option that is not uvicorn's default has its reason here."""
    return Server(
        uvicorn.Config(
            app,
            # httptools takes twice as many requests a second as h11. ``connections`` also bounds idle connections, in
            # place of uvicorn's own timer.
            http=partial(BoundedProtocol, watch=connections),  # type: ignore[arg-type]  # uvicorn only calls it
            ws="none",
            lifespan="off",  # The composition root opens and closes what the application uses.
            log_config=None,  # structlog has the logging already.
            access_log=False,  # The gateway writes one line a request already, at a fraction of the price.
            proxy_headers=False,  # uvicorn would believe X-Forwarded-For; ClientAddress knows which proxies to trust.
            server_header=False,
            backlog=4096,
            timeout_graceful_shutdown=settings.gateway_shutdown_grace_s,
        )
    )


def listen(stack: AsyncExitStack, settings: GatewaySettings) -> list[socket.socket]:
    """Bind the public socket, and behind it the platform team's where it has a port of its own. ``stack`` closes them.

    Raises SystemExit, naming the setting, when an address cannot be had.
    """
    wanted = [(settings.gateway_host, settings.gateway_port, "BACKHAUL_GATEWAY_PORT")]
    if settings.gateway_admin_port:
        host = settings.gateway_admin_host or settings.gateway_host
        wanted.append((host, settings.gateway_admin_port, "BACKHAUL_GATEWAY_ADMIN_PORT"))
    listeners = []
    for host, port, setting in wanted:
        listeners.append(_bound(host, port, setting))
        stack.callback(listeners[-1].close)
    return listeners


def _bound(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise SystemExit(f"{setting}: cannot listen on {host}:{port}: {exc}") from exc
    return listener
