"""What a provider adapter is: pure functions from a raw request to domain objects.

An adapter does no I/O and knows no framework. The gateway calls ``verifier`` once a channel and
``Verifier.verify`` once a request; the normalizer calls ``split`` once a callback and ``normalize`` once a part, each
with what holds for the whole callback.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import msgspec
from pydantic import BaseModel

from backhaul_channels.event import AddressFamily, ErrorMeaning, EventKind, Ignored, NormalizedEvent
from backhaul_channels.settings import ChannelSettings

if TYPE_CHECKING:
    from backhaul_channels.pull import Puller


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
    no headers at all. ``received_at_us`` is the arrival at Backhaul, unix time in microseconds: an adapter has no
    clock, and some proofs are good for a few minutes only. ``audience`` is an opaque text that names the channel, of
    this life of its tenant; a proof that was issued for one channel is good for no other.
    """

    method: str
    url: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    received_at_us: int = 0
    audience: str = ""

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


class Adapter(ABC, Generic[S]):
    """One provider. Everything about it lives in its folder under ``providers/``. ``S`` are its channels' settings."""

    provider: ClassVar[str]
    """The folder's name; stored with every callback and event."""

    labels: ClassVar[tuple[str, ...]]
    """The channel labels that mean this provider where a tenant does not say otherwise. Several providers may offer one
    label; then the tenant says which. One without labels is always said."""

    settings_model: ClassVar[type[ChannelSettings]] = ChannelSettings

    proof: ClassVar[Proof] = Proof.SIGNATURE
    """What shows that a request is the provider's, unless a channel has secrets, which always count. Where a channel's
    settings decide it, this is that of the default ones, and ``proof_of`` says the rest."""

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

    secret_model: ClassVar[type[BaseModel] | None] = None
    """The shape of secrets that have several parts, such as a name and a password; None where a secret is only ever a
    text. ``verifier``, ``handshake`` and ``issue_token`` get such a secret as the text of a JSON object."""

    address_fragment: ClassVar[str] = ""
    """What belongs behind the address that is pasted at the provider, as ``#rc=5``. Providers read it and never send
    it."""

    ignores: ClassVar[frozenset[str]] = frozenset()
    """The reasons for which ``normalize`` ignores a part: short, stable words, since a metric has one row for each."""

    def proof_of(self, settings: S) -> Proof:  # noqa: ARG002  # for those whose settings decide it.
        """``proof`` of a channel with these settings."""
        return self.proof

    def signature_headers_of(self, settings: S) -> frozenset[bytes]:  # noqa: ARG002  # for those whose settings decide it.
        """``signature_headers`` of a channel with these settings."""
        return self.signature_headers

    def handshake(self, callback: RawCallback, secrets: Sequence[str], settings: S) -> Answer | None:  # noqa: ARG002  # for those that override it.
        """The answer to a request by which the provider only asks whether the address is the tenant's; None for any
        other. Called before verification, and only where an adapter overrides it. Never raises."""
        return None

    def issue_token(self, callback: RawCallback, secrets: Sequence[str], settings: S) -> Answer | None:  # noqa: ARG002  # for those that override it.
        """The answer to a request for an access token, which the provider will show with its callbacks; None where this
        provider asks for none. Whatever the request holds, it never raises: a request without the right credentials is
        answered as RFC 6749 says."""
        return None

    def explain(self, code: str) -> ErrorMeaning | None:  # noqa: ARG002  # for those that override it.
        """What an error code of this provider means; None for a code that is not known."""
        return None

    def is_invalid_recipient(self, code: str, settings: S) -> bool:  # noqa: ARG002  # for those that override it.
        """Whether an error code says that the recipient's address can never receive."""
        return False

    def sent_name(self, message_id: str, recipient: str, settings: S) -> tuple[str, bool]:  # noqa: ARG002  # as above.
        """What a message is called that the sender knows by ``message_id``: ``message_id`` and ``provisional`` of a
        NormalizedEvent. Raises MalformedError where that cannot be told without a recipient, or is too long."""
        return message_id, False

    def sent_to(self, message_id: str, recipient: str, settings: S) -> tuple[str, AddressFamily]:  # noqa: ARG002  # as above.
        """A sender's ``recipient`` as the provider's callbacks have it, and of which family it is. The message's id is
        empty where it has none."""
        return recipient, AddressFamily.PHONE if recipient else AddressFamily.UNKNOWN

    def verifier(self, secrets: Sequence[str], settings: S) -> Verifier:  # noqa: ARG002  # for those that override it.
        """Prepare ``secrets``: any of one kind may prove, since they rotate; where they are of several kinds, each kind
        is a proof that must hold. With none, or only blank ones, the verifier refuses everything. Raises
        InvalidSecretError for a secret that cannot be this provider's.

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
