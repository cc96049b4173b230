"""Settings, read once from the environment or from files: those that belong to no service, in classes that a service
takes together.

A service's own ``settings.py`` derives from ``CommonSettings``, and from whatever else here it uses; nothing else reads
``BACKHAUL_`` variables. OpenTelemetry reads the standard ``OTEL_`` variables itself; ``tracing`` and ``metrics`` only
look whether they name an endpoint.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self, TypeVar, get_args

from pydantic import Field, FilePath, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

PREFIX = "BACKHAUL_"

FOLDER = PREFIX + "SETTINGS_DIR"
"""Names a folder whose files are settings, each called as its variable. What the environment says itself wins."""

MIN_INTERNAL_TOKEN = 32
"""Characters of a token that services show each other."""

TlsServer = Literal["nats", "mongodb", "object-store"]

S = TypeVar("S", bound="Settings")


class Settings(BaseSettings):
    """The variable of a field is its name in capitals behind ``BACKHAUL_``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """How names of this class's variables began (behind ``BACKHAUL_``), and how they begin now. The start refuses the
    old ones: if they were ignored, a setting would be lost without a word."""


class LogSettings(Settings):
    """How to log."""

    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class TlsSettings(Settings):
    """This service's certificate, and where it is shown."""

    grpc_tls_cert_file: FilePath | None = Field(None, description="This service's certificate chain, PEM.")
    grpc_tls_key_file: FilePath | None = Field(None, description="Its private key, PEM.")
    grpc_tls_ca_file: FilePath | None = Field(
        None, description="The authority that both sides must present a certificate of."
    )
    tls_servers: str = Field(
        "",
        description="Servers that are spoken to with this certificate and authority too, and never without TLS: nats, "
        "mongodb, object-store, comma-separated. Others are spoken to as their URLs say.",
    )

    @field_validator("tls_servers")
    @classmethod
    def _servers_are_known(cls, value: str) -> str:
        if unknown := [name for name in _names(value) if name not in get_args(TlsServer)]:
            raise ValueError(f"there is no server {', '.join(unknown)}; there are {', '.join(get_args(TlsServer))}")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        given = [self.grpc_tls_cert_file, self.grpc_tls_key_file, self.grpc_tls_ca_file]
        if any(given) and not all(given):
            raise ValueError(
                "BACKHAUL_GRPC_TLS_CERT_FILE, _KEY_FILE and _CA_FILE belong together: set all three or none"
            )
        if _names(self.tls_servers) and not all(given):
            raise ValueError("BACKHAUL_TLS_SERVERS needs BACKHAUL_GRPC_TLS_CERT_FILE, _KEY_FILE and _CA_FILE")
        return self

    def servers_with_tls(self) -> frozenset[str]:
        """Those of ``tls_servers``."""
        return frozenset(_names(self.tls_servers))


class NatsSettings(TlsSettings):
    """Where NATS is."""

    nats_url: str = Field(
        "nats://127.0.0.1:4222",
        description="One or more servers, comma-separated. A connection that goes silent is left for another one "
        "within 10 s.",
    )
    nats_credentials_file: FilePath | None = Field(None, description="A NATS .creds file.")


class StreamSettings(Settings):
    """What the streams are like. Every service keeps them in line, so all must have the same."""

    stream_replicas: int = Field(1, ge=1, le=5, description="Copies of each stream: 1 locally, 3 in a cluster.")
    stream_max_age_s: float = Field(
        7 * 86400, ge=1, le=100 * 365 * 86400, description="How long stored callbacks and events can be replayed."
    )
    stream_max_bytes: int = Field(
        -1, ge=-1, description="Size of each stream; when full, publishing fails. Shares of tenants are parts of it."
    )

    @field_validator("stream_max_bytes")
    @classmethod
    def _zero_is_no_size(cls, value: int) -> int:
        # JetStream reads 0 as unlimited, which is the opposite of what it says.
        if value == 0:
            raise ValueError("must be a number of bytes, or -1 for no limit")
        return value


class MongoSettings(TlsSettings):
    """Where MongoDB is."""

    mongo_uri: SecretStr = Field(SecretStr("mongodb://127.0.0.1:27017/?replicaSet=rs0"), description="A replica set.")
    mongo_database: str = Field("backhaul", pattern=r"^[A-Za-z0-9_-]{1,48}$")
    mongo_transaction_lifetime_s: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="MongoDB's transactionLifetimeLimitSeconds, where a service may not ask for it (getParameter). "
        "Deleting a tenant waits until transactions that began before are over.",
    )

    @model_validator(mode="after")
    def _one_says_what_tls_is_like(self) -> Self:
        options = self.mongo_uri.get_secret_value().partition("?")[2]
        if "mongodb" in self.servers_with_tls() and re.search(
            r"(?i)(^|&)(?!(tls|ssl)=true(&|$))(tls|ssl)\w*=", options
        ):
            raise ValueError(
                "BACKHAUL_MONGO_URI has options for TLS, and BACKHAUL_TLS_SERVERS names mongodb, by which "
                "BACKHAUL_GRPC_TLS_… hold for it: remove one of the two"
            )
        return self


class GrpcSettings(TlsSettings):
    """What services that speak gRPC with each other show each other."""

    internal_token: SecretStr = Field(
        SecretStr(""),
        description="What Backhaul's own services show each other: tokens of at least 32 characters, comma-separated. "
        "The first is shown, all are taken. Where it is set, gRPC without one of them is refused.",
    )

    @field_validator("internal_token")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        for token in _parts(value):
            if len(token) < MIN_INTERNAL_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
                raise ValueError(
                    f"must be tokens of at least {MIN_INTERNAL_TOKEN} visible ASCII characters without blanks, "
                    "separated by commas; make one with: openssl rand -hex 24"
                )
        return value

    def internal_tokens(self) -> tuple[str, ...]:
        """Those that are taken, the one that is shown first; empty where none is set."""
        return _parts(self.internal_token)


class CommonSettings(LogSettings, NatsSettings, StreamSettings, MongoSettings, GrpcSettings):
    """What every service has: see ``Service``."""


class ChangeLogSettings(Settings):
    """For the gateway, and for services that service accounts may change something in."""

    gateway_change_retention_days: int = Field(
        400,
        ge=1,
        le=36_500,
        description="How long an entry of the log of changes is kept that is written from now on. The same for every "
        "service.",
    )


class CallersSettings(CommonSettings, ChangeLogSettings):
    """For services that others than Backhaul's own may call, by their service accounts."""

    @model_validator(mode="after")
    def _own_services_are_known(self) -> CallersSettings:
        if not self.internal_tokens():
            raise ValueError(
                "BACKHAUL_INTERNAL_TOKEN is empty: this service could not tell Backhaul's own services from others. "
                "Set the same for every service; make one with: openssl rand -hex 24"
            )
        return self


class MetricsPortSettings(CommonSettings):
    """For services without HTTP of their own."""

    metrics_host: str = Field("127.0.0.1", description="The address that the Prometheus port listens on.")
    metrics_port: int = Field(0, ge=0, le=65535, description="Prometheus port of services without HTTP; 0 is off.")


class SecretKeySettings(Settings):
    """For services that encrypt what they store, or read what is encrypted."""

    secret_keys: SecretStr = Field(
        SecretStr(""), description="Fernet keys, comma-separated, newest first: the first encrypts, all decrypt."
    )
    secret_keys_file: FilePath | None = Field(None, description="The same, one key a line, instead of secret_keys.")

    def encryption_keys(self) -> list[str]:
        """The key ring, newest first. Raises ValueError naming the variable when there is none."""
        if self.secret_keys_file is not None:
            text = self.secret_keys_file.read_text("utf-8").replace("\n", ",")
        else:
            text = self.secret_keys.get_secret_value()
        keys = [key.strip() for key in text.split(",") if key.strip()]
        if not keys:
            raise ValueError(
                "BACKHAUL_SECRET_KEYS (or BACKHAUL_SECRET_KEYS_FILE) is empty: it must hold at least one Fernet key "
                "(32 random bytes in URL-safe base64); make one with: openssl rand -base64 32 | tr '+/' '-_'"
            )
        return keys


class ObjectStoreSettings(TlsSettings):
    """Where object storage is, for services that use it or tell of it."""

    renamed: ClassVar[Mapping[str, str]] = {"GATEWAY_OBJECT_STORE_": "OBJECT_STORE_"}

    object_store_endpoint: str = Field(
        "", pattern=r"^(https?://[^/@?#]+/?)?$", description="The URL of the S3 service; empty: not configured."
    )
    object_store_access_key: SecretStr = SecretStr("")
    object_store_secret_key: SecretStr = SecretStr("")
    object_store_bucket: str = Field("backhaul", min_length=1)
    object_store_region: str = Field(
        "",
        pattern=r"^[a-z0-9-]{0,32}$",
        description="The bucket's region; empty: what Amazon's endpoint names, and us-east-1 elsewhere.",
    )
    object_store_public_endpoint: str = Field(
        "",
        pattern=r"^(https?://[^/@?#]+/?)?$",
        description="The URL by which tenants reach the S3 service, for links; empty: as object_store_endpoint.",
    )

    @model_validator(mode="after")
    def _object_store_is_whole(self) -> ObjectStoreSettings:
        keys = (self.object_store_access_key, self.object_store_secret_key)
        if self.object_store_endpoint and not all(key.get_secret_value() for key in keys):
            raise ValueError(
                "BACKHAUL_OBJECT_STORE_ENDPOINT needs _ACCESS_KEY and _SECRET_KEY too: set all three or none"
            )
        if self.object_store_endpoint.startswith("http:") and "object-store" in self.servers_with_tls():
            raise ValueError(
                "BACKHAUL_OBJECT_STORE_ENDPOINT must begin with https://, as BACKHAUL_TLS_SERVERS names object-store"
            )
        return self


def load(settings_type: type[S]) -> S:
    """The settings from the environment, and from the files of the folder that ``FOLDER`` names; when one is invalid or
    has an old name, says which on standard error and exits with 2."""
    folder = os.environ.get(FOLDER) or None
    if refused := [*_old_names(settings_type), *_unusable(folder)]:
        sys.stderr.writelines(refused)
        raise SystemExit(2)
    try:
        return settings_type(_secrets_dir=folder)
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_input=False, include_context=False):
            name = "_".join(str(part) for part in error["loc"]).upper()
            sys.stderr.write(f"BACKHAUL_{name}: {error['msg']}\n" if name else f"{error['msg']}\n")
        raise SystemExit(2) from None
    except SettingsError as exc:
        # A list or mapping that is no JSON; the message names the field.
        sys.stderr.write(f"{exc}\n")
        raise SystemExit(2) from None


def _parts(value: SecretStr) -> tuple[str, ...]:
    return _names(value.get_secret_value())


def _names(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _unusable(folder: str | None) -> Iterator[str]:
    """A line if there is no such folder, and one for each of its files that may not be read."""
    if folder is None:
        return
    if not os.access(folder, os.R_OK | os.X_OK) or not Path(folder).is_dir():
        yield f"{FOLDER}: {folder} is no folder that can be read; mount it, or let this user ({os.getuid()}) read it.\n"
        return
    for file in sorted(Path(folder).iterdir()):
        if file.name.upper().startswith(PREFIX) and not os.access(file, os.R_OK):
            yield f"{file.name.upper()}: {file} cannot be read; let this user ({os.getuid()}) read it.\n"


def _old_names(settings_type: type[Settings]) -> Iterator[str]:
    # By the beginning of a name, so that one that is misspelt as well is found.
    renamed = {old: new for kind in settings_type.__mro__ for old, new in vars(kind).get("renamed", {}).items()}
    for name, value in sorted(os.environ.items()):
        for old, new in renamed.items():
            if value and name.upper().startswith(PREFIX + old):
                yield f"{name}: the settings {PREFIX}{old}… begin with {PREFIX}{new} now; rename it.\n"
