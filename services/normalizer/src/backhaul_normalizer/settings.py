"""The normalizer's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from backhaul_common.settings import MetricsPortSettings
from backhaul_common.sizes import MIN_PULL_BYTES
from pydantic import Field


class NormalizerSettings(MetricsPortSettings):
    """Read from ``BACKHAUL_…``; the defaults suit production."""

    renamed: ClassVar[Mapping[str, str]] = {"NORMALIZER_MOST_DEAD_LETTERS": "NORMALIZER_MAX_DEAD_LETTERS"}

    normalizer_grpc_listen: str = Field("127.0.0.1:50051", description="host:port of the gRPC server.")
    normalizer_batch_bytes: int = Field(
        512 << 10,
        ge=1024,
        le=8 << 20,
        description="Bytes of callbacks in one transaction, about 500 to 1,500 events. More costs less for each, but a "
        "callback waits for up to three transactions behind others.",
    )
    normalizer_beside_bytes: int = Field(
        64 << 10,
        ge=1024,
        le=8 << 20,
        description="Bytes of tenants with a backlog in one transaction while other tenants' callbacks come, which "
        "wait for them.",
    )
    normalizer_pull_messages: int = Field(512, ge=1, le=4096, description="Messages asked of the broker at a time.")
    normalizer_pull_bytes: int = Field(
        8 << 20,
        ge=MIN_PULL_BYTES,
        description="Bytes asked of the broker at a time. A callback that is larger could never be had: tenants may be "
        "allowed bodies of 4 MiB.",
    )
    normalizer_tenant_bytes: int = Field(
        2 << 20, ge=1024, description="Callbacks of one tenant held in memory; what is beyond is parked in the stream."
    )
    normalizer_buffer_bytes: int = Field(
        32 << 20, ge=1 << 20, description="Callbacks of all tenants held in memory; beyond it, no more are asked for."
    )
    normalizer_max_pending: int = Field(
        200_000,
        ge=1000,
        description="Messages that may be unacknowledged over all copies, parked ones included; at the limit all wait.",
    )
    normalizer_max_dead_letters: int = Field(
        10_000, ge=100, description="Open dead letters of one tenant; what is beyond is counted in one of each channel."
    )
    normalizer_ack_wait_s: float = Field(
        30.0, ge=1, description="When JetStream takes a callback for lost and delivers it again."
    )
