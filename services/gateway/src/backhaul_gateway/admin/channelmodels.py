"""The JSON of the admin API about channels: requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from backhaul_common.tenants import (
    Channel,
    Processing,
    VerificationMode,
)
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from backhaul_gateway.admin.addresses import PLACEHOLDER, Addresses
from backhaul_gateway.admin.channels import ChannelRequest, ChannelSecret

MAX_SECRET_PARTS = 8
MAX_PART_NAME = 64


def _text_or_texts(value: object) -> object:
    # Said here once, since a union would name each of its branches in the field's place.
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not all(isinstance(part, str) for part in value.values()):
        raise ValueError("A secret is a text, or an object of texts where it has several parts.")
    if not 0 < len(value) <= MAX_SECRET_PARTS or max(map(len, value)) > MAX_PART_NAME:
        raise ValueError(f"A secret has 1 to {MAX_SECRET_PARTS} parts, with names of at most {MAX_PART_NAME} letters.")
    return value


_Parts = Annotated[dict[str, SecretStr], Field(min_length=1, max_length=MAX_SECRET_PARTS)]
Secret = Annotated[SecretStr | _Parts, BeforeValidator(_text_or_texts)]
"""A secret of a channel: a text, or an object where the provider's secrets have several parts."""


class ChannelIn(BaseModel):
    """A channel's configuration. A field that is left out, or null, stays as it is; any other is replaced as a whole.
    When the provider changes, the present secrets, credentials and settings go."""

    model_config = ConfigDict(extra="forbid")

    provider: str | None = Field(
        None, max_length=64, description="Left out, the present one stays; that of a new channel is found by its label."
    )
    secrets: list[Secret] | None = Field(
        None,
        max_length=8,
        description="All that are valid now: texts, and objects where the provider's secrets have several parts, "
        "such as a name and a password. Left out, the present ones stay; an empty list removes them.",
        examples=[["<verification key>", {"client_id": "backhaul", "client_secret": "<as long as you like>"}]],
    )
    pull_credentials: dict[str, SecretStr] | None = Field(
        None,
        max_length=16,
        description="By what the provider's API is asked, apart from the secrets that verify callbacks; for providers "
        "that have one. Left out, the present ones stay; an empty object removes them.",
    )
    audit_credentials: dict[str, SecretStr] | None = Field(
        None,
        max_length=16,
        description="The access_key and secret_key of the channel's own bucket for audit files, where audit.bucket in "
        "its settings says keys. Left out, the present ones stay; an empty object removes them.",
    )
    settings: dict[str, Any] | None = Field(
        None,
        description="By the provider's own schema. Left out, the present ones stay; an empty object restores the "
        "provider's defaults.",
    )
    verification: VerificationMode | None = Field(
        None, description="Left out, the present one stays; a new channel begins with enforce."
    )
    processing: Processing | None = Field(
        None,
        description="While it is held, callbacks are verified, stored and answered as ever, and processed when it is "
        "on again. Left out, the present one stays; a new channel begins with on.",
    )

    def request(self, label: str) -> ChannelRequest:
        """The use case's value, for the channel of that label."""
        return ChannelRequest(
            label=label,
            provider=self.provider,
            secrets=None if self.secrets is None else [_plain(secret) for secret in self.secrets],
            pull_credentials=None if self.pull_credentials is None else _texts(self.pull_credentials),
            audit_credentials=None if self.audit_credentials is None else _texts(self.audit_credentials),
            settings=self.settings,
            verification=self.verification,
            processing=self.processing,
        )


def _plain(secret: SecretStr | dict[str, SecretStr]) -> ChannelSecret:
    if isinstance(secret, SecretStr):
        return secret.get_secret_value()
    return _texts(secret)


def _texts(parts: dict[str, SecretStr]) -> dict[str, str]:
    return {name: part.get_secret_value() for name, part in parts.items()}


class ChannelAddressOut(BaseModel):
    """The addresses of a channel, with the new ingest token in them."""

    label: str
    callback_url: str
    token_url: str | None


class ChannelOut(BaseModel):
    """A channel without its secrets and credentials."""

    label: str
    key: str
    provider: str
    secret_count: int
    has_pull_credentials: bool
    has_audit_credentials: bool
    settings: dict[str, Any]
    verification: VerificationMode
    processing: Processing
    held_since: datetime | None
    callback_url: str = Field(
        description="What to paste at the provider, with an ingest token in the place of {ingest_token}. Custom "
        "parameters follow as &name=value, in front of a # where there is one."
    )
    token_url: str | None = Field(
        description="Where a provider that shows access tokens asks for them, likewise; null for one that shows none."
    )
    updated_at: datetime

    @classmethod
    def of(cls, channel: Channel, addresses: Addresses, token: str = PLACEHOLDER) -> ChannelOut:
        """The public part of ``channel``; ``token`` stands in its addresses."""
        return cls(
            label=channel.label,
            key=channel.key,
            provider=channel.provider,
            callback_url=addresses.callback(channel, token),
            token_url=addresses.token(channel, token),
            secret_count=len(channel.secrets),
            has_pull_credentials=bool(channel.pull_credentials),
            has_audit_credentials=bool(channel.audit_credentials),
            settings=dict(channel.settings),
            verification=channel.verification,
            processing=channel.processing,
            held_since=channel.held_since,
            updated_at=channel.updated_at,
        )


class ChannelList(BaseModel):
    """A tenant's channels by key."""

    channels: list[ChannelOut]
