"""What a tenant sets of a Twilio channel."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, ValidationInfo, model_validator

from backhaul_channels.replies.settings import is_stored
from backhaul_channels.settings import ConversationSettings, Reconciling

Sender = Annotated[str, Field(min_length=1, max_length=320, pattern=r"^\S(.*\S)?$")]
MessagingService = Annotated[str, Field(pattern=r"^MG[0-9a-fA-F]{32}$")]


class TwilioReconciling(Reconciling):
    """What of an account is this channel's, and what its API is asked for."""

    senders: tuple[Sender, ...] = Field(
        default=(),
        max_length=1_000,
        description="The tenant's side of the channel's messages and calls, as Twilio writes it: +15005550006, "
        "whatsapp:+15005550006, a short code, a name. Without any, and without messaging_services: all of the account.",
    )
    messaging_services: tuple[MessagingService, ...] = Field(
        default=(),
        max_length=1_000,
        description="The SIDs of messaging services (MG…) whose messages are the channel's, beside those of senders.",
    )
    calls: bool = Field(default=False, description="Calls are asked for too.")
    bulk_export: bool = Field(
        default=False,
        description="Days are closed by BulkExport: each takes a job that Backhaul creates in the account. US1 only.",
    )

    @model_validator(mode="after")
    def _calls_have_senders(self, info: ValidationInfo) -> Self:
        if self.calls and self.messaging_services and not self.senders and not is_stored(info):
            raise ValueError(
                "No call belongs to a messaging service, so none would be the channel's: name the numbers that call "
                "and are called in senders, or leave calls out."
            )
        return self


class TwilioSettings(ConversationSettings):
    """Settings of a Twilio channel."""

    reconcile: TwilioReconciling = Field(
        default=TwilioReconciling(),
        description="Whether and how often the provider is asked for what callbacks did not tell, and for what of it.",
    )
