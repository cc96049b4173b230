"""The gateway's settings; the only place of this service that reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from backhaul_common.secrets import SecretBox
from backhaul_common.settings import ChangeLogSettings, CommonSettings, ObjectStoreSettings, SecretKeySettings
from backhaul_common.sizes import MAX_BODY_BYTES
from pydantic import Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from backhaul_gateway.admission.admins import AdminToken, admin_tokens, digest
from backhaul_gateway.consolesettings import ConsoleSettings

Network = IPv4Network | IPv6Network


class GatewaySettings(ConsoleSettings, ObjectStoreSettings, SecretKeySettings, ChangeLogSettings, CommonSettings):
    """Each field's variable is its name in capitals behind ``BACKHAUL_``."""

    gateway_host: str = Field("127.0.0.1", description="The address to listen on.")
    gateway_port: int = Field(8080, ge=0, le=65535, description="The port of plain HTTP. 0 picks a free one.")
    gateway_http: bool = Field(True, description="Whether that port is listened on; false: HTTPS alone.")
    gateway_https_port: int = Field(
        8443, ge=0, le=65535, description="The port of HTTPS, where there is a certificate. 0 picks a free one."
    )
    gateway_tls_cert_file: FilePath | None = Field(
        None,
        description="The certificate that clients are shown, with its chain, PEM. It is read again when it changes. "
        "Empty: no HTTPS.",
    )
    gateway_tls_key_file: FilePath | None = Field(None, description="Its private key, PEM, without a passphrase.")
    gateway_enable_https_redirection: bool = Field(
        False,
        description="Whether what comes by plain HTTP is sent to the public base URL: GET and HEAD by 308, the rest by "
        "a 403 that names it. Callbacks are taken all the same.",
    )
    gateway_hsts_max_age_s: int = Field(
        2_592_000,
        ge=0,
        le=63_072_000,
        description="For how long a browser that was answered by HTTPS comes back by nothing else "
        "(Strict-Transport-Security). 0: it is not told.",
    )
    gateway_admin_token: SecretStr = Field(description="The bearer token of /admin, at least 16 characters.")
    gateway_admin_tokens: Annotated[tuple[AdminToken, ...], NoDecode] = Field(
        (),
        description="Further tokens of /admin, comma-separated, each <name>:<role>:<SHA-256 of the token in hex>. "
        "Roles are operator, support and auditor.",
    )
    gateway_admin_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="A port of its own for /admin, /metrics, /docs and /openapi.json, which are then found nowhere "
        "else. 0: they are on the gateway's port.",
    )
    gateway_admin_host: str = Field("", description="The address of that port; empty: the gateway's.")
    gateway_public_base_url: str = Field(
        "",
        description="How providers address this gateway, for example https://callbacks.example.com, without a slash "
        "at the end. Signatures are checked against it. Empty: http://host:port, or https:// where there is a "
        "certificate.",
    )
    gateway_plain_base_url: str = Field(
        "",
        description="How providers address it that still call http://: what signatures are checked against of what "
        "comes unencrypted. Empty: the public base URL; while redirection is on, the same host by http://.",
    )
    gateway_trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (),
        description="Networks (CIDR, comma-separated) whose X-Forwarded-For is believed when the client's address is "
        "logged, and whose X-Forwarded-Proto whether it called by https. They have no say in the URLs that signatures "
        "are checked against.",
    )
    gateway_normalizer_target: str = Field("127.0.0.1:50051", description="The normalizer's gRPC host:port.")
    gateway_suppression_target: str = Field(
        "127.0.0.1:50052", description="Suppression's gRPC host:port; empty: it is not installed."
    )
    gateway_audit_target: str = Field(
        "127.0.0.1:50053", description="Audit's gRPC host:port; empty: it is not installed."
    )
    gateway_reconciler_target: str = Field(
        "127.0.0.1:50054", description="The reconciler's gRPC host:port; empty: it is not installed."
    )
    gateway_notifier_target: str = Field(
        "127.0.0.1:50055", description="The notifier's gRPC host:port; empty: it is not installed."
    )
    gateway_tenant_data_targets: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Further services that keep tenants' data, as gRPC host:port, comma-separated. A tenant is gone "
        "when the normalizer and each of them has deleted what it keeps.",
    )
    gateway_publish_timeout_s: float = Field(
        3.0, gt=0, le=4.5, description="From a callback's last byte to JetStream's acknowledgement; 503 beyond."
    )
    gateway_spool_dir: Path | None = Field(
        None,
        description="A directory of this gateway alone, on a disk that outlives it. What JetStream does not store is "
        "kept there, answered as stored, and published as soon as it does. Empty: it is refused with 503.",
    )
    gateway_spool_max_bytes: int = Field(
        1 << 30,
        ge=16 << 20,
        description="Bytes of callbacks in the spool. A tenant may hold as much as is then still free: half of it when "
        "it is alone. 503 beyond.",
    )
    gateway_overdraft_callbacks: int = Field(
        50_000,
        ge=0,
        description="Callbacks of a tenant that are held in the spool's directory while they are over its rate or its "
        "share of CALLBACKS, or it is suspended, and stored later. Beyond, and with 0: 429, 503 or 403.",
    )
    gateway_overdraft_max_bytes: int = Field(
        64 << 20,
        ge=0,
        description="Bytes of these. Of all tenants together they take at most half of "
        "BACKHAUL_GATEWAY_SPOOL_MAX_BYTES, beside what that counts.",
    )
    gateway_overdraft_max_age_s: float = Field(
        86_400.0,
        gt=0,
        description="While a tenant's oldest callback has been held for longer, nothing more of it is. What is held "
        "stays.",
    )
    gateway_body_timeout_s: float = Field(
        30.0, gt=0, le=300, description="How long a request's body may take to arrive; 408 beyond."
    )
    gateway_head_timeout_s: float = Field(
        20.0, gt=0, le=300, description="How long a request's head may take to arrive, from the connection on."
    )
    gateway_keep_alive_s: float = Field(
        75.0,
        gt=0,
        le=3600,
        description="How long a connection may lie idle between requests. Longer than the load balancer's own (60 s is "
        "usual), so that it is never the gateway that hangs up.",
    )
    gateway_read_timeout_s: float = Field(
        30.0,
        gt=0,
        le=300,
        description="How long an answer may lie unread, and a second more for every 16 KiB of it.",
    )
    gateway_max_connections: int = Field(
        4000,
        ge=16,
        le=100_000,
        description="Open connections. Beyond, the oldest that only keep the gateway waiting are closed, or new ones "
        "refused. Each is an open file: fewer where the system allows fewer.",
    )
    gateway_max_held_bytes: int = Field(
        64 << 20,
        # Two of the largest bodies for a tenant, who may hold half of it when it is alone.
        ge=4 * MAX_BODY_BYTES,
        description="Bytes of bodies held at once, from their arrival until JetStream has them. A tenant may "
        "hold as much as is then still free: half of it when it is alone. 503 beyond.",
    )
    gateway_max_event_streams: int = Field(
        128,
        ge=1,
        le=10_000,
        description="Open streams of events (GET /v1/events/stream). A tenant may have 8; 429 "
        "beyond, and 503 where all are taken.",
    )
    gateway_leave_s: float = Field(
        0.5,
        ge=0,
        le=60,
        description="How long a gateway that is to stop serves on: not ready, so that balancers turn away, and each "
        "connection ends with its next answer.",
    )
    gateway_shutdown_grace_s: int = Field(10, ge=1, le=120, description="How long requests may take to end at a stop.")

    @field_validator("gateway_admin_token")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        token = value.get_secret_value()
        if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError(
                "must be at least 16 visible ASCII characters without blanks; make one with: openssl rand -hex 24"
            )
        return value

    @field_validator("gateway_admin_tokens", mode="before")
    @classmethod
    def _admins(cls, value: object) -> object:
        return admin_tokens(value) if isinstance(value, str) else value

    @field_validator("gateway_tls_cert_file", "gateway_tls_key_file", mode="before")
    @classmethod
    def _no_file_where_empty(cls, value: object) -> object:
        return value or None

    @field_validator("gateway_public_base_url", "gateway_plain_base_url")
    @classmethod
    def _an_origin(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment or "@" in value:
            raise ValueError("must be like https://callbacks.example.com: a scheme, a host, and no query")
        return value.rstrip("/")

    @field_validator("gateway_spool_dir", mode="before")
    @classmethod
    def _none_where_empty(cls, value: object) -> object:
        return value or None

    @field_validator("gateway_tenant_data_targets", mode="before")
    @classmethod
    def _targets(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("gateway_trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _keys_are_usable(self) -> GatewaySettings:
        try:
            keys = self.encryption_keys()
        except OSError as exc:
            raise ValueError(f"BACKHAUL_SECRET_KEYS_FILE cannot be read: {exc.strerror}") from exc
        try:
            SecretBox(keys)
        except ValueError as exc:
            raise ValueError(f"BACKHAUL_SECRET_KEYS holds what is no Fernet key: {exc}") from exc
        return self

    @model_validator(mode="after")
    def _tokens_are_apart(self) -> GatewaySettings:
        first = digest(self.gateway_admin_token.get_secret_value().encode())
        if any(token.digest == first for token in self.gateway_admin_tokens):
            raise ValueError("BACKHAUL_GATEWAY_ADMIN_TOKENS has the hash of BACKHAUL_GATEWAY_ADMIN_TOKEN")
        return self

    @model_validator(mode="after")
    def _ports_are_apart(self) -> GatewaySettings:
        # By the port alone: that is what a request is told apart by.
        if self.gateway_admin_port and self.gateway_admin_port in self._public_ports():
            raise ValueError(
                "BACKHAUL_GATEWAY_ADMIN_PORT must not be BACKHAUL_GATEWAY_PORT or BACKHAUL_GATEWAY_HTTPS_PORT; 0 keeps "
                "them together"
            )
        ports = [port for port in self._public_ports() if port]
        if len(set(ports)) < len(ports):
            raise ValueError("BACKHAUL_GATEWAY_HTTPS_PORT must not be BACKHAUL_GATEWAY_PORT")
        return self

    @model_validator(mode="after")
    def _https_is_whole(self) -> GatewaySettings:
        if (self.gateway_tls_cert_file is None) != (self.gateway_tls_key_file is None):
            raise ValueError("BACKHAUL_GATEWAY_TLS_CERT_FILE and BACKHAUL_GATEWAY_TLS_KEY_FILE are set together")
        if not self.gateway_http and not self.serves_https:
            raise ValueError("BACKHAUL_GATEWAY_HTTP is false: set BACKHAUL_GATEWAY_TLS_CERT_FILE, or nothing is served")
        if self.gateway_enable_https_redirection and not self.public_base_url(0).startswith("https://"):
            raise ValueError(
                "BACKHAUL_GATEWAY_ENABLE_HTTPS_REDIRECTION leads nowhere: set BACKHAUL_GATEWAY_PUBLIC_BASE_URL to an "
                "https:// address"
            )
        if self.gateway_enable_https_redirection and not self.serves_https and not self.gateway_trusted_proxies:
            raise ValueError(
                "BACKHAUL_GATEWAY_ENABLE_HTTPS_REDIRECTION would send everybody away: nothing that comes is known to "
                "be encrypted. Set BACKHAUL_GATEWAY_TLS_CERT_FILE and BACKHAUL_GATEWAY_TLS_KEY_FILE, or the network of "
                "the proxy that ends TLS in BACKHAUL_GATEWAY_TRUSTED_PROXIES"
            )
        return self

    def _public_ports(self) -> list[int]:
        return [self.gateway_port] * self.gateway_http + [self.gateway_https_port] * self.serves_https

    @property
    def serves_https(self) -> bool:
        """Whether there is a certificate."""
        return self.gateway_tls_cert_file is not None

    def keepers_of_data(self) -> Mapping[str, str]:
        """The services that keep tenants' data, by their targets: their names, or the target of one that has none."""
        names = {
            self.gateway_normalizer_target: "normalizer",
            self.gateway_suppression_target: "suppression",
            self.gateway_audit_target: "audit",
            self.gateway_reconciler_target: "reconciler",
            self.gateway_notifier_target: "notifier",
        }
        return {
            target: names.get(target, target)
            for target in (self.gateway_normalizer_target, *self.gateway_tenant_data_targets)
        }

    def public_base_url(self, port: int) -> str:
        """The configured one, or the address that is listened on. ``port`` is the real one: of HTTPS, where it is
        served."""
        return self.gateway_public_base_url or self._address("https" if self.serves_https else "http", port)

    def plain_base_url(self, port: int) -> str:
        """How what comes unencrypted was addressed; empty: as what is encrypted. ``port`` is the real one of HTTP, or
        0."""
        if self.gateway_plain_base_url or not port:
            return self.gateway_plain_base_url
        if not self.gateway_public_base_url:
            return self._address("http", port) if self.serves_https else ""
        if not self.gateway_enable_https_redirection:
            # It may have come through a proxy that ends TLS, and says nothing of it.
            return ""
        parts = urlsplit(self.gateway_public_base_url)
        return f"http://{parts.netloc.removesuffix(f':{parts.port}')}{parts.path}"

    def _address(self, scheme: str, port: int) -> str:
        host = f"[{self.gateway_host}]" if ":" in self.gateway_host else self.gateway_host
        return f"{scheme}://{host}:{port}"
