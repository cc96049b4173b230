"""What a tenant sets of a channel, whichever provider it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from backhaul_channels.replies.settings import STORED, ReplySettings, is_stored

LABEL_PARAMETER = "channellabel"
"""The parameter of an address that names the channel, in lower case."""


class DeclaredParameter(BaseModel):
    """A custom parameter that the sender promises to give with each message."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64, description="Matched whatever its case.")
    required: bool = Field(False, description="A callback without it is kept, flagged and counted.")
    default: str | None = Field(
        None, min_length=1, max_length=256, description="What an event has where the callback lacks it."
    )

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.required and self.default is not None:
            raise ValueError("A parameter with a default never lacks: give a default, or say required, not both.")
        return self


class ChannelSettings(BaseModel):
    """Settings that every channel has; a provider adds its own fields. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: tuple[DeclaredParameter, ...] = Field(
        default=(),
        max_length=16,
        description="Custom parameters that every callback should carry, in its URL or beside its message.",
    )

    communication_keys: tuple[str, ...] = Field(
        default=("communicationId", "offerId", "campaign"),
        max_length=16,
        description="Names of custom parameters, matched whatever their case; the first that an event carries joins "
        "its message to a communication.",
    )

    @field_validator("parameters")
    @classmethod
    def _each_once(
        cls, parameters: tuple[DeclaredParameter, ...], info: ValidationInfo
    ) -> tuple[DeclaredParameter, ...]:
        names = [parameter.name.lower() for parameter in parameters]
        if not is_stored(info):
            if LABEL_PARAMETER in names:
                raise ValueError("channelLabel names the channel, and is no parameter of the sender's: leave it out.")
            if len(set(names)) < len(names):
                raise ValueError("A parameter is declared twice; case does not matter.")
        return parameters

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any]) -> Self:
        """The settings of a channel as it is stored. ValidationError when they do not fit.

        Fields that this version does not know are ignored: a newer one wrote them, and the channel must go on working
        while copies of both run. Refusing unknown fields is for what people send.
        """
        return cls.model_validate(stored, extra="ignore", context=STORED)


class ConversationSettings(ChannelSettings):
    """Settings of a channel that hears what people reply."""

    replies: ReplySettings = Field(
        default=ReplySettings(), description="How replies are understood: opt-outs, keyword templates, free text."
    )
