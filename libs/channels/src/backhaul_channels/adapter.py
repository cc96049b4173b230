"""What a provider adapter is: pure functions from a raw request to domain objects.

An adapter does no I/O and knows no framework. The gateway calls ``verifier`` once a channel and
``Verifier.verify`` once a request; the normalizer calls ``split`` once a callback and ``normalize`` once a part, each
with what holds for the whole callback.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from backhaul_channels.pull import Puller


class EventKind(StrEnum):
    """What happened, in one vocabulary for all providers."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    REJECTED = "rejected"
    BOUNCED = "bounced"
    DEFERRED = "deferred"
    READ = "read"
    OPENED = "opened"
    CLICKED = "clicked"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    SUBSCRIBED = "subscribed"
    INBOUND = "inbound"
    CANCELED = "canceled"
    EXPIRED = "expired"
    BLOCKED_CREDIT = "blocked_credit"
    DUPLICATE_BLOCKED = "duplicate_blocked"
    INITIATED = "initiated"
    RINGING = "ringing"
    ANSWERED = "answered"
    COMPLETED = "completed"
    BUSY = "busy"
    NO_ANSWER = "no_answer"


class Proof(StrEnum):
    """What shows that a request is the provider's.

    ``SIGNATURE``: it proves itself by one of the channel's secrets. ``CREDENTIAL``: the provider signs nothing, and the
    tenant's API key or ingest token, without which nobody gets here, is all there is; a channel that has secrets all
    the same asks for their proof as well.
    """

    SIGNATURE = "signature"
    CREDENTIAL = "credential"


class Source(StrEnum):
    """How a callback came to be read: the provider posted it, its API told it, or it was sent through once more."""

    CALLBACK = "callback"
    BACKFILL = "backfill"
    REPLAY = "replay"


class MalformedError(ValueError):
    """A body, or one part of it, that the adapter cannot read. It becomes a dead letter with this message as its
    reason."""


class InvalidSecretError(ValueError):
    """A secret that cannot be one of this provider's (a key that does not decode, say). The message names the fix."""


class RawCallback(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request as the provider made it.

    ``url`` is the public URL, query included; ``headers`` are ASGI pairs with lower-case names; ``body`` is exactly
    the bytes that arrived. What was stored has no signature among its headers, and a record of the provider's API has
    no headers at all.
    """

    method: str
    url: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first value of the header ``name`` (lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not the provider's. ``code`` is a short, stable word for metrics (``signature_missing``,
    ``signature_invalid``, ``secret_missing``, ``body_hash_mismatch``, …); ``detail`` is a sentence for people and
    holds no secret. ``too_large`` says that the body was not looked at because it is larger than any of the provider's:
    the answer is then 413, not 403."""

    code: str
    detail: str
    too_large: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider is told. ``content_type`` empty: the answer names none, which only goes with an empty body."""

    status: int = 200
    content_type: str = ""
    body: bytes = b""


class Verifier(Protocol):
    """A channel's secrets, prepared once so that a request costs as little as possible."""

    def verify(self, callback: RawCallback) -> Refusal | None:
        """None when any of the channel's secrets proves the request authentic. Never raises, whatever the request
        holds."""
        ...


class ChannelSettings(BaseModel):
    """Settings that every channel has; a provider adds its own fields. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    communication_keys: tuple[str, ...] = Field(
        default=("communicationId", "offerId", "campaign"),
        max_length=16,
        description="Names of custom parameters, matched whatever their case; the first that an event carries joins "
        "its message to a communication.",
    )

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any]) -> Self:
        """The settings of a channel as it is stored. ValidationError when they do not fit.

        Fields that this version does not know are ignored: a newer one wrote them, and the channel must go on working
        while copies of both run. Refusing unknown fields is for what people send.
        """
        return cls.model_validate({name: value for name, value in stored.items() if name in cls.model_fields})


S = TypeVar("S", bound=ChannelSettings)


class Context(msgspec.Struct, Generic[S], frozen=True, gc=False):
    """What holds for all parts of one callback; made once for them.

    ``parameters`` are the custom parameters of the callback's URL, in their order; names may repeat. A record of the
    provider's API, ``source`` BACKFILL, was asked for by Backhaul and is read otherwise than a callback where it looks
    otherwise. ``received_at_us`` is the arrival at Backhaul, unix time in microseconds.
    """

    settings: S
    parameters: Sequence[tuple[str, str]] = ()
    source: Source = Source.CALLBACK
    received_at_us: int = 0


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """A part that is understood and tells nothing that anybody keeps, such as that a person is typing. It is counted by
    its ``reason``, one of the adapter's ``ignores``, and is neither an event nor a dead letter."""

    reason: str


class AddressFamily(StrEnum):
    """Which kind of address a recipient's is. Consent is kept by family: ``PHONE`` is for messages to a number,
    ``VOICE`` for calls to one."""

    UNKNOWN = ""
    PHONE = "phone"
    EMAIL = "email"
    VOICE = "voice"


class ConsentAction(StrEnum):
    """What a person said about being contacted."""

    HELP = "help"
    OPT_IN = "opt_in"
    OPT_OUT = "opt_out"


class ConsentBy(StrEnum):
    """Who decided what a person meant: we, by a keyword in what the person wrote, or the provider, which knows the
    tenant's own keywords and has acted upon them already. The greater one counts."""

    KEYWORD = "keyword"
    PROVIDER = "provider"


class ConsentScope(StrEnum):
    """What a person's word covers, as far as the provider says."""

    UNKNOWN = ""
    MESSAGING_SERVICE = "messaging_service"
    GROUP = "group"


class Consent(msgspec.Struct, frozen=True, order=True, omit_defaults=True, gc=False):
    """That a person does not want to be contacted, wants to be again, or asks for help.

    ``word`` is the keyword that they used, as they wrote it but in capitals. ``scope`` is the provider's id of what
    ``scope_kind`` names (an unsubscribe group, say); both are empty where the provider names nothing. Of two that
    differ the greater one stands, by the fields in their order.
    """

    by: ConsentBy
    action: ConsentAction
    word: str = ""
    scope_kind: ConsentScope = ConsentScope.UNKNOWN
    scope: str = ""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What an inbound message answers: the message that it refers to, by the provider's id, and the button or option
    that was chosen, by what the sender attached to it (``payload``) and by what the person saw (``option``)."""

    message_id: str = ""
    payload: str = ""
    option: str = ""


class NormalizedEvent(msgspec.Struct, gc=False):
    """One fact, as the adapter understands it.

    ``key`` identifies the fact within tenant, channel and provider: the same fact has the same key whether it arrives
    as a callback, a duplicate or a backfill, and different facts differ. ``occurred_at_us`` is unix time in
    microseconds, None where the provider does not say. ``vars`` are the sender's custom parameters, ``attributes``
    what the provider told beyond the common fields, each name once.

    ``message_id`` names one message to one person. ``aliases`` are further names of the same message that events which
    lack the first one may use; ``provisional`` says that ``message_id`` is itself such a further name, so that the
    event belongs to whichever message has it as an alias. ``references`` are texts by which people look the message
    up, and which several messages may share (what the provider's API answered to the sending, say). ``by_machine``
    marks an opening or a click that no person made.

    ``consent`` is what a person said about being contacted, ``reply`` what an inbound message answers; None where an
    event says nothing of the kind. ``recipient_family`` is which kind of address the recipient's is.
    """

    kind: EventKind
    key: str
    provider_status: str
    message_id: str = ""
    recipient: str = ""
    sender: str = ""
    occurred_at_us: int | None = None
    error_code: str = ""
    error_text: str = ""
    text: str = ""
    invalid_recipient: bool = False
    provisional: bool = False
    by_machine: bool = False
    recipient_family: AddressFamily = AddressFamily.UNKNOWN
    consent: Consent | None = None
    reply: Reply | None = None
    aliases: list[str] = []
    references: list[str] = []
    vars: list[tuple[str, str]] = []
    attributes: list[tuple[str, str]] = []


class Adapter(ABC, Generic[S]):
    """One provider. Everything about it lives in its folder under ``providers/``. ``S`` are its channels' settings."""

    provider: ClassVar[str]
    """The folder's name; stored with every callback and event."""

    labels: ClassVar[tuple[str, ...]]
    """The channel labels that mean this provider where a tenant does not say otherwise. Several providers may offer one
    label; then the tenant says which."""

    settings_model: ClassVar[type[ChannelSettings]] = ChannelSettings

    proof: ClassVar[Proof] = Proof.SIGNATURE
    """What shows that a request is the provider's, unless a channel has secrets, which always count."""

    own_parameters: ClassVar[frozenset[str]] = frozenset()
    """Query parameters that the provider itself adds to the URL (a signature's, say), in lower case; matched whatever
    their case. They are no custom parameters of the sender, and may differ each time that a fact arrives."""

    signature_headers: ClassVar[frozenset[bytes]] = frozenset()
    """Names, in lower case, of the headers that hold a signature. They are not kept with the callback: whoever reads
    what is stored has no use for them, and could make another request of a signed one."""

    accepted: ClassVar[Answer] = Answer()
    """What the provider wants to hear of a callback that was accepted. Encoded once a channel, not once a request."""

    signs_url: ClassVar[bool] = True
    """Whether the signature covers the URL. Where it does not, whoever holds one signed request can post it again with
    another query, so nothing of a duplicate's query is believed."""

    puller: ClassVar[Puller[Any, Any] | None] = None
    """How the provider's API is asked for what callbacks failed to tell; None where it has no such API."""

    once: ClassVar[frozenset[EventKind]] = frozenset()
    """Kinds that happen to a message once, whoever tells of them how often: a second event of such a kind and of one
    message is a duplicate, whatever its key. For facts to which the provider's callbacks and its API give different
    keys."""

    ignores: ClassVar[frozenset[str]] = frozenset()
    """The reasons for which ``normalize`` ignores a part: short, stable words, since a metric has one row for each."""

    def handshake(self, callback: RawCallback, secrets: Sequence[str], settings: S) -> Answer | None:  # noqa: ARG002  # for those that override it.
        """The answer to a request by which the provider only asks whether the address is the tenant's; None for any
        other. Called before verification, and only where an adapter overrides it. Never raises."""
        return None

    def verifier(self, secrets: Sequence[str], settings: S) -> Verifier:  # noqa: ARG002  # for those that override it.
        """Prepare ``secrets`` (any of them may sign; more than one while they rotate). With none, or only blank ones,
        the verifier refuses everything. Raises InvalidSecretError for a secret that cannot be this provider's.

        As it is here it belongs to a provider that signs nothing: any secret would be one that proves nothing.
        """
        if any(secret.strip() for secret in secrets):
            raise InvalidSecretError(
                f"The provider {self.provider} signs nothing, so no secret can prove its requests. Leave secrets "
                "empty: the tenant's API key or ingest token is the proof."
            )
        return _NothingToCheck()

    @abstractmethod
    def split(self, callback: RawCallback, settings: S) -> Sequence[bytes]:
        """The provider's events in ``callback``, each verbatim, in order; none for an array that is legal and empty.
        Raises MalformedError for a body that cannot hold any."""

    @abstractmethod
    def normalize(self, part: bytes, context: Context[S]) -> NormalizedEvent | Ignored:
        """One part of ``split`` as a fact. Deterministic. Raises MalformedError when the part cannot be read; a status
        that the provider's table does not know is no error but EventKind.UNKNOWN."""


class _NothingToCheck:
    """Refuses whatever it is asked: nothing about the request proves anything."""

    def verify(self, callback: RawCallback) -> Refusal | None:  # noqa: ARG002  # the Verifier protocol.
        return Refusal("secret_missing", "The provider signs nothing, so there is no secret to verify with.")
