"""Suppression's settings."""

from __future__ import annotations

from backhaul_common.settings import MetricsPortSettings
from pydantic import Field


class SuppressionSettings(MetricsPortSettings):
    """Read from ``BACKHAUL_…``; the defaults suit production."""

    suppression_grpc_listen: str = Field("127.0.0.1:50052", description="host:port of the gRPC server.")
