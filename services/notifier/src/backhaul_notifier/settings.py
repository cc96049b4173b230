"""The notifier's settings."""

from __future__ import annotations

from urllib.parse import urlsplit

from backhaul_common.settings import CallersSettings, MetricsPortSettings, SecretKeySettings
from pydantic import Field, field_validator

from backhaul_notifier.calling.settings import MailSettings
from backhaul_notifier.door.settings import DoorSettings


class NotifierSettings(DoorSettings, MailSettings, MetricsPortSettings, CallersSettings, SecretKeySettings):
    """Read from ``BACKHAUL_…``; the defaults suit production."""

    notifier_grpc_listen: str = Field("127.0.0.1:50055", description="host:port of the gRPC server.")
    notifier_normalizer_target: str = Field(
        "127.0.0.1:50051",
        description="The normalizer's gRPC host:port: what addresses of endpoints need beyond the event.",
    )
    notifier_public_base_url: str = Field(
        "http://127.0.0.1:8080",
        description="How tenants address the gateway's API: what is told refers to it, where it does not say all.",
    )
    notifier_retention_days: float = Field(
        30.0,
        gt=0,
        le=3650,
        description="For how many days deliveries are kept that are over; of a tenant that keeps events or addresses "
        "for less, for as long as these. What waits is kept until it is over.",
    )
    notifier_pause_after_s: float = Field(
        86_400.0,
        ge=60,
        le=30 * 86_400,
        description="A subscription is paused when for so long no attempt has succeeded though some were made.",
    )

    @field_validator("notifier_public_base_url")
    @classmethod
    def _an_origin(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment or "@" in value:
            raise ValueError("must be like https://callbacks.example.com: a scheme, a host, and no query")
        return value.rstrip("/")
