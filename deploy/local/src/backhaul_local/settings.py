"""The settings of `up`: flags and environment, read in this module only."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from backhaul_local.errors import SettingError
from backhaul_local.member import START_TIMEOUT, START_TIMEOUT_S, start_timeout_s
from backhaul_local.service import default_services
from backhaul_local.stack import Credentials, ObjectStoreAccess, StackConfig

SERVER_PORTS = {"nats": 4222, "mongo": 27017, "s3": 8333}

_PORTS = "BACKHAUL_LOCAL_PORTS"
_TLS = "BACKHAUL_LOCAL_TLS"
_STORE = "BACKHAUL_OBJECT_STORE_"
# Settings that mean nothing here: what `up` prints and the demo asks is about one port of the gateway, and one number
# cannot be the metrics port of several processes on one machine.
IGNORED = ("BACKHAUL_GATEWAY_ADMIN_HOST", "BACKHAUL_GATEWAY_ADMIN_PORT", "BACKHAUL_METRICS_PORT")
# Settings that the stack acts on itself and hands to the services in its own words.
_TAKEN = {
    _PORTS,
    _TLS,
    START_TIMEOUT,
    *IGNORED,
    "BACKHAUL_NATS_URL",
    "BACKHAUL_MONGO_URI",
    "BACKHAUL_MONGO_DATABASE",
    "BACKHAUL_SECRET_KEYS",
    "BACKHAUL_GATEWAY_ADMIN_TOKEN",
    *(_STORE + name for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "BUCKET")),
}


@dataclass(frozen=True, kw_only=True)
class UpSettings:
    data_dir: Path
    ports: Mapping[str, int]
    server_logs: bool
    with_object_store: bool
    tls: bool
    start_timeout_s: float
    environ: Mapping[str, str] = field(repr=False)

    def stack_config(self, kept: Credentials) -> StackConfig:
        """What to run, with the data folder's credentials where the environment gives none."""
        environ = self.environ
        credentials = kept
        if token := environ.get("BACKHAUL_GATEWAY_ADMIN_TOKEN"):
            credentials = replace(credentials, admin_token=token)
        if keys := environ.get("BACKHAUL_SECRET_KEYS"):
            credentials = replace(credentials, secret_keys=[key.strip() for key in keys.split(",")])
        taken = _TAKEN | port_settings().keys()
        passed_on = {key: value for key, value in environ.items() if key.startswith("BACKHAUL_") and key not in taken}
        return StackConfig(
            data_dir=self.data_dir,
            log_dir=self.data_dir / "logs",
            ports=self.ports,
            nats_url=environ.get("BACKHAUL_NATS_URL") or None,
            mongo_uri=environ.get("BACKHAUL_MONGO_URI") or None,
            mongo_database=environ.get("BACKHAUL_MONGO_DATABASE") or "backhaul",
            object_store=_object_store(environ),
            with_object_store=self.with_object_store,
            tls=self.tls,
            credentials=credentials,
            log_format="console",
            start_timeout=self.start_timeout_s,
            base_env={key: value for key, value in environ.items() if not key.startswith("BACKHAUL_")},
            env=passed_on,
        )

    @property
    def token_from_environment(self) -> bool:
        return bool(self.environ.get("BACKHAUL_GATEWAY_ADMIN_TOKEN"))


def read_settings(argv: Sequence[str], environ: Mapping[str, str]) -> UpSettings:
    """Flags win over the environment, the environment over the defaults; raises `SettingError` naming a bad value."""
    parser = argparse.ArgumentParser(
        prog="python -m backhaul_local up",
        description="Run the servers and every service on this machine until Ctrl-C.",
        epilog="A server given by BACKHAUL_NATS_URL, BACKHAUL_MONGO_URI or BACKHAUL_OBJECT_STORE_ENDPOINT is "
        f"used instead of a local one. {', '.join(IGNORED[:-1])} and {IGNORED[-1]} mean nothing here: /admin is on the "
        "gateway's own port, and the metrics have ports by name. Every other BACKHAUL_ variable is handed on to the "
        "services.",
    )
    parser.add_argument("--data-dir", type=Path, help="default: .backhaul at the project's root")
    parser.add_argument(
        "--port",
        action="append",
        default=[],
        metavar="NAME=PORT",
        help=f"another port, repeatable; in the environment {_PORTS}=nats=4333,gateway_http=8081; "
        f"names: {', '.join(default_ports())}",
    )
    parser.add_argument("--no-object-store", action="store_true", help="start no S3 server")
    parser.add_argument(
        "--tls", action="store_true", help=f"speak TLS with the servers that are started; in the environment {_TLS}=1"
    )
    parser.add_argument("--server-logs", action="store_true", help="show the servers' logs too, not only the services'")
    parser.add_argument(
        "--start-timeout",
        metavar="SECONDS",
        help=f"how long each server and service may take until it is ready, {START_TIMEOUT_S:g} unless told otherwise; "
        f"in the environment {START_TIMEOUT}",
    )
    arguments = parser.parse_args(argv)
    ports = default_ports()
    for setting, name in port_settings().items():
        if value := environ.get(setting):
            ports[name] = _port(setting, value.rpartition(":")[2])
    chosen = [item for item in environ.get(_PORTS, "").split(",") if item.strip()]
    for source, item in [(_PORTS, item) for item in chosen] + [("--port", item) for item in arguments.port]:
        name, _, number = item.strip().partition("=")
        if name not in ports:
            raise SettingError(f"{source}: there is no port named {name!r}; there are {', '.join(ports)}.")
        ports[name] = _port(source, number)
    return UpSettings(
        data_dir=(arguments.data_dir or _project_root() / ".backhaul").resolve(),
        ports=ports,
        server_logs=arguments.server_logs,
        with_object_store=not arguments.no_object_store,
        tls=arguments.tls or _switch(environ),
        start_timeout_s=start_timeout_s(environ, arguments.start_timeout),
        environ=environ,
    )


def default_ports() -> dict[str, int]:
    """Every port of the local stack by name, with the number that it has unless told otherwise."""
    services = {f"{spec.name}_{port}": number for spec in default_services() for port, number in spec.ports.items()}
    return {**services, **SERVER_PORTS}


def port_settings() -> dict[str, str]:
    """Services' own settings that only choose a port, with the port's name: the stack asks there for readiness."""
    found = {setting: name for spec in default_services() for setting, name in spec.port_settings().items()}
    return {setting: name for setting, name in found.items() if setting not in IGNORED}


def _project_root() -> Path:
    """The nearest folder upwards that looks like this project; the working directory outside of it."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "deploy" / "local" / "pyproject.toml").is_file():
            return folder
    return here


def _switch(environ: Mapping[str, str]) -> bool:
    value = environ.get(_TLS, "")
    if value not in ("", "0", "1"):
        raise SettingError(f"{_TLS}: {value!r} is neither 1 nor 0.")
    return value == "1"


def _port(source: str, text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65_535:
        raise SettingError(f"{source}: {text!r} is not a port number (0 to 65535, 0 for any free one).")
    return int(text)


def _object_store(environ: Mapping[str, str]) -> ObjectStoreAccess | None:
    endpoint = environ.get(_STORE + "ENDPOINT")
    if not endpoint:
        return None
    missing = [_STORE + name for name in ("ACCESS_KEY", "SECRET_KEY") if not environ.get(_STORE + name)]
    if missing:
        raise SettingError(f"{_STORE}ENDPOINT is given, so {' and '.join(missing)} must be too.")
    return ObjectStoreAccess(
        endpoint=endpoint,
        access_key=environ[_STORE + "ACCESS_KEY"],
        secret_key=environ[_STORE + "SECRET_KEY"],
        bucket=environ.get(_STORE + "BUCKET") or "backhaul",
    )
