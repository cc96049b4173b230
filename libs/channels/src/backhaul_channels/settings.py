"""What a tenant sets of a channel, whichever provider it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from backhaul_channels.replies.settings import STORED, ReplySettings, is_stored

LABEL_PARAMETER = "channellabel"
"""The parameter of an address that names the channel, in lower case."""

MAX_FOLDER = 200

_FOLDER = re.compile(r"[A-Za-z0-9_.=-]+(?:/[A-Za-z0-9_.=-]+)*")
_URL = re.compile(r"https?://[^/@?#\s]+/?")


def _relative(folder: str) -> str:
    if _FOLDER.fullmatch(folder) is None:
        raise ValueError(
            "A folder is relative, of ASCII letters, digits, - _ . and =, with one / between two of its parts and none "
            "at its ends, such as events/email."
        )
    if any(not part.strip(".") for part in folder.split("/")):
        raise ValueError("No part of a folder is . or .., since some tools would walk out of it: name each part.")
    return folder


def _url(url: str) -> str:
    if url and _URL.fullmatch(url) is None:
        raise ValueError("It is a URL of scheme, host and port alone, such as https://s3.eu-west-1.amazonaws.com.")
    return url.rstrip("/")


_Url = Annotated[str, Field(max_length=300), AfterValidator(_url)]


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


class AuditKeys(BaseModel):
    """By what a channel's own bucket lets Backhaul in: ``audit_credentials``."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    # It goes into a header.
    access_key: str = Field(min_length=1, max_length=256, pattern=r"^[!-~]+$", repr=False)
    secret_key: str = Field(min_length=1, max_length=1024, repr=False)

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any]) -> Self:
        """As ``ChannelSettings.of_stored``: what a newer version wrote besides is ignored. ValidationError."""
        return cls.model_validate(stored, extra="ignore")


class AuditBucket(BaseModel):
    """A bucket of the channel's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: _Url = Field(min_length=1, description="The URL of the S3 service, without a path.")
    region: str = Field(
        "",
        max_length=64,
        pattern=r"^[a-z0-9-]*$",
        description="Empty: what Amazon's endpoint names, and us-east-1 elsewhere.",
    )
    bucket: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Its name. It must be there already."
    )
    public_endpoint: _Url = Field(
        "", description="Under which URL people reach the service, for links to files; empty: the same."
    )
    credentials: Literal["keys", "web_identity", "instance_role"] = Field(
        "keys",
        description="How the bucket lets Backhaul in: by the channel's audit_credentials; by the token of the audit "
        "service's own identity (AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN); by the role of its machine.",
    )


class AuditFiles(BaseModel):
    """Whether and how a channel's events are filed for analysts, by the audit service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(default=False, description="The audit service files this channel's events.")
    folder: Annotated[str, Field(min_length=1, max_length=MAX_FOLDER), AfterValidator(_relative)] = Field(
        "events", description="Under the tenant's own prefix; RPI's Events external folder."
    )
    format: Literal["jsonl", "array"] = Field("jsonl", description="One JSON object a line, or one JSON array.")
    gzip: bool = Field(default=False, description="Files are compressed.")
    with_event: bool = Field(
        default=False, description='Each is {"event": the normalised event, "raw": what the provider sent}.'
    )
    encrypt_people: bool = Field(
        default=False,
        description="What is personal is encrypted in the files under a key per person, which erasure destroys.",
    )
    layout: Literal["partitioned", "flat"] = Field(
        "partitioned",
        description="With partitioned, files lie in folders by channel and day, as query engines like it.",
    )
    bucket: AuditBucket | None = Field(None, description="A bucket of the channel's own; null: the installation's.")

    @model_validator(mode="after")
    def _room_for_the_rest(self) -> Self:
        if self.folder.split("/")[-1] == "backfill":
            raise ValueError("The folder backfill is where events of backfills and replays go: name it differently.")
        return self

    @property
    def wants_keys(self) -> bool:
        """Whether the channel must have ``audit_credentials``."""
        return self.bucket is not None and self.bucket.credentials == "keys"


class Reconciling(BaseModel):
    """Whether and how often a channel's provider is asked for what its callbacks did not tell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(default=True, description="It is asked, if it has an API and the channel pull_credentials.")
    every_minutes: int = Field(10, ge=1, le=1440, description="How often it is asked.")
    poll_only: bool = Field(
        default=False,
        description="No callbacks are expected: what the API tells is all there is, and nobody is told of silence.",
    )


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

    batch_keys: tuple[str, ...] = Field(
        default=("batchId", "batch_id"),
        max_length=16,
        description="Likewise; the first that an event carries names the batch that its message is of.",
    )
    member_keys: tuple[str, ...] = Field(
        default=("memberId", "memberKey", "member_key"),
        max_length=16,
        description="Likewise; the first that an event carries names the member of the communication that its message "
        "is for.",
    )

    audit: AuditFiles = Field(
        default=AuditFiles(), description="Whether and how this channel's events are filed for analysts."
    )

    reconcile: Reconciling = Field(
        default=Reconciling(),
        description="Whether and how often the provider is asked for what callbacks did not tell.",
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

    def audit_files(self) -> AuditFiles | None:
        """How this channel's events are filed; None where it does not ask for it. A provider with a switch of its own
        extends this."""
        return self.audit if self.audit.enabled else None

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
