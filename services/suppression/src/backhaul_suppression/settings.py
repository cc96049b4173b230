"""Suppression's settings."""

from __future__ import annotations

from backhaul_common.settings import CallersSettings, MetricsPortSettings
from backhaul_common.sizes import MIN_PULL_BYTES
from pydantic import Field


class SuppressionSettings(MetricsPortSettings, CallersSettings):
    """Read from ``BACKHAUL_…``; the defaults suit production."""

    suppression_grpc_listen: str = Field("127.0.0.1:50052", description="host:port of the gRPC server.")
    suppression_normalizer_target: str = Field(
        "127.0.0.1:50051",
        description="The normalizer's gRPC host:port: whether a bounced address was delivered to since.",
    )
    suppression_batch_bytes: int = Field(
        128 << 10,
        ge=1024,
        le=8 << 20,
        description="Bytes of events that are read together. Those of them that say something are one transaction.",
    )
    suppression_pull_bytes: int = Field(
        8 << 20, ge=MIN_PULL_BYTES, description="Bytes asked of the broker at a time; no message is larger."
    )
    suppression_max_pending: int = Field(
        200_000,
        ge=1000,
        description="Messages that may be unacknowledged over all copies, parked ones included; at the limit all wait.",
    )
    suppression_ack_wait_s: float = Field(
        30.0, ge=1, description="When JetStream takes an event for lost and delivers it again."
    )
