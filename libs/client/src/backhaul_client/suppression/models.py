"""What is asked of suppression and what it answers, as values. Times are in UTC.

Fields that a newer service adds are ignored. A word that is newer than this client reads as ``UNKNOWN``, and cannot be
sent: a row of an unknown kind blocks like any other.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NoReturn

import msgspec

from backhaul_client.errors import BackhaulError, FieldError


class Family(StrEnum):
    """Which kind of address it is: a number (or another name on a channel) for messages, one for mails, for calls."""

    PHONE = "phone"
    EMAIL = "email"
    VOICE = "voice"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """Why an address is suppressed."""

    STOP = "stop"
    UNSUBSCRIBE = "unsubscribe"
    COMPLAINT = "complaint"
    HARD_BOUNCE = "hard_bounce"
    INVALID_ADDRESS = "invalid_address"
    PROVIDER_BLOCK = "provider_block"
    MANUAL = "manual"
    LEGAL = "legal"
    UNKNOWN = "unknown"


class Origin(StrEnum):
    """Whose word it is."""

    RECIPIENT = "recipient"
    PROVIDER = "provider"
    TENANT = "tenant"
    OPERATOR = "operator"
    IMPORT = "import"
    UNKNOWN = "unknown"


class Source(StrEnum):
    """By which way it was heard of."""

    EVENT = "event"
    WEB = "web"
    AGENT = "agent"
    EMAIL = "email"
    VOICE = "voice"
    LETTER = "letter"
    API = "api"
    FILE = "file"
    UNKNOWN = "unknown"


class Purpose(StrEnum):
    """What a message is for."""

    MARKETING = "marketing"
    TRANSACTIONAL = "transactional"
    UNKNOWN = "unknown"


class ScopeKind(StrEnum):
    """What a suppression covers: everything, or what comes from one sender, messaging service or group."""

    ALL = "all"
    SENDER = "sender"
    MESSAGING_SERVICE = "messaging_service"
    GROUP = "group"
    UNKNOWN = "unknown"


class Standing(StrEnum):
    """Which rows are listed: those that suppress, those that were lifted, or both."""

    ACTIVE = "active"
    LIFTED = "lifted"
    ANY = "any"


class Actor(StrEnum):
    """On whose behalf something is changed. Few callers may act for the operator."""

    TENANT = "tenant"
    OPERATOR = "operator"


class FileFormat(StrEnum):
    """The form of a list: CSV with a header line, or a JSON object a line."""

    CSV = "csv"
    JSON_LINES = "json_lines"


class Verdict(StrEnum):
    """The answer to one question. Like every text it would be true as a condition, so it refuses to be one."""

    ALLOWED = "allowed"
    SUPPRESSED = "suppressed"
    INVALID = "invalid"
    UNANSWERED = "unanswered"

    def __bool__(self) -> NoReturn:
        raise TypeError("A verdict is neither true nor false: compare it, as in verdict == Verdict.ALLOWED.")


class Scope(msgspec.Struct, frozen=True):
    """One scope. ``id`` is empty for ``ALL``."""

    kind: ScopeKind = ScopeKind.ALL
    id: str = ""


EVERYTHING = Scope()


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """What a message will be sent as. A row of one sender, messaging service or group is passed over only where another
    one of that kind is named here, or none of it by an empty text; None may be any. Without a purpose every row blocks.
    """

    purpose: Purpose | None = None
    sender: str | None = None
    messaging_service: str | None = None
    group: str | None = None


ANYTHING = Sending()


class Item(msgspec.Struct, frozen=True):
    """One address of a batch. ``correlation_id`` comes back with its result."""

    address: str
    correlation_id: str = ""


class Blocking(msgspec.Struct, frozen=True, kw_only=True):
    """A row that says no. ``event_id`` is empty where no event says so."""

    suppression_id: str
    kind: Kind
    scope: Scope
    since: datetime
    event_id: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one address.

    ``blocking`` are all rows that say no. ``error`` says what is wrong with an address that is INVALID. UNANSWERED
    comes only of ``if_unavailable="allow"``: nothing is known, for the reason in ``unavailable``, and the caller wanted
    to send nevertheless.
    """

    address: str
    verdict: Verdict
    blocking: tuple[Blocking, ...] = ()
    correlation_id: str = ""
    error: FieldError | None = None
    unavailable: BackhaulError | None = None

    @property
    def allowed(self) -> bool:
        """Whether it may be sent: ALLOWED, or UNANSWERED, which the caller has asked for. Never of INVALID."""
        return self.verdict in (Verdict.ALLOWED, Verdict.UNANSWERED)

    def __bool__(self) -> NoReturn:
        raise TypeError("An answer is neither true nor false: ask for answer.allowed.")


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that a person said something: by which way, when, and where the tenant finds it."""

    source: Source
    at: datetime
    reference: str
    text: str = ""


class Suppression(msgspec.Struct, frozen=True, kw_only=True):
    """One row: whether an address is suppressed for one kind of reason within one scope. ``since`` is when it happened
    at its source, or when it was lifted. Of ``event_id`` and ``author`` one says so. ``due_by``: by when it must be
    honoured; None of a lifted row. ``position`` is that of its last change."""

    id: str
    family: Family
    address: str
    kind: Kind
    scope: Scope
    active: bool
    since: datetime
    recorded_at: datetime
    origin: Origin
    source: Source
    event_id: str
    author: str
    due_by: datetime | None
    blocks: tuple[Purpose, ...]
    position: int


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """What was said about an address, by an event or by a call. ``word`` is the keyword, or the provider's code."""

    id: str
    lifts: bool
    effective_at: datetime
    recorded_at: datetime
    origin: Origin
    source: Source
    event_id: str
    author: str
    evidence: Evidence | None
    channel: str
    message_id: str
    word: str
    note: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one row: the row as it is since, and what brought it about. ``position`` counts the tenant's
    changes from 1, without gaps."""

    position: int
    suppression: Suppression
    fact: Fact
    at: datetime


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a row. ``changed`` is False where it was so already. ``idempotency_key`` is the call's: the same
    call under the same key changes nothing more."""

    suppression: Suppression
    changed: bool
    idempotency_key: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one address: its rows, lifted ones too, and a page of its history, the latest first."""

    address: str
    family: Family
    suppressions: tuple[Suppression, ...]
    history: tuple[Change, ...]
    next_cursor: str


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an import is, in lines: those that changed a row, that changed none, and that were refused."""

    lines: int
    changed: int
    unchanged: int
    refused: int
    done: bool
