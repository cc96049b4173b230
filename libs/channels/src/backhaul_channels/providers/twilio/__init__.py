"""Twilio: SMS, MMS, WhatsApp, RCS, calls, and what its other products post. README.md tells the quirks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from backhaul_channels.adapter import Adapter, Answer, Context, MalformedError, RawCallback, Source, Verifier
from backhaul_channels.engines.twilio.signature import SIGNATURE_HEADER, TwilioVerifier
from backhaul_channels.event import AddressFamily, ErrorMeaning, NormalizedEvent
from backhaul_channels.jsonparts import looks_like_json, split_json
from backhaul_channels.providers.twilio.calls import sent_family
from backhaul_channels.providers.twilio.errors import explain
from backhaul_channels.providers.twilio.mapping import INVALID_RECIPIENT
from backhaul_channels.providers.twilio.normalize import normalize_form, normalize_json
from backhaul_channels.providers.twilio.pull import TwilioPuller
from backhaul_channels.providers.twilio.settings import TwilioSettings
from backhaul_channels.settings import ChannelSettings, ConversationSettings


class TwilioAdapter(Adapter[ConversationSettings]):
    """Secrets are auth tokens, or shared keys as ``id:secret``. A form is one event; JSON is one or an array of them,
    as CloudEvents or with the form's fields."""

    provider: ClassVar[str] = "twilio"
    labels: ClassVar[tuple[str, ...]] = ("Twilio",)
    settings_model: ClassVar[type[ChannelSettings]] = TwilioSettings
    puller: ClassVar[TwilioPuller] = TwilioPuller()
    own_parameters: ClassVar[frozenset[str]] = frozenset({"bodysha256"})
    signature_headers: ClassVar[frozenset[bytes]] = frozenset({SIGNATURE_HEADER})
    # By default Twilio tries once more, and only where it could not connect; so it tries five times after any failure.
    # https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides
    address_fragment: ClassVar[str] = "#rc=5&rp=all"
    # Twilio wants a content type on every answer, and reads the one to an inbound message as TwiML: an empty Response
    # means nothing to it, and is what it wants to hear of a call's state.
    # https://www.twilio.com/docs/api/errors/12300 and https://www.twilio.com/docs/api/errors/15003
    # ``once`` stays empty: message and status are the key, so each status is known once by itself, and several of them
    # (accepted, queued, sending) are of one kind.
    accepted: ClassVar[Answer] = Answer(content_type="text/xml", body=b"<Response/>")

    def explain(self, code: str) -> ErrorMeaning | None:
        return explain(code)

    def is_invalid_recipient(self, code: str, settings: ConversationSettings) -> bool:  # noqa: ARG002  # none needed.
        return code in INVALID_RECIPIENT

    def sent_to(self, message_id: str, recipient: str, settings: ConversationSettings) -> tuple[str, AddressFamily]:  # noqa: ARG002  # none needed.
        return recipient, sent_family(message_id, recipient)

    def verifier(self, secrets: Sequence[str], settings: ConversationSettings) -> Verifier:  # noqa: ARG002  # none needed.
        return TwilioVerifier(secrets)

    def split(self, callback: RawCallback, settings: ConversationSettings) -> Sequence[bytes]:  # noqa: ARG002  # none needed.
        body = callback.body
        if looks_like_json(body):
            return split_json(body)
        if not body.strip(b" \t\r\n&"):
            raise MalformedError("The body is empty; Twilio's webhooks must be set to POST, not GET.")
        return (body,)

    def normalize(self, part: bytes, context: Context[ConversationSettings]) -> NormalizedEvent:
        if looks_like_json(part):
            # A row that could not be read may have come back as a replay.
            return normalize_json(part, told_by_api=context.source is not Source.CALLBACK)
        if b"=" not in part:
            # An array may hold thousands of numbers, each of which would be looked through as a form.
            raise MalformedError("This is neither a form nor a JSON object; Twilio's webhooks are one or the other.")
        return normalize_form(part)


ADAPTER = TwilioAdapter()
