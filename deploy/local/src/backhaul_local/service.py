"""Backhaul's services as processes: what to start is data, one table each, in the pyproject.toml of the service."""

from __future__ import annotations

import http.client
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backhaul_local.errors import SettingError
from backhaul_local.member import START_TIMEOUT_S, Command, Member
from backhaul_local.ports import LOOPBACK, Hold, PortClaim, accepts_connections

SERVICES = Path(__file__).resolve().parents[4] / "services"
"""The services beside this package, which is only ever installed from the repository's own folder."""


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """One service: ``python -m <module>`` with an environment.

    ports: the ports that it listens on: a name for each, and the number that `up` uses unless told otherwise.
    env: values may refer to `{<port>}` (its own), `{<service>_<port>}` (another's), `{data_dir}` (a folder for what it
        keeps itself, which it makes) and the stack's values (`{admin_token}`); a literal brace is doubled, as in
        `str.format`.
    http_port: the port whose `GET /readyz` answers 200 when the service is ready, if it speaks HTTP.
    grpc_port: the port whose standard health service says SERVING when it is ready, if it speaks gRPC.
    grpc_tls: whether it speaks gRPC with certificates of the stack's own authority, as a server, a client, or both.
    python: the interpreter that runs it; no table names it. A service of another version needs what that version needs.
    """

    name: str
    module: str
    ports: Mapping[str, int] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    http_port: str | None = None
    grpc_port: str | None = None
    grpc_tls: bool = False
    python: str = sys.executable

    def port_settings(self) -> dict[str, str]:
        """Its settings that choose a port and nothing else, with the name that the stack has for the port."""
        return {
            setting: f"{self.name}_{port}"
            for port in self.ports
            for setting, value in self.env.items()
            if value in (f"{{{port}}}", f"{LOOPBACK}:{{{port}}}")
        }


def default_services(folder: Path = SERVICES) -> tuple[ServiceSpec, ...]:
    """Every service of the repository, in the order of starting: those that others call first.

    Each has the fields of its `ServiceSpec` in the table ``tool.backhaul.local`` of its pyproject.toml, but for the
    name, which is its folder's, the module and the interpreter. Raises `SettingError` for a key that is no such field.
    """
    specs = [_read(project) for project in folder.glob("*/pyproject.toml")]
    return tuple(sorted(specs, key=lambda spec: (spec.http_port is not None, spec.name)))


def service_spec(name: str) -> ServiceSpec:
    """That of the repository's service of this name."""
    return _read(SERVICES / name / "pyproject.toml")


def _read(project: Path) -> ServiceSpec:
    name = project.parent.name
    table = tomllib.loads(project.read_text()).get("tool", {}).get("backhaul", {}).get("local", {})
    if unknown := table.keys() - ({known.name for known in fields(ServiceSpec)} - {"name", "module", "python"}):
        raise SettingError(f"{project}: tool.backhaul.local knows no {', '.join(sorted(unknown))}.")
    return ServiceSpec(name=name, module=f"backhaul_{name}", **table)


class Service(Member):
    """A service with its ports chosen and its environment complete."""

    def __init__(
        self,
        spec: ServiceSpec,
        *,
        ports: Mapping[str, int],
        env: Mapping[str, str],
        log_path: Path,
        hold: Hold | None = None,
        start_timeout: float = START_TIMEOUT_S,
        stop_timeout: float = 15.0,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(spec.name, log_path, hold=hold, start_timeout=start_timeout, stop_timeout=stop_timeout)
        self.spec = spec
        self.ports = dict(ports)
        self.env = dict(env)
        self._prepare = prepare

    def claims(self) -> Sequence[PortClaim]:
        return [
            PortClaim(port, f"{self.name}, {name}", f"Stop it, or set BACKHAUL_LOCAL_PORTS={self.name}_{name}=PORT.")
            for name, port in self.ports.items()
        ]

    def command(self) -> Command:
        self._prepare()
        # Unbuffered, so that a line stands in the log file when it was said, also if kill -9 follows.
        return Command([self.spec.python, "-m", self.spec.module], {**self.env, "PYTHONUNBUFFERED": "1"})

    def probe(self) -> str | None:
        if self.spec.http_port is not None:
            missing = http_ready(self.ports[self.spec.http_port])
            if missing is not None:
                return missing
        if self.spec.grpc_port is not None:
            return grpc_serving(self.ports[self.spec.grpc_port], self._credentials())
        return None

    def _credentials(self) -> grpc.ChannelCredentials | None:
        files = [self.env.get(f"BACKHAUL_GRPC_TLS_{name}_FILE", "") for name in ("CA", "KEY", "CERT")]
        if not self.spec.grpc_tls or not all(files):
            return None
        authority, key, certificate = (Path(file).read_bytes() for file in files)
        return grpc.ssl_channel_credentials(authority, key, certificate)


def http_ready(port: int) -> str | None:
    """None when `GET /readyz` on the loopback port answers 200; otherwise what it answers."""
    if not accepts_connections(port):
        return f"nothing listens on port {port}"
    # Longer than readiness itself waits for what is away, so that its reason is heard.
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=4.0)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read(500)
    except (OSError, http.client.HTTPException) as error:
        return f"GET /readyz on port {port}: {error!r}"
    finally:
        connection.close()
    return None if response.status == 200 else f"GET /readyz: {response.status} {body.decode('utf-8', 'replace')}"


def grpc_serving(port: int, credentials: grpc.ChannelCredentials | None = None) -> str | None:
    """None when the gRPC health service on the loopback port says SERVING; otherwise what it says."""
    # A channel that failed to connect waits a second before it tries again; asking with plain TCP first, and with a
    # new channel each time, finds the server as soon as it is there.
    if not accepts_connections(port):
        return f"nothing listens on port {port}"
    # Never through the web proxy that the environment may name: gRPC would ask it even for the loopback address.
    target, options = f"{LOOPBACK}:{port}", [("grpc.enable_http_proxy", 0)]
    with (
        grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target, options)
    ) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=""), timeout=2.0)
        except grpc.RpcError as error:
            return f"gRPC health on port {port}: {error}"
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return None
    return f"gRPC health: {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}"


def fill_in(spec: ServiceSpec, values: Mapping[str, object]) -> dict[str, str]:
    """The environment of a spec with its references replaced; raises `SettingError` that names an unknown one."""
    filled: dict[str, str] = {}
    for key, template in spec.env.items():
        try:
            filled[key] = template.format_map(dict(values))
        except (KeyError, IndexError, ValueError) as error:
            known = ", ".join(sorted(values))
            raise SettingError(f"{spec.name}: {key}={template} refers to {error}; known are: {known}.") from None
    return filled
