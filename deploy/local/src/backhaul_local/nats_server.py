"""A real nats-server with JetStream."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backhaul_local.binaries import find_nats_server
from backhaul_local.member import Command, Member
from backhaul_local.ports import LOOPBACK, Band, PortClaim, choose_ports


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


class NatsServer(Member):
    def __init__(self, config: NatsConfig) -> None:
        super().__init__("nats", config.log_path or config.data_dir / "nats.log")
        self.config = config
        self._port = config.port

    @property
    def port(self) -> int:
        if self._port == 0:
            (self._port,) = choose_ports(1, Band.NATS)
        return self._port

    @property
    def uri(self) -> str:
        return f"nats://{LOOPBACK}:{self.port}"

    def claims(self) -> Sequence[PortClaim]:
        remedy = "Stop it, use it with BACKHAUL_NATS_URL, or set BACKHAUL_LOCAL_PORTS=nats=PORT."
        return [PortClaim(self.port, "NATS", remedy)]

    def command(self) -> Command:
        self.config.data_dir.mkdir(parents=True, exist_ok=True)
        config_path = self.config.data_dir / "nats.conf"
        config_path.write_text(self._config_text(), encoding="utf-8")
        return Command([str(find_nats_server()), "--config", str(config_path)], dict(os.environ))

    def probe(self) -> str | None:
        """Speak the first words of the protocol: JetStream is recovered before clients are let in."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1.0) as connection:
                stream = connection.makefile("rb")
                info = stream.readline()
                connection.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
                answer = stream.readline()
        except OSError as error:
            return f"no connection ({error})"
        if not info.startswith(b"INFO ") or b'"jetstream":true' not in info:
            return f"no JetStream, it greets with {info[:200]!r}"
        return None if answer.startswith(b"PONG") else f"no PONG, it answers {answer!r}"

    def _config_text(self) -> str:
        sync = "sync_interval: always" if self.config.sync_always else "# sync_interval: the server's default"
        # JSON strings are valid in this format, and quote a path with blanks or quotes correctly.
        store = json.dumps(str(self.config.data_dir / "jetstream"))
        return (
            f"listen: {LOOPBACK}:{self.port}\n"
            f"server_name: backhaul-local\n"
            f"max_payload: {self.config.max_payload}\n"
            "jetstream {\n"
            f"  store_dir: {store}\n"
            f"  max_file_store: {self.config.max_file_store}\n"
            f"  {sync}\n"
            "}\n"
        )
