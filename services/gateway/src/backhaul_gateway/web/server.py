"""The HTTP server: uvicorn, with connections that are bounded, on all of the gateway's ports."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import uvicorn
from backhaul_common.certificates import Files, UnfitError
from backhaul_common.metering import Metrics
from backhaul_common.service import Service
from starlette.types import ASGIApp

from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.web.connections import Connections, Patience
from backhaul_gateway.web.http import BoundedProtocol
from backhaul_gateway.web.https import Origins
from backhaul_gateway.web.tls import HANDSHAKE_S, MAX_HANDSHAKES, TlsDoor, server_context

BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class Listeners:
    """The bound sockets, and how whoever comes through them has addressed the gateway."""

    plain: Sequence[socket.socket]
    secure: Sequence[socket.socket]
    certificate: Files[ssl.SSLContext] | None
    """Of those that are ``secure``."""
    http_port: int
    """0 where there is no plain HTTP."""
    https_port: int
    """0 where there is no HTTPS."""
    origins: Origins

    @property
    def all(self) -> list[socket.socket]:
        return [*self.plain, *self.secure]


class Server(uvicorn.Server):
    """uvicorn's server, which leaves the signals of the process to the code that runs it, and has doors with TLS."""

    def __init__(
        self,
        config: uvicorn.Config,
        listeners: Listeners,
        connections: Connections,
        *,
        handshake_s: float,
        leave_s: float,
    ) -> None:
        super().__init__(config)
        self._listeners = listeners
        self._connections = connections
        self._handshake_s = handshake_s
        self._leave_s = leave_s
        self._doors: list[TlsDoor] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none. Whoever runs the server sets ``should_exit`` instead."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  # as uvicorn calls it
        """Begin with every port; ``sockets`` are all of ``listeners``."""
        await super().startup(list(self._listeners.plain))
        certificate = self._listeners.certificate
        if certificate is None:
            return
        for listener in self._listeners.secure:
            missed = self._connections.missed
            door = TlsDoor(
                listener,
                self._protocol,
                certificate,
                missed,
                handshake_s=self._handshake_s,
                shutdown_s=self._connections.longest_read_s,
            )
            door.open(BACKLOG)
            self._doors.append(door)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on for a moment, then take no more connections on any port, and let requests end.

        Balancers keep connections, and one that is closed while a request comes over it cuts that request off: a
        provider does not repeat it. After that moment those in use have been told to close.
        """
        self._connections.leave()
        await asyncio.sleep(self._leave_s)
        for door in self._doors:
            await door.close()
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn makes it for a connection of its own."""
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # BoundedProtocol has its watch
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def connections_of(settings: GatewaySettings, metrics: Metrics) -> Connections:
    """The bounds on connections that are configured."""
    patience = Patience(
        head_s=settings.gateway_head_timeout_s,
        # Later than the application's own limit, as the application's answer says what went wrong.
        body_s=settings.gateway_body_timeout_s * 1.25 + 2,
        idle_s=settings.gateway_keep_alive_s,
        read_s=settings.gateway_read_timeout_s,
    )
    doors = (1 + bool(settings.gateway_admin_port)) if settings.serves_https else 0
    return Connections(patience, settings.gateway_max_connections, metrics, handshakes=doors * MAX_HANDSHAKES)


def server_of(app: ASGIApp, settings: GatewaySettings, connections: Connections, listeners: Listeners) -> Server:
    """The server. Every option that is not uvicorn's default has its reason here."""
    config = uvicorn.Config(
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
        backlog=BACKLOG,
        timeout_graceful_shutdown=settings.gateway_shutdown_grace_s,
    )
    handshake_s = min(HANDSHAKE_S, settings.gateway_head_timeout_s)
    return Server(config, listeners, connections, handshake_s=handshake_s, leave_s=settings.gateway_leave_s)


def listen(service: Service, settings: GatewaySettings) -> Listeners:
    """Bind the public sockets, and behind them the platform team's where it has a port of its own, which has TLS where
    the public has. ``service`` closes them, and looks after the certificate.

    Raises SystemExit, naming the setting, when an address cannot be had, or the certificate cannot be served.
    """
    certificate = _certificate(service, settings)

    def bound(host: str, port: int, setting: str) -> socket.socket:
        listener = _bound(host, port, setting)
        service.stack.callback(listener.close)
        return listener

    plain, secure, host = [], [], settings.gateway_host
    if settings.gateway_http:
        plain.append(bound(host, settings.gateway_port, "BACKHAUL_GATEWAY_PORT"))
    if certificate is not None:
        secure.append(bound(host, settings.gateway_https_port, "BACKHAUL_GATEWAY_HTTPS_PORT"))
    http_port, https_port = (int(some[0].getsockname()[1]) if some else 0 for some in (plain, secure))
    if port := settings.gateway_admin_port:
        admin = bound(settings.gateway_admin_host or host, port, "BACKHAUL_GATEWAY_ADMIN_PORT")
        (plain if certificate is None else secure).append(admin)
    origins = Origins(settings.public_base_url(https_port or http_port), settings.plain_base_url(http_port))
    return Listeners(plain, secure, certificate, http_port, https_port, origins)


def _certificate(service: Service, settings: GatewaySettings) -> Files[ssl.SSLContext] | None:
    if settings.gateway_tls_cert_file is None or settings.gateway_tls_key_file is None:
        return None
    try:
        certificate = Files(server_context, settings.gateway_tls_cert_file, settings.gateway_tls_key_file)
    except UnfitError as exc:
        raise SystemExit(f"BACKHAUL_GATEWAY_TLS_CERT_FILE: cannot serve the certificate: {exc}") from exc
    service.watch("https", certificate)
    return certificate


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
