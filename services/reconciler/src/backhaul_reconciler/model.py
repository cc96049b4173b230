"""The reconciler's values. Times are unix time in microseconds; states are words of the contract's EventKind."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final, NamedTuple, Self

DAY_US: Final = 86_400_000_000


class ChannelOf(NamedTuple):
    """One channel of one life of a tenant's id. ``channel`` is its key."""

    tenant: str
    registration: str
    channel: str

    @property
    def id(self) -> str:
        """The id of its document, with which those of its differences and days begin."""
        return f"{self.registration}/{self.channel}"


class _Stored(StrEnum):
    """Words that are stored, of which a newer copy of the service may have more."""

    @classmethod
    def of(cls, word: str) -> Self:
        """The value of a stored word; ``UNSPECIFIED`` where only a newer copy knows it."""
        return cls(word if word in cls._value2member_map_ else "unspecified")


class Cause(_Stored):
    """Why a run began."""

    UNSPECIFIED = "unspecified"
    SCHEDULE = "schedule"
    CALL = "call"


class RunState(_Stored):
    """How a run stands."""

    UNSPECIFIED = "unspecified"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"


class Standing(_Stored):
    """How it stands with asking a channel's provider."""

    UNSPECIFIED = "unspecified"
    ASKED = "asked"
    NO_API = "no_api"
    NO_CREDENTIALS = "no_credentials"
    CREDENTIALS_REFUSED = "credentials_refused"
    WAITING = "waiting"
    FAILING = "failing"
    OFF = "off"


class DayState(_Stored):
    """How the account of a day stands."""

    UNSPECIFIED = "unspecified"
    OPEN = "open"
    CLOSED = "closed"
    CANNOT_BE_CLOSED = "cannot_be_closed"


class DifferenceKind(_Stored):
    """How both sides differ."""

    UNSPECIFIED = "unspecified"
    STATE = "state"
    UNKNOWN_TO_PROVIDER = "unknown_to_provider"


class Verdict(StrEnum):
    """How what a record tells stands to what is stored."""

    KNOWN = "known"
    MISSING = "missing"
    BETTER = "better"
    IGNORED = "ignored"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Counts:
    """What a run found, as the contract's Counts has it."""

    seen: int = 0
    known: int = 0
    missing: int = 0
    better: int = 0
    unreadable: int = 0
    differing: int = 0
    open: int = 0
    unknown_to_provider: int = 0
    requests: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def told(self) -> dict[str, int]:
        """Those that are not zero, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name)}


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that begins. ``id`` is 32 lower-case hex digits; it asks about ``from_us`` inclusive to ``to_us``
    exclusive."""

    id: str
    cause: Cause
    from_us: int
    to_us: int
    began_at_us: int
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """A run as far as it is. ``ended_at_us`` is 0 while it runs, ``text`` empty unless it stopped."""

    begun: Begun
    channel: str
    state: RunState
    text: str
    counts: Counts
    ended_at_us: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the provider and Backhaul differ about a message. States and codes are empty where there are none."""

    message_id: str
    kind: DifferenceKind
    our_state: str = ""
    our_error_code: str = ""
    provider_state: str = ""
    provider_error_code: str = ""


@dataclass(frozen=True, slots=True)
class Day:
    """The account of a day (UTC, "2026-11-25") as it was last compared. ``backfilled`` are those of ``equal`` that no
    callback told of."""

    day: str
    state: DayState
    text: str = ""
    provider_messages: int = 0
    equal: int = 0
    backfilled: int = 0
    differing: int = 0
    open: int = 0
    unknown_to_provider: int = 0
    compared_at_us: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the normalizer says of one record: see the contract. States are empty where they are not known."""

    verdict: Verdict
    message_id: str = ""
    message_known: bool = False
    told_state: str = ""
    told_error_code: str = ""
    stored_state: str = ""
    stored_error_code: str = ""
    state_after: str = ""
    occurred_at_us: int = 0
    heard_at_us: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OpenMessage:
    """A message of ours that is still on its way, or was sent within some span."""

    message_id: str
    state: str
    error_code: str
    created_at_us: int
