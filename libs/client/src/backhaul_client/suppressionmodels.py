"""What the API answers about who must not be contacted. Words are plain texts, so that a new one is no error."""

from __future__ import annotations

from datetime import datetime

import msgspec

from backhaul_client.errors import FieldError


class SuppressionScope(msgspec.Struct, frozen=True, kw_only=True):
    """What a suppression covers: ``all``, or one ``sender``, ``messaging_service`` or ``group`` by its ``id``."""

    kind: str
    id: str | None


class Suppression(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an address is suppressed for one kind of reason within one scope. One that is not ``active`` was lifted.
    ``since`` is when it happened at its source, or when it was lifted; ``due_by`` by when it must be honoured."""

    id: str
    family: str
    address: str
    kind: str
    scope: SuppressionScope
    active: bool
    since: datetime | None
    recorded_at: datetime | None
    origin: str
    source: str
    event_id: str | None
    author: str | None
    due_by: datetime | None
    blocks: tuple[str, ...]
    position: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that a person said something."""

    source: str
    at: datetime | None
    reference: str
    text: str


class SuppressionFact(msgspec.Struct, frozen=True, kw_only=True):
    """What was said about an address, by an event or by a call. Unless it ``lifts``, it suppresses."""

    id: str
    lifts: bool
    effective_at: datetime | None
    recorded_at: datetime | None
    origin: str
    source: str
    event_id: str | None
    author: str | None
    evidence: Evidence | None
    channel: str
    message_id: str
    word: str
    note: str


class SuppressionChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one row: the row as it is since, and what brought it about."""

    position: int
    at: datetime | None
    suppression: Suppression
    fact: SuppressionFact


class AddressRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of an address: its rows, lifted ones too, and a page of its history, the latest first."""

    address: str
    family: str
    suppressions: tuple[Suppression, ...]
    history: tuple[SuppressionChange, ...]
    next_cursor: str | None


class SuppressionOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The row as it is now, and whether the call changed it."""

    suppression: Suppression
    changed: bool


class Reactivated(msgspec.Struct, frozen=True, kw_only=True):
    """The rows that were lifted."""

    suppressions: tuple[Suppression, ...]


class Blocking(msgspec.Struct, frozen=True, kw_only=True):
    """A row that says no."""

    suppression_id: str
    kind: str
    scope: SuppressionScope
    since: datetime | None
    event_id: str | None


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an address may be contacted; where not, ``blocking`` are the rows that say so."""

    verdict: str
    blocking: tuple[Blocking, ...]

    @property
    def allowed(self) -> bool:
        """Whether it may be contacted. Never where anything is not known."""
        return self.verdict == "allowed"

    def __bool__(self) -> bool:
        raise TypeError("An answer is neither true nor false: ask for its allowed.")


class CheckResult(Checked, frozen=True, kw_only=True):
    """The answer about one address of a batch. ``error`` says what is wrong with one that is ``invalid``."""

    correlation_id: str
    error: FieldError | None


class CheckItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One address of a batch. ``correlation_id`` comes back with its result."""

    address: str
    correlation_id: str = ""


class BatchChecked(msgspec.Struct, frozen=True, kw_only=True):
    """One result for each address, in their order."""

    results: tuple[CheckResult, ...]


class SuppressionChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Changes in the order of their positions. What follows is asked for with ``after=next_position``."""

    changes: tuple[SuppressionChange, ...]
    next_position: int


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a list, in lines. ``errors`` is a file of the refused ones, in the list's own format, cut off at
    1 MiB; ``errors_complete`` says whether that is all."""

    lines: int
    changed: int
    unchanged: int
    refused: int
    errors: str
    errors_complete: bool


class ImportProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a list is, in lines. ``errors`` is the next piece of the file of the refused ones. The last one is
    ``done``; where none is, the answer was cut off."""

    lines: int
    changed: int
    unchanged: int
    refused: int
    errors: str
    done: bool
