"""The adapter of a webhook that is mapped; a provider names its settings, and asks for more proof where it has some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from pydantic import BaseModel

from backhaul_channels.adapter import Adapter, Context, Proof, RawCallback, Verifier
from backhaul_channels.engines.mapped.reader import EXCLUDED
from backhaul_channels.engines.mapped.settings import MappedSettings
from backhaul_channels.engines.proofs import BasicSecret, optional_basic
from backhaul_channels.event import AddressFamily, Ignored, NormalizedEvent

M = TypeVar("M", bound=MappedSettings)


class MappedAdapter(Adapter[M]):
    """A body is a form, a JSON object, an array of them, or has such an array in its envelope. Secrets are names and
    passwords; without any, the tenant's credential is the proof."""

    proof: ClassVar[Proof] = Proof.CREDENTIAL
    secret_model: ClassVar[type[BaseModel] | None] = BasicSecret
    ignores: ClassVar[frozenset[str]] = frozenset({EXCLUDED})

    def verifier(self, secrets: Sequence[str], settings: M) -> Verifier:
        return optional_basic(secrets) or super().verifier(secrets, settings)

    def split(self, callback: RawCallback, settings: M) -> Sequence[bytes]:
        return settings.reader.split(callback.body)

    def normalize(self, part: bytes, context: Context[M]) -> NormalizedEvent | Ignored:
        return context.settings.reader.normalize(part, context.received_at_us)

    def is_invalid_recipient(self, code: str, settings: M) -> bool:
        return settings.reader.is_invalid(code)

    def sent_to(self, message_id: str, recipient: str, settings: M) -> tuple[str, AddressFamily]:  # noqa: ARG002  # whatever it is called.
        return settings.reader.sent_to(recipient)
