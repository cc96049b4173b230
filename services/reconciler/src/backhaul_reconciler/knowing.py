"""By what a channel's provider is asked: its adapter's puller, its settings, and its credentials. Pure but for the
decryption."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backhaul_channels import Adapter
from backhaul_channels.pull import Ask, Puller
from backhaul_channels.settings import ChannelSettings
from backhaul_common.secrets import SecretBox
from backhaul_common.tenants import Channel, Tenant
from pydantic import ValidationError

from backhaul_reconciler.documents import account_id_of
from backhaul_reconciler.model import ChannelOf, Standing


@dataclass(frozen=True, slots=True)
class Known:
    """A channel whose provider can be asked."""

    tenant: Tenant
    channel: Channel
    puller: Puller[Any, Any]
    ask: Ask[Any, Any]
    account: str
    every_s: int

    @property
    def of(self) -> ChannelOf:
        """Which channel it is."""
        return ChannelOf(self.tenant.id, self.tenant.registration, self.channel.key)

    @property
    def secrets(self) -> Sequence[str]:
        """What of the credentials must never be shown."""
        credentials = self.ask.credentials
        return [value for name, value in credentials if name not in credentials.public and isinstance(value, str)]

    @property
    def settings_us(self) -> int:
        """By what changed settings are known."""
        return micros(self.channel.updated_at)


@dataclass(frozen=True, slots=True)
class Unasked:
    """Why a channel's provider is not asked, and what to do for it to be; ``fix`` is empty where nothing helps."""

    standing: Standing
    why: str
    fix: str = ""

    @property
    def text(self) -> str:
        """Both, for people."""
        return f"{self.why} {self.fix}".rstrip()


class Knowing:
    """Says of each channel whether and how its provider is asked."""

    def __init__(self, adapters: Mapping[str, Adapter[Any]], box: SecretBox) -> None:
        self._adapters = adapters
        self._box = box

    def settings(self, channel: Channel) -> ChannelSettings | None:
        """The settings of ``channel``; None where this version knows no such provider, or cannot read them."""
        adapter = self._adapters.get(channel.provider)
        try:
            return None if adapter is None else adapter.settings_model.of_stored(channel.settings)
        except (ValidationError, ValueError):
            return None

    def channel(self, tenant: Tenant, channel: Channel) -> Known | Unasked:
        """How ``channel`` is asked, or why it is not."""
        adapter = self._adapters.get(channel.provider)
        if adapter is None:
            return Unasked(Standing.FAILING, f"This version knows no provider {channel.provider}.")
        puller = adapter.puller
        if puller is None:
            return Unasked(Standing.NO_API, f"{channel.provider} has no API that tells what became of messages.")
        settings = self.settings(channel)
        if settings is None:
            return Unasked(Standing.FAILING, "This version cannot read the channel's settings.", "PUT them anew.")
        if not settings.reconcile.enabled:
            fix = "PUT the channel with settings whose reconcile.enabled is true."
            return Unasked(Standing.OFF, "The channel's settings switch it off.", fix)
        if channel.processing == "held":
            # Nothing that is missing would be known at the next run either: it waits with what is held.
            return Unasked(Standing.OFF, "The channel is held.", "It is asked again once you resume it.")
        return self._opened(tenant, channel, puller, settings)

    def _opened(
        self, tenant: Tenant, channel: Channel, puller: Puller[Any, Any], settings: ChannelSettings
    ) -> Known | Unasked:
        if not channel.pull_credentials:
            fields = ", ".join(puller.credentials_model.model_fields)
            fix = f"PUT the channel with pull_credentials; {channel.provider} takes: {fields}."
            return Unasked(Standing.NO_CREDENTIALS, "The channel has no pull_credentials.", fix)
        try:
            stored = json.loads(self._box.decrypt(channel.pull_credentials))
            credentials = puller.credentials_model.of_stored(stored)
        except (ValidationError, ValueError, TypeError, AttributeError):
            # Whatever pydantic would say of them may show them.
            return Unasked(Standing.FAILING, "The channel's pull_credentials cannot be read.", "PUT them again.")
        return Known(
            tenant,
            channel,
            puller,
            Ask(credentials, settings),
            account_id_of(channel.provider, puller.account(credentials)),
            settings.reconcile.every_minutes * 60,
        )


def micros(moment: datetime) -> int:
    """Unix time in microseconds."""
    return int(moment.timestamp() * 1_000_000)
