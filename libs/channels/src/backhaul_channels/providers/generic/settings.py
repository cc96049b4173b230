"""What a tenant sets of a channel that no adapter was written for: how its requests prove themselves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from backhaul_channels.engines.hmacs import HmacRules, Signed
from backhaul_channels.engines.mapped.settings import MappedSettings
from backhaul_channels.engines.mapped.times import reader_of, zone_of
from backhaul_channels.engines.standard_webhooks import TOLERANCE_S
from backhaul_channels.providers.generic.mapping import NAMES

MAX_TOLERANCE_S = 604_800
"""A week: there are providers that try as long, and do not say that they sign each try anew."""

MAX_TEMPLATE = 256

HeaderName = Annotated[str, Field(max_length=64, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"), AfterValidator(str.lower)]
Tolerance = Annotated[int, Field(ge=1, le=MAX_TOLERANCE_S)]


class Proof(BaseModel):
    """How a request proves itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HmacProof(Proof):
    """By an HMAC of the body in a header."""

    type: Literal["hmac"]
    signature_header: HeaderName = Field(description="The header that holds the signature.")
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = Field("hex", description="How the signature is written.")
    prefix: str = Field(
        "", max_length=32, pattern=r"^[!-~]*$", description="What stands before it in the header: sha256="
    )
    timestamp_header: HeaderName | None = Field(None, description="The header with the time of signing.")
    tolerance_s: Tolerance = Field(
        TOLERANCE_S, description="How far that time may be from the arrival, in seconds, in either direction."
    )
    signed: str | None = Field(
        None,
        max_length=MAX_TEMPLATE,
        pattern=r"^[ -~]*$",
        description="What is signed: {body}, {timestamp}, {header:Name}, with marks between them. Left out: {body}, or "
        "{timestamp}.{body} where there is a time.",
    )
    secret_encoding: Literal["text", "base64", "hex"] = Field("text", description="How the secret is written.")

    @model_validator(mode="after")
    def _proves_something(self) -> Self:
        if self.timestamp_header is None and "tolerance_s" in self.model_fields_set:
            raise ValueError("tolerance_s is of a time: say in timestamp_header where that stands.")
        self.rules  # noqa: B018  # made here, so that a template that proves nothing is refused when it is set.
        return self

    @cached_property
    def rules(self) -> HmacRules:
        """The same as the engine takes it."""
        timestamp_header = (self.timestamp_header or "").encode()
        template = self.signed if self.signed is not None else "{timestamp}.{body}" if timestamp_header else "{body}"
        return HmacRules(
            header=self.signature_header.encode(),
            algorithm=self.algorithm,
            in_base64=self.encoding == "base64",
            prefix=self.prefix.encode(),
            signed=Signed(template, timestamp_header),
            timestamp_header=timestamp_header,
            tolerance_s=self.tolerance_s,
            to_microseconds=reader_of("auto", zone_of("UTC")),
        )


class StandardWebhooksProof(Proof):
    """By Standard Webhooks."""

    type: Literal["standard_webhooks"] = "standard_webhooks"
    headers: str = Field(
        "webhook",
        max_length=32,
        pattern=r"^[a-z][a-z0-9-]*$",
        description="The word before the dash in its three headers: svix where they are svix-id and so on.",
    )
    tolerance_s: Tolerance = TOLERANCE_S


class BasicProof(Proof):
    """By a name and a password."""

    type: Literal["basic"]


class CredentialProof(Proof):
    """By the tenant's API key or ingest token alone."""

    type: Literal["credential"]


class GenericSettings(MappedSettings):
    """Settings of a channel that no adapter was written for."""

    proof: Annotated[HmacProof | StandardWebhooksProof | BasicProof | CredentialProof, Field(discriminator="type")] = (
        Field(StandardWebhooksProof(), description="How its requests prove themselves.")
    )

    @classmethod
    def usual_names(cls) -> Mapping[str, str]:
        return NAMES
