"""Twilio messaging: SMS, MMS, WhatsApp and RCS over Twilio. README.md tells the quirks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from backhaul_channels.adapter import Adapter, ChannelSettings, MalformedError, NormalizedEvent, Verifier
from backhaul_channels.jsonparts import looks_like_json, split_json
from backhaul_channels.providers.twilio.normalize import normalize_cloud_event, normalize_form
from backhaul_channels.providers.twilio.verify import TwilioVerifier


class TwilioAdapter(Adapter):
    """Secrets are auth tokens. Forms are one event each; JSON is a CloudEvent or an array of them."""

    provider: ClassVar[str] = "twilio"
    labels: ClassVar[tuple[str, ...]] = ("Twilio",)

    def verifier(self, secrets: Sequence[str], settings: ChannelSettings) -> Verifier:  # noqa: ARG002 - none needed.
        return TwilioVerifier(secrets)

    def split(self, body: bytes) -> Sequence[bytes]:
        if looks_like_json(body):
            return split_json(body)
        if not body.strip(b" \t\r\n&"):
            raise MalformedError("The body is empty; Twilio's webhooks must be set to POST, not GET.")
        return (body,)

    def normalize(self, part: bytes, settings: ChannelSettings) -> NormalizedEvent:  # noqa: ARG002 - none needed.
        return normalize_cloud_event(part) if looks_like_json(part) else normalize_form(part)


ADAPTER = TwilioAdapter()
