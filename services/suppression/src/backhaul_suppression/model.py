"""What suppression is about. Values, and nothing else: facts that were said, and the rows that follow from them.

A *fact* is one thing that somebody said about one address: an event, or a call. Facts are kept for ever, and never
changed but by a later revision of their event. A *row* is what follows from all facts about it: whether an address is
suppressed for one kind of reason within one scope. So rows depend on what was said, and not on when it was heard.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from backhaul_common.ids import derived_id


class Family(StrEnum):
    """Which kind of address it is: for messages to a number (or another name on a channel), for mails, for calls."""

    PHONE = "phone"
    EMAIL = "email"
    VOICE = "voice"


class Kind(StrEnum):
    """Why an address is suppressed. The words are those of ``SuppressionKind``, which explains them."""

    STOP = "stop"
    UNSUBSCRIBE = "unsubscribe"
    COMPLAINT = "complaint"
    HARD_BOUNCE = "hard_bounce"
    INVALID_ADDRESS = "invalid_address"
    PROVIDER_BLOCK = "provider_block"
    MANUAL = "manual"
    LEGAL = "legal"


class Origin(StrEnum):
    """Whose word a fact is."""

    RECIPIENT = "recipient"
    PROVIDER = "provider"
    TENANT = "tenant"
    OPERATOR = "operator"
    IMPORT = "import"


class Source(StrEnum):
    """By which way a fact was heard of."""

    EVENT = "event"
    WEB = "web"
    AGENT = "agent"
    EMAIL = "email"
    VOICE = "voice"
    LETTER = "letter"
    API = "api"
    FILE = "file"


class Purpose(StrEnum):
    """What a message is for."""

    MARKETING = "marketing"
    TRANSACTIONAL = "transactional"


class ScopeKind(StrEnum):
    """What a suppression covers."""

    ALL = "all"
    SENDER = "sender"
    MESSAGING_SERVICE = "messaging_service"
    GROUP = "group"


class Scope(NamedTuple):
    """One scope. ``id`` is empty for ``ALL``, and canonical (``addresses.scope_id``) for ``SENDER``."""

    kind: ScopeKind
    id: str = ""


EVERYTHING = Scope(ScopeKind.ALL)


class Address(NamedTuple):
    """A canonical address of a registration's people. A number of a channel keeps it (``whatsapp:+…``)."""

    registration: str
    family: Family
    text: str


class RowKey(NamedTuple):
    """Which row."""

    address: Address
    kind: Kind
    scope: Scope

    @property
    def id(self) -> str:
        """32 hex digits."""
        registration, family, text = self.address
        # Addresses and scopes may hold anything; how long the first is parts them.
        return derived_id(
            "suppression", registration, family, self.kind, self.scope.kind, str(len(text)), text + self.scope.id
        )


class Sending(NamedTuple):
    """What a message will be sent as. None may be any; of the three last, empty text is none of that kind."""

    purpose: Purpose | None = None
    sender: str | None = None
    messaging_service: str | None = None
    group: str | None = None


class Blocked(NamedTuple):
    """An active row that says no: ``id`` is its ``RowKey.id``, ``event_id`` empty where no event says so."""

    id: str
    kind: Kind
    scope: Scope
    since_us: int
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Proof that a person said something. ``at_us`` is unix time in microseconds, ``reference`` the tenant's."""

    source: Source
    at_us: int
    reference: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A row that a fact is about, within the fact's address."""

    kind: Kind
    scope: Scope


@dataclass(frozen=True, slots=True)
class Fact:
    """What was said about one address.

    ``id`` is 32 hex digits: the event's id, or derived from a call. A higher ``revision`` replaces a lower one; one
    without ``targets`` says that nothing follows any more. Times are unix time in microseconds: ``effective_at_us``
    when it happened at its source, ``recorded_at_us`` when what it says was first recorded here. Of two facts about one
    row the later one counts, by ``order``.
    """

    id: str
    tenant_id: str
    address: Address
    lifts: bool
    targets: tuple[Target, ...]
    effective_at_us: int
    recorded_at_us: int
    origin: Origin
    source: Source
    revision: int = 0
    event_id: str = ""
    author: str = ""
    evidence: Evidence | None = None
    channel: str = ""
    message_id: str = ""
    word: str = ""
    note: str = ""
    traceparent: str = ""

    @property
    def order(self) -> tuple[int, str]:
        """By when it happened; ties by id."""
        return self.effective_at_us, self.id


@dataclass(frozen=True, slots=True)
class Row:
    """What follows from all facts about ``key``.

    Active, it holds ``fact_id`` and ``since_us`` of the first fact that suppresses behind the last one that lifts;
    lifted, those of the last one that lifts. ``recorded_at_us``, ``origin``, ``source``, ``event_id`` and ``author``
    are that fact's. ``position`` is that of its last change, in the tenant's order.
    """

    key: RowKey
    active: bool
    since_us: int
    fact_id: str
    recorded_at_us: int
    origin: Origin
    source: Source
    event_id: str = ""
    author: str = ""
    due_by_us: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A row became what it is. ``seq`` numbers the changes of everybody, ``position`` those of a registration: both
    from 1, without gaps, in the order in which they were committed."""

    seq: int
    position: int
    row: Row
    fact: Fact
    at_us: int
