"""SendGrid's event webhook, and its API. README.md tells the quirks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel

from backhaul_channels.adapter import Adapter, Answer, Context, RawCallback, Source, Verifier
from backhaul_channels.engines.oauth import ClientSecret, TokenVerifier, token_answer
from backhaul_channels.engines.proofs import AllOf, objects_of, texts_of
from backhaul_channels.event import AddressFamily, ErrorMeaning, EventKind, NormalizedEvent
from backhaul_channels.jsonparts import split_json
from backhaul_channels.providers.sendgrid import errors
from backhaul_channels.providers.sendgrid.mapping import REJECT_REASONS
from backhaul_channels.providers.sendgrid.names import sent_name
from backhaul_channels.providers.sendgrid.normalize import normalize_event
from backhaul_channels.providers.sendgrid.pull import SendGridPuller
from backhaul_channels.providers.sendgrid.records import normalize_record
from backhaul_channels.providers.sendgrid.settings import SendGridSettings
from backhaul_channels.providers.sendgrid.verify import SIGNATURE_HEADER, SendGridVerifier
from backhaul_channels.settings import ChannelSettings


class SendGridAdapter(Adapter[SendGridSettings]):
    """Secrets are the webhook's public keys, and the client ids and secrets by which SendGrid fetches access tokens;
    where there are both, both must prove. A body is a JSON array of events."""

    provider: ClassVar[str] = "sendgrid"
    labels: ClassVar[tuple[str, ...]] = ("SendGrid",)
    settings_model: ClassVar[type[ChannelSettings]] = SendGridSettings
    secret_model: ClassVar[type[BaseModel] | None] = ClientSecret
    signature_headers: ClassVar[frozenset[bytes]] = frozenset({SIGNATURE_HEADER})
    # Only the body and a timestamp are signed.
    signs_url: ClassVar[bool] = False
    puller: ClassVar[SendGridPuller] = SendGridPuller()
    # Events that SendGrid's API tells have no documented sg_event_id, so that what happens to a mail once is known by
    # the mail and the kind. A mail may be deferred, opened and clicked any number of times; an unsubscription is the
    # person's and not the mail's.
    once: ClassVar[frozenset[EventKind]] = frozenset(
        {EventKind.QUEUED, EventKind.REJECTED, EventKind.DELIVERED, EventKind.BOUNCED, EventKind.COMPLAINED}
    )

    def verifier(self, secrets: Sequence[str], settings: SendGridSettings) -> Verifier:  # noqa: ARG002  # none needed.
        keys, clients = texts_of(secrets), objects_of(secrets, ClientSecret)
        if not clients:
            return SendGridVerifier(keys)
        # The token first: looking at it costs a fraction of verifying a signature.
        by_token = TokenVerifier(clients)
        return AllOf([by_token, SendGridVerifier(keys)]) if keys else by_token

    def issue_token(self, callback: RawCallback, secrets: Sequence[str], settings: SendGridSettings) -> Answer | None:  # noqa: ARG002  # none needed.
        clients = objects_of(secrets, ClientSecret)
        return token_answer(callback, clients) if clients else None

    def split(self, callback: RawCallback, settings: SendGridSettings) -> Sequence[bytes]:  # noqa: ARG002  # none needed.
        return split_json(callback.body)

    def normalize(self, part: bytes, context: Context[SendGridSettings]) -> NormalizedEvent:
        read = normalize_record if context.source is Source.BACKFILL else normalize_event
        return read(part, context.settings.message_id_from)

    def explain(self, code: str) -> ErrorMeaning | None:
        return errors.explain(code)

    def is_invalid_recipient(self, code: str, settings: SendGridSettings) -> bool:  # noqa: ARG002  # none needed.
        return ("invalid", code) in REJECT_REASONS.values()

    def sent_name(self, message_id: str, recipient: str, settings: SendGridSettings) -> tuple[str, bool]:
        return sent_name(message_id, recipient, settings.message_id_from)

    def sent_to(self, message_id: str, recipient: str, settings: SendGridSettings) -> tuple[str, AddressFamily]:  # noqa: ARG002  # none needed.
        return recipient, AddressFamily.EMAIL if recipient else AddressFamily.UNKNOWN


ADAPTER = SendGridAdapter()
