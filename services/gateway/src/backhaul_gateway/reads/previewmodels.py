"""What a preview is asked, and what it answers."""

from __future__ import annotations

import base64
import binascii
from typing import Literal, Self

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import VerificationMode
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from backhaul_gateway.reads.views import PreviewPartOut


class PreviewIn(BaseModel):
    """A callback as a provider would post it."""

    model_config = ConfigDict(extra="forbid")

    body: str | None = Field(None, description="The body, as text that is sent in UTF-8.")
    body_base64: str | None = Field(None, description="The same, byte for byte, in place of body.")
    headers: dict[str, str] = Field(
        default={}, max_length=100, description="What the provider sends beside it, such as its signature."
    )
    query: str = Field(
        "", description="Custom parameters of the channel's own address, as id=1&category=x. Not beside url."
    )
    url: str = Field(
        "",
        description="The address that the provider was told to post to, as it was told. Unless given, the channel's "
        "own without an ingest token: <public base URL>/api/postevents?channelLabel=<label>.",
    )

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not name or not (name.isascii() and name.isprintable()) or ":" in name or " " in name:
                raise ValueError("A header's name is of visible ASCII characters, without a colon.")
            if not value.isprintable() or any(ord(character) > 255 for character in value):
                raise ValueError(
                    f"The header {name[:64]} holds characters that no header can hold; send it as the provider does, "
                    "or leave it out."
                )
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError("A header is there twice, in two spellings. Send it once.")
        return headers

    @field_validator("query", "url")
    @classmethod
    def _visible(cls, text: str) -> str:
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("An address has visible ASCII characters only; escape all others.")
        return text

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.body is None) == (self.body_base64 is None):
            raise ValueError("Give the callback's body, as either body or body_base64.")
        if self.query and self.url:
            raise ValueError("Give either query or url; a url has its own query.")
        return self

    def content(self) -> bytes:
        """The body's bytes. INVALID_ARGUMENT for what is no base64."""
        if self.body is not None:
            return self.body.encode()
        try:
            return base64.b64decode(self.body_base64 or "", validate=True)
        except (binascii.Error, ValueError):
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "body_base64 is no base64.",
                field="body_base64",
                fix="Encode the body with the standard alphabet and its padding, without line breaks.",
            ) from None


class VerificationOut(BaseModel):
    """What the channel's verification says. ``code`` and ``detail`` are the refusal's, also where the channel only
    observes; null where there is none. A ``handshake`` asks whether the address is the tenant's, and is no callback."""

    mode: VerificationMode
    result: Literal["verified", "credential", "refused", "off", "observed_invalid", "handshake"]
    code: str | None
    detail: str | None


class AnswerOut(BaseModel):
    """What the provider would be answered. The body of a handshake's answer is not shown: it may prove something."""

    status: int
    content_type: str | None
    body: str | None


class PreviewOut(BaseModel):
    """What would become of a callback. ``parts`` are in the order of its body; 1,000 at most, and 4 MiB of events.
    Those of a callback that would be refused are what they would become if the channel only observed. A handshake has
    none."""

    verification: VerificationOut
    answer: AnswerOut
    parts: list[PreviewPartOut]
    truncated: bool
