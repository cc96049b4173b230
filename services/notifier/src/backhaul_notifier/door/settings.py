"""Settings of the door, for the service's own to derive from."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated
from urllib.parse import unquote, urlsplit

from backhaul_common.settings import Settings
from pydantic import Field, FilePath, SecretStr, field_validator
from pydantic_settings import NoDecode

from backhaul_notifier.door.dialing import Limits, Proxy

Network = IPv4Network | IPv6Network


class DoorSettings(Settings):
    """Read from ``BACKHAUL_…``; the defaults suit production."""

    notifier_plain_http: bool = Field(False, description="Whether endpoints are called by http:// as well.")
    notifier_allowed_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        (),
        description="Networks (CIDR, comma-separated) whose addresses are called though they are private, loopback or "
        "otherwise none of the Internet's. The addresses where clouds hand out a machine's credentials are called only "
        "where each stands here by itself.",
    )
    notifier_refused_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        (),
        description="Networks (CIDR, comma-separated) that are never called, such as your own public ones. Of two that "
        "hold an address, here and in the allowed ones, the narrower counts.",
    )
    notifier_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names, comma-separated, that are called whatever their addresses. Their DNS must be yours.",
    )
    notifier_allowed_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        (), description="Ports, comma-separated, on which endpoints are called; empty: all."
    )
    notifier_proxy_url: SecretStr = Field(
        SecretStr(""),
        description="The egress proxy, as http://user:password@host:port; empty: none. It must CONNECT to addresses, "
        "on every port that is called.",
    )
    notifier_ca_file: FilePath | None = Field(
        None, description="The authorities whose certificates endpoints may have, PEM; empty: those of the system."
    )
    notifier_max_connections: int = Field(
        1000, ge=1, le=100_000, description="Open connections to endpoints. Each is an open file."
    )

    @field_validator("notifier_allowed_networks", "notifier_refused_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        return tuple(ip_network(part) for part in _parts(value)) if isinstance(value, str) else value

    @field_validator("notifier_allowed_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        return tuple(part.lower().rstrip(".") for part in _parts(value)) if isinstance(value, str) else value

    @field_validator("notifier_allowed_ports", mode="before")
    @classmethod
    def _ports(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        ports = _parts(value)
        if not all(port.isascii() and port.isdigit() and 0 < int(port) < 65_536 for port in ports):
            raise ValueError("must be numbers from 1 to 65535, such as 443,8443")
        return tuple(int(port) for port in ports)

    @field_validator("notifier_proxy_url")
    @classmethod
    def _a_proxy(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            _proxy(value)
        return value

    def door_limits(self) -> Limits:
        """What may be called, beside addresses."""
        return Limits(
            self.notifier_plain_http, frozenset(self.notifier_allowed_ports), frozenset(self.notifier_allowed_hosts)
        )

    def door_proxy(self) -> Proxy | None:
        """The egress proxy."""
        return _proxy(self.notifier_proxy_url) if self.notifier_proxy_url.get_secret_value() else None


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _proxy(value: SecretStr) -> Proxy:
    refused = ValueError("must be like http://user:password@proxy.example.com:3128: by http, with a port and no path")
    try:
        parts = urlsplit(value.get_secret_value())
        port = parts.port
    except ValueError:
        raise refused from None
    if parts.scheme != "http" or not parts.hostname or port is None or parts.path.strip("/") or parts.query:
        raise refused
    credentials = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return Proxy(parts.hostname, port, credentials)
