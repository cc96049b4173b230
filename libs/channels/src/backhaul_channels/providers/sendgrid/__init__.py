"""SendGrid's event webhook. README.md tells the quirks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from backhaul_channels.adapter import Adapter, ChannelSettings, NormalizedEvent, Verifier
from backhaul_channels.jsonparts import split_json
from backhaul_channels.providers.sendgrid.normalize import normalize_event
from backhaul_channels.providers.sendgrid.verify import SendGridVerifier


class SendGridSettings(ChannelSettings):
    """Settings of a SendGrid channel."""

    communication_keys: tuple[str, ...] = Field(
        default=("communicationId", "offerId", "campaign", "singlesend_id", "marketing_campaign_id", "category"),
        max_length=16,
        description="Names of custom arguments, matched whatever their case; the first that an event carries joins its "
        "message to a communication. A Single Send, a marketing campaign and a category are the last resorts.",
    )
    message_id_from: tuple[str, ...] = Field(
        default=("sg_message_id", "smtp-id"),
        min_length=1,
        max_length=8,
        description="Keys of the event, custom arguments among them; the first that it has names the message.",
    )


class SendGridAdapter(Adapter):
    """Secrets are the webhook's public keys. A body is a JSON array of events."""

    provider: ClassVar[str] = "sendgrid"
    labels: ClassVar[tuple[str, ...]] = ("SendGrid",)
    settings_model: ClassVar[type[ChannelSettings]] = SendGridSettings

    def verifier(self, secrets: Sequence[str], settings: ChannelSettings) -> Verifier:  # noqa: ARG002 - none needed.
        return SendGridVerifier(secrets)

    def split(self, body: bytes) -> Sequence[bytes]:
        return split_json(body)

    def normalize(self, part: bytes, settings: ChannelSettings) -> NormalizedEvent:
        if not isinstance(settings, SendGridSettings):
            raise TypeError(f"settings must be SendGridSettings, not {type(settings).__name__}.")
        return normalize_event(part, settings.message_id_from)


ADAPTER = SendGridAdapter()
