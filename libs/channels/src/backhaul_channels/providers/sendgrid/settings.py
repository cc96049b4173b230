"""Settings of a SendGrid channel."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from backhaul_channels.providers.sendgrid.mapping import UNKNOWN_FIELDS
from backhaul_channels.providers.sendgrid.names import ONE_MAIL, ONE_PERSON
from backhaul_channels.settings import AuditFiles, ChannelSettings

_OVERWRITTEN = "SendGrid has a field of that name, which replaces a custom argument in some of its events or in all."


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
        description="Keys of the event that name its message: custom arguments, sg_message_id and smtp-id. The first "
        "that an event has counts; where that is not sg_message_id, the recipient is part of the name. SendGrid's own "
        "two follow where they are left out.",
    )

    region: Literal["global", "eu"] = Field(
        default="global",
        description="Where the account or the subuser has its data, and so which of SendGrid's addresses is asked.",
    )

    save_email_events: bool = Field(
        default=False,
        description="The audit service files this channel's events (RPI's SaveEmailEvents), as audit.enabled would.",
    )

    def audit_files(self) -> AuditFiles | None:
        return self.audit if self.save_email_events else super().audit_files()

    @field_validator("communication_keys", "batch_keys", "member_keys")
    @classmethod
    def _can_join(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if key.casefold() != "category" and key.casefold() in UNKNOWN_FIELDS:
                raise ValueError(f"{key!r} can join no message: {_OVERWRITTEN} Send the argument under another name.")
        return keys

    @field_validator("message_id_from")
    @classmethod
    def _can_name(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if key not in (ONE_PERSON, ONE_MAIL) and key.casefold() in UNKNOWN_FIELDS:
                raise ValueError(
                    f"{key!r} can name no message: {_OVERWRITTEN} Use {ONE_PERSON!r}, {ONE_MAIL!r}, or a custom "
                    "argument of another name."
                )
        return keys
