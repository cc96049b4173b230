"""A real nats-server with JetStream."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from backhaul_local.binaries import find_nats_server
from backhaul_local.certificates import authority_path, certificate_path, client_context, key_path
from backhaul_local.files import write_private
from backhaul_local.member import START_TIMEOUT_S, Command, Member
from backhaul_local.ports import LOOPBACK, Band, Hold, PortClaim


@dataclass(frozen=True, kw_only=True)
class NatsConfig:
    """`sync_always` makes JetStream's acknowledgement mean "on the disk", which is what Backhaul promises with its 200.

    Port 0: a free one is chosen at the first start and kept.
    """

    data_dir: Path
    port: int = 0
    log_path: Path | None = None
    sync_always: bool = True
    max_payload: str = "8MB"
    max_file_store: str = "10GB"
    user: str = "backhaul"
    password: str = field(default="", repr=False)
    """Empty: whoever reaches the port may do everything."""
    tls_dir: Path | None = None
    """Where the certificates of ``nats`` and ``probe`` are, and in a cluster that of ``ROUTE``: without one of their
    authority nobody is let in."""
    name: str = "nats"
    """Its own among the servers of one cluster."""
    route_port: int = 0
    routes: Sequence[int] = ()
    """The ports where the servers of a cluster speak with each other, ``route_port`` among them. None: it is alone."""


ROUTE = "nats-route"
"""The certificate by which the servers of a cluster know each other. It is a client's as well, as that of ``nats`` is
not."""


def tls_of_nats(folder: Path, *, name: str = "nats", maps: bool = False) -> dict[str, object]:
    """The server's setting, with the certificate of ``name``. With ``maps`` a client is the user that its own names."""
    return {
        "cert_file": str(certificate_path(folder, name)),
        "key_file": str(key_path(folder, name)),
        "ca_file": str(authority_path(folder)),
        "verify_and_map" if maps else "verify": True,
    }


class NatsServer(Member):
    def __init__(self, config: NatsConfig, *, start_timeout: float = START_TIMEOUT_S) -> None:
        super().__init__(config.name, config.log_path or config.data_dir / "nats.log", start_timeout=start_timeout)
        self.config = config
        self._port = config.port

    @property
    def port(self) -> int:
        if self._port == 0:
            (self._port,) = self._hold.choose(1, Band.NATS)
        return self._port

    @property
    def uri(self) -> str:
        """The address, with the credentials where there are any."""
        config = self.config
        credentials = f"{quote(config.user)}:{quote(config.password, safe='')}@" if config.password else ""
        return f"nats://{credentials}{LOOPBACK}:{self.port}"

    def claims(self) -> Sequence[PortClaim]:
        remedy = "Stop it, use it with BACKHAUL_NATS_URL, or set BACKHAUL_LOCAL_PORTS=nats=PORT."
        claims = [PortClaim(self.port, "NATS", remedy)]
        if self.config.routes:
            claims.append(PortClaim(self.config.route_port, "NATS, its cluster"))
        return claims

    def command(self) -> Command:
        self.config.data_dir.mkdir(parents=True, exist_ok=True)
        config_path = self.config.data_dir / "nats.conf"
        write_private(config_path, self._config_text())
        return Command([str(find_nats_server()), "--config", str(config_path)], dict(os.environ))

    def probe(self) -> str | None:
        """Speak the first words of the protocol: JetStream is recovered before clients are let in."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1.0) as plain:
                # Unbuffered: what follows the first line may be TLS already.
                info = plain.makefile("rb", buffering=0).readline()
                with self._encrypted(plain) as connection:
                    options: dict[str, object] = {"verbose": False}
                    if self.config.password:
                        options |= {"user": self.config.user, "pass": self.config.password}
                    connection.sendall(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
                    answer = connection.makefile("rb").readline()
        except OSError as error:
            return f"no connection ({error})"
        if not info.startswith(b"INFO ") or b'"jetstream":true' not in info:
            return f"no JetStream, it greets with {info[:200]!r}"
        return None if answer.startswith(b"PONG") else f"no PONG, it answers {answer!r}"

    def _encrypted(self, plain: socket.socket) -> socket.socket:
        if self.config.tls_dir is None:
            return plain
        return client_context(self.config.tls_dir).wrap_socket(plain, server_hostname=LOOPBACK)

    def _config_text(self) -> str:
        sync = "sync_interval: always" if self.config.sync_always else "# sync_interval: the server's default"
        # JSON strings are valid in this format, and quote a path with blanks or quotes correctly.
        store = json.dumps(str(self.config.data_dir / "jetstream"))
        authorization = ""
        if self.config.password:
            user, password = json.dumps(self.config.user), json.dumps(self.config.password)
            authorization = f"authorization {{ user: {user}, password: {password} }}\n"
        return (
            f"listen: {LOOPBACK}:{self.port}\n"
            f"server_name: {self._server_name()}\n"
            f"max_payload: {self.config.max_payload}\n"
            f"{authorization}"
            f"{self._tls_text('nats')}\n"
            f"{self._cluster_text(authorization)}"
            "jetstream {\n"
            f"  store_dir: {store}\n"
            f"  max_file_store: {self.config.max_file_store}\n"
            f"  {sync}\n"
            "}\n"
        )

    def _tls_text(self, name: str) -> str:
        folder = self.config.tls_dir
        return "" if folder is None else json.dumps({"tls": tls_of_nats(folder, name=name)})[1:-1]

    def _server_name(self) -> str:
        # A server that is alone keeps the name that it always had.
        return self.config.name if self.config.routes else "backhaul-local"

    def _cluster_text(self, authorization: str) -> str:
        config = self.config
        if not config.routes:
            return ""
        who = f"{quote(config.user)}:{quote(config.password, safe='')}@" if config.password else ""
        routes = ", ".join(f'"nats://{who}{LOOPBACK}:{port}"' for port in config.routes if port != config.route_port)
        # The address is said to clients as well, which then know all servers, whichever they were given.
        return (
            "cluster {\n"
            "  name: backhaul-local\n"
            f"  listen: {LOOPBACK}:{config.route_port}\n"
            f"  {authorization.strip()}\n"
            f"  {self._tls_text(ROUTE)}\n"
            f"  routes: [{routes}]\n"
            "}\n"
        )


def nats_cluster(
    config: NatsConfig, nodes: int, *, hold: Hold, start_timeout: float = START_TIMEOUT_S
) -> list[NatsServer]:
    """The servers of one cluster, or the one that is alone: ``nats``, ``nats-2``, ``nats-3``.

    Each has a folder of its own beside that of ``config``, which is the first one's. ``hold`` is what chooses the ports
    where they speak with each other.
    """
    if nodes == 1:
        return [NatsServer(config, start_timeout=start_timeout)]
    routes = hold.choose(nodes, Band.NATS)
    servers = []
    for number, route_port in enumerate(routes, 1):
        one = replace(config, route_port=route_port, routes=routes)
        if number > 1:
            name = f"{config.name}-{number}"
            log_path = config.log_path.with_name(f"{name}.log") if config.log_path else None
            folder = config.data_dir.with_name(f"{config.data_dir.name}-{number}")
            one = replace(one, name=name, port=0, data_dir=folder, log_path=log_path)
        servers.append(NatsServer(one, start_timeout=start_timeout))
    return servers
