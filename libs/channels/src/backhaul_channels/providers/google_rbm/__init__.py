"""Google's RCS for Business (RCS Business Messaging, RBM). README.md tells the quirks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from backhaul_channels.adapter import Adapter, Answer, Context, RawCallback, Verifier
from backhaul_channels.event import ErrorMeaning, Ignored, NormalizedEvent
from backhaul_channels.jsonparts import split_json
from backhaul_channels.providers.google_rbm.envelope import signed_bytes
from backhaul_channels.providers.google_rbm.mapping import ERROR_CODES, IGNORED
from backhaul_channels.providers.google_rbm.normalize import normalize_event
from backhaul_channels.providers.google_rbm.verify import SIGNATURE_HEADER, GoogleRbmVerifier, answer_question
from backhaul_channels.settings import ChannelSettings, ConversationSettings


class GoogleRbmAdapter(Adapter[ConversationSettings]):
    """Secrets are client tokens of webhooks. A body is one event, wrapped as Pub/Sub does."""

    provider: ClassVar[str] = "google_rbm"
    # Not "RCS", which means Pointer's API without more words. A channel of that label may still say this provider.
    labels: ClassVar[tuple[str, ...]] = ("Google RBM", "RCS for Business")
    settings_model: ClassVar[type[ChannelSettings]] = ConversationSettings
    signature_headers: ClassVar[frozenset[bytes]] = frozenset({SIGNATURE_HEADER})
    # The signature covers the event alone.
    signs_url: ClassVar[bool] = False
    ignores: ClassVar[frozenset[str]] = frozenset(IGNORED.values())

    def handshake(
        self,
        callback: RawCallback,
        secrets: Sequence[str],
        settings: ConversationSettings,  # noqa: ARG002  # none needed.
    ) -> Answer | None:
        return answer_question(callback, secrets)

    def verifier(self, secrets: Sequence[str], settings: ConversationSettings) -> Verifier:  # noqa: ARG002  # none needed.
        return GoogleRbmVerifier(secrets)

    def split(self, callback: RawCallback, settings: ConversationSettings) -> Sequence[bytes]:  # noqa: ARG002  # none needed.
        return split_json(signed_bytes(callback.body))

    def normalize(self, part: bytes, context: Context[ConversationSettings]) -> NormalizedEvent | Ignored:  # noqa: ARG002  # none needed.
        return normalize_event(part)

    def explain(self, code: str) -> ErrorMeaning | None:
        return ERROR_CODES.get(code)


ADAPTER = GoogleRbmAdapter()
