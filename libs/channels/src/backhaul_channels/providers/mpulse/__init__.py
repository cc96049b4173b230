"""mPulse's callbacks, read by field names that a channel can set. README.md tells what is a guess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from backhaul_channels.engines.mapped.adapter import MappedAdapter
from backhaul_channels.engines.mapped.settings import MappedSettings
from backhaul_channels.event import EventKind
from backhaul_channels.providers.mpulse.mapping import NAMES, STATUSES
from backhaul_channels.settings import AuditFiles, ChannelSettings


class MPulseSettings(MappedSettings):
    """Settings of an mPulse channel: whatever the defaults guess wrong."""

    audit_events: bool = Field(
        default=False,
        description="The audit service files this channel's events (RPI's mPulse auditing), as audit.enabled would.",
    )

    def audit_files(self) -> AuditFiles | None:
        return self.audit if self.audit_events else super().audit_files()

    @classmethod
    def usual_names(cls) -> Mapping[str, str]:
        return NAMES

    @classmethod
    def usual_statuses(cls) -> Mapping[str, EventKind]:
        return STATUSES


class MPulseAdapter(MappedAdapter[MPulseSettings]):
    """mPulse signs nothing. A name and a password are asked for where they are the channel's secrets."""

    provider: ClassVar[str] = "mpulse"
    labels: ClassVar[tuple[str, ...]] = ("mPulse",)
    settings_model: ClassVar[type[ChannelSettings]] = MPulseSettings


ADAPTER = MPulseAdapter()
