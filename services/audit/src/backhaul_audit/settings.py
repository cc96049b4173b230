"""Audit's settings."""

from __future__ import annotations

from backhaul_common.settings import CallersSettings, MetricsPortSettings, ObjectStoreSettings, SecretKeySettings
from pydantic import Field


class AuditSettings(MetricsPortSettings, CallersSettings, ObjectStoreSettings, SecretKeySettings):
    """Read from ``BACKHAUL_…``; the defaults suit production."""

    audit_grpc_listen: str = Field("127.0.0.1:50053", description="host:port of the gRPC server.")
    audit_max_file_bytes: int = Field(
        64 << 20, ge=1024, le=512 << 20, description="A file is closed when it has so many bytes, not compressed."
    )
    audit_max_file_events: int = Field(50_000, ge=1, le=500_000, description="A file is closed at so many events.")
    audit_max_file_age_s: float = Field(
        300.0, ge=0.1, le=3600, description="A file is closed when it has been open for so long."
    )
    audit_memory_bytes: int = Field(
        256 << 20,
        ge=16 << 20,
        description="What events may take that are in no file yet. Beyond it the largest file is closed early.",
    )
    audit_digest_every_s: float = Field(
        3600.0, ge=1, le=86_400, description="How often a digest of each tenant's new files is signed."
    )
    audit_normalizer_target: str = Field(
        "127.0.0.1:50051", description="The normalizer's gRPC host:port: what communications count, for a recount."
    )
