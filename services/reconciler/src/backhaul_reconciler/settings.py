"""The reconciler's settings."""

from __future__ import annotations

from urllib.parse import urlsplit

from backhaul_common.settings import CallersSettings, MetricsPortSettings, SecretKeySettings
from pydantic import Field, field_validator


class ReconcilerSettings(MetricsPortSettings, CallersSettings, SecretKeySettings):
    """Read from ``BACKHAUL_…``; the defaults suit production."""

    reconciler_grpc_listen: str = Field("127.0.0.1:50054", description="host:port of the gRPC server.")
    reconciler_normalizer_target: str = Field("127.0.0.1:50051", description="The normalizer's gRPC host:port.")
    reconciler_origins: dict[str, str] = Field(
        {},
        description="Where providers' APIs are asked in place of their own addresses, such as a proxy: a JSON object, "
        '{"https://api.twilio.com": "http://127.0.0.1:9000"}.',
    )

    @field_validator("reconciler_origins")
    @classmethod
    def _origins(cls, given: dict[str, str]) -> dict[str, str]:
        for origin, place in given.items():
            parts, at = urlsplit(origin), urlsplit(place)
            if f"{parts.scheme}://{parts.netloc}" != origin or parts.scheme not in ("http", "https"):
                raise ValueError(f"{origin} is no origin: give a scheme and a host, such as https://api.twilio.com.")
            if at.scheme not in ("http", "https") or not at.netloc or at.query or at.fragment:
                raise ValueError(f"{place} is no address to ask at: give one such as http://127.0.0.1:9000.")
        return {origin.lower(): place for origin, place in given.items()}
