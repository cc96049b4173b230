"""Settings that every service has, read once from the environment.

A service's own ``settings.py`` derives from ``CommonSettings``; nothing else reads ``BACKHAUL_`` variables.
OpenTelemetry reads the standard ``OTEL_`` variables itself; ``tracing`` and ``metrics`` only look whether they name an
endpoint.
"""

from __future__ import annotations

import sys
from typing import Literal, TypeVar

from pydantic import Field, FilePath, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

S = TypeVar("S", bound="CommonSettings")


class CommonSettings(BaseSettings):
    """What every service needs to reach its dependencies. The variable of a field is its name with ``BACKHAUL_``."""

    model_config = SettingsConfigDict(env_prefix="BACKHAUL_", frozen=True, extra="ignore", env_ignore_empty=True)

    nats_url: str = Field(
        "nats://127.0.0.1:4222",
        description="One or more servers, comma-separated. A connection that goes silent is left for another one "
        "within 10 s.",
    )
    nats_credentials_file: FilePath | None = Field(None, description="A NATS .creds file.")
    stream_replicas: int = Field(1, ge=1, le=5, description="Copies of each stream: 1 locally, 3 in a cluster.")
    stream_max_age_s: float = Field(
        7 * 86400, ge=1, le=100 * 365 * 86400, description="How long stored callbacks and events can be replayed."
    )
    stream_max_bytes: int = Field(
        -1, ge=-1, description="Size of each stream; when full, publishing fails. Shares of tenants are parts of it."
    )

    mongo_uri: SecretStr = Field(SecretStr("mongodb://127.0.0.1:27017/?replicaSet=rs0"), description="A replica set.")
    mongo_database: str = Field("backhaul", pattern=r"^[A-Za-z0-9_-]{1,48}$")

    secret_keys: SecretStr = Field(
        SecretStr(""), description="Fernet keys, comma-separated, newest first: the first encrypts, all decrypt."
    )
    secret_keys_file: FilePath | None = Field(None, description="The same, one key a line, instead of secret_keys.")

    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    grpc_tls_cert_file: FilePath | None = Field(None, description="This service's certificate chain, PEM.")
    grpc_tls_key_file: FilePath | None = Field(None, description="Its private key, PEM.")
    grpc_tls_ca_file: FilePath | None = Field(
        None, description="The authority that both sides must present a certificate of."
    )

    @field_validator("stream_max_bytes")
    @classmethod
    def _zero_is_no_size(cls, value: int) -> int:
        # JetStream reads 0 as unlimited, which is the opposite of what it says.
        if value == 0:
            raise ValueError("must be a number of bytes, or -1 for no limit")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> CommonSettings:
        given = [self.grpc_tls_cert_file, self.grpc_tls_key_file, self.grpc_tls_ca_file]
        if any(given) and not all(given):
            raise ValueError(
                "BACKHAUL_GRPC_TLS_CERT_FILE, _KEY_FILE and _CA_FILE belong together: set all three or none"
            )
        return self

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


class MetricsPortSettings(CommonSettings):
    """For services without HTTP of their own."""

    metrics_host: str = Field("127.0.0.1", description="The address that the Prometheus port listens on.")
    metrics_port: int = Field(0, ge=0, le=65535, description="Prometheus port of services without HTTP; 0 is off.")


def load(settings_type: type[S]) -> S:
    """The settings from the environment; when one is invalid, says which on standard error and exits with 2."""
    try:
        return settings_type()
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_input=False, include_context=False):
            name = "_".join(str(part) for part in error["loc"]).upper()
            sys.stderr.write(f"BACKHAUL_{name}: {error['msg']}\n" if name else f"{error['msg']}\n")
        raise SystemExit(2) from None
    except SettingsError as exc:
        # A list or mapping that is no JSON; the message names the field.
        sys.stderr.write(f"{exc}\n")
        raise SystemExit(2) from None
