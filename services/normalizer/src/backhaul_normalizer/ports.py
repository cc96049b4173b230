"""What the normalizer needs from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from backhaul_channels import Review
from backhaul_common import batches
from backhaul_common.documents import Document
from backhaul_common.feed import StreamMessage
from backhaul_common.tenants import Listener, Tenant
from backhaul_proto.callback.v1.callback_pb2 import Callback

from backhaul_normalizer.model import Committed, Fact, Outgoing, Rejection


class Tenants(Protocol):
    """Who is served."""

    def get(self, tenant_id: str) -> Tenant | None:
        """The tenant as it was last heard of, or None."""
        ...

    async def reload(self, tenant_id: str) -> Tenant | None:
        """Read the tenant now. UNAVAILABLE while the tenants are away."""
        ...

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` with every tenant that is known, and with every change from now on."""
        ...


class KnownTenants(Protocol):
    """Who may be asked about."""

    async def require(self, tenant_id: str) -> Tenant:
        """The tenant, read now if it was not heard of. NOT_FOUND; UNAVAILABLE."""
        ...

    async def reload(self, tenant_id: str) -> Tenant | None:
        """Read the tenant now. UNAVAILABLE while the tenants are away."""
        ...


class EventStore(Protocol):
    """Where events, message states, counts and dead letters are kept."""

    async def commit(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> Committed:
        """Store a batch, all or nothing. UNAVAILABLE when the store is away. TooMuchError where ``facts`` need so much
        of what is stored that half of them at a time is better, which is never so of one."""
        ...

    async def takes_writes(self) -> None:
        """Returns when the store takes what is written to it, and leaves nothing there; UNAVAILABLE otherwise."""
        ...

    async def ping(self) -> None:
        """Returns when the store answers; UNAVAILABLE otherwise."""
        ...


class Publisher(Protocol):
    """Where normalised events go."""

    async def publish(self, events: Sequence[Outgoing], traceparent: str, *, again: bool = False) -> None:
        """Returns when all are stored; raises when any may not be. ``again``: whatever the events say, all of them may
        have been published before."""
        ...


class Feed(batches.Feed, Protocol):
    """Callbacks of all tenants, fairly."""

    @property
    def anew(self) -> int:
        """What lies up to this position may have been processed before, into a database that was set back since."""
        ...

    @property
    def beside(self) -> bool:
        """Whether others' callbacks come beside a flood, or did a moment ago."""
        ...

    async def catch_up(self) -> None:
        """Returns when what is on its way here has arrived, or a moment is over."""
        ...

    async def take_back(self, messages: Sequence[StreamMessage]) -> None:
        """Have ``messages``, which were taken last, before all others of their tenants' again."""
        ...


class Holding(NamedTuple):
    """A message that is to be set aside: the position by which it is known, whose it is, and how many callbacks it
    has."""

    message: StreamMessage
    position: int
    tenant: str
    registration: str
    channel: str
    callbacks: int


class Holds(Protocol):
    """Where callbacks of channels that are held wait."""

    def holds(self, registration: str, channel: str, subject: str) -> bool:
        """Whether callbacks of that channel, which lie under ``subject``, are held, as far as this copy knows."""
        ...

    async def set_aside(self, held: Sequence[Holding]) -> Sequence[StreamMessage]:
        """Have them wait, for as long as it takes. Returns those that may not be stored there, as where the stream is
        full. What belongs to a registration that is gone is left as it is: nobody will read it. UNAVAILABLE."""
        ...


class DeadLetters(Protocol):
    """Where dead letters are looked up and closed."""

    async def dead_letter(self, registration: str, dead_letter_id: str) -> Document | None:
        """The dead letter, or None."""
        ...

    async def close_dead_letter(
        self, registration: str, dead_letter: Document, state: str, *, replay: str = ""
    ) -> Document | None:
        """Close it unless it changed since it was read; None if it did. ``replay`` is the task that sent it through."""
        ...


class Reviews(Protocol):
    """Where it is kept what tenants decide about replies."""

    async def decide(self, tenant: Tenant, event_id: str, review: Review, traceparent: str) -> Document:
        """Accept or dismiss a flagged reply; the stored event as it is then. NOT_FOUND; FAILED_PRECONDITION;
        UNAVAILABLE."""
        ...


class CallbackPublisher(Protocol):
    """Puts a callback into CALLBACKS."""

    async def publish(self, queue_path: str, callback: Callback, message_id: str) -> None:
        """Returns when it is stored; ``message_id`` stored twice in a short time is stored once."""
        ...
