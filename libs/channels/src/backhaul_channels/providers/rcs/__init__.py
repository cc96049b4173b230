"""Pointer's RCS API v3. README.md tells the quirks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel, Field

from backhaul_channels.adapter import Adapter, Context, Proof, RawCallback, Verifier
from backhaul_channels.engines.proofs import BasicSecret, optional_basic
from backhaul_channels.event import AddressFamily, ErrorMeaning, NormalizedEvent
from backhaul_channels.jsonparts import split_json
from backhaul_channels.providers.rcs.mapping import ERROR_CODES
from backhaul_channels.providers.rcs.normalize import CAMPAIGN, address_of, normalize_callback
from backhaul_channels.settings import ChannelSettings, ConversationSettings


class RcsSettings(ConversationSettings):
    """Settings of an RCS channel."""

    communication_keys: tuple[str, ...] = Field(
        default=("communicationId", "offerId", CAMPAIGN, "campaign"),
        max_length=16,
        description="Names of the message's variables, matched whatever their case; the first that a callback carries "
        "joins its message to a communication. The campaign's name counts where no variable says otherwise.",
    )


class RcsAdapter(Adapter[RcsSettings]):
    """The provider signs nothing. A secret, if there is one, is a name and a password. A body is one callback."""

    provider: ClassVar[str] = "rcs"
    labels: ClassVar[tuple[str, ...]] = ("RCS",)
    settings_model: ClassVar[type[ChannelSettings]] = RcsSettings
    proof: ClassVar[Proof] = Proof.CREDENTIAL
    secret_model: ClassVar[type[BaseModel] | None] = BasicSecret

    def verifier(self, secrets: Sequence[str], settings: RcsSettings) -> Verifier:
        return optional_basic(secrets) or super().verifier(secrets, settings)

    def split(self, callback: RawCallback, settings: RcsSettings) -> Sequence[bytes]:  # noqa: ARG002  # none needed.
        return split_json(callback.body)

    def normalize(self, part: bytes, context: Context[RcsSettings]) -> NormalizedEvent:  # noqa: ARG002  # none needed.
        return normalize_callback(part)

    def explain(self, code: str) -> ErrorMeaning | None:
        return ERROR_CODES.get(code)

    def sent_to(self, message_id: str, recipient: str, settings: RcsSettings) -> tuple[str, AddressFamily]:  # noqa: ARG002  # none needed.
        return address_of(recipient), AddressFamily.PHONE if recipient else AddressFamily.UNKNOWN


ADAPTER = RcsAdapter()
