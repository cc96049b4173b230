"""What the API answers about communications, their batches, and these batches' members."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from backhaul_client.models import Communication, MessageSummary


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a communication. ``environments`` are variables by mode; ``completes_on`` is ``processed`` or
    ``final``."""

    name: str
    mode: str
    channel: str
    notify: tuple[str, ...]
    deadline_hours: float
    completes_on: str
    environments: Mapping[str, Mapping[str, str]]


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """That it was disabled, or enabled again: why, by whom, and when."""

    disabled: bool
    reason: str
    author: str
    at: datetime | None


class BatchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch is. Each destination counts once: in its message's fulfilment state, or as ``waiting``."""

    members: int
    destinations: int
    waiting: int
    fulfilment: Mapping[str, int]
    processed: int
    final: int


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a communication that is completed by itself. ``status`` is ``open``, ``closed`` or ``complete``,
    ``completed_by`` is ``condition`` or ``deadline``."""

    id: str
    communication_id: str
    label: str
    status: str
    completes_on: str
    expected_members: int | None
    created_at: datetime | None
    deadline: datetime | None
    closed_at: datetime | None
    completed_at: datetime | None
    completed_by: str | None
    progress: BatchProgress
    at_completion: BatchProgress | None
    changed_since: int


class MessageErrorCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages have that error code."""

    channel: str
    error_code: str
    count: int


class CommunicationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A communication without its counts. ``registered`` is None of one that events alone have named. ``status`` is
    ``active``, ``complete`` or ``disabled``; ``switched`` are the latest times that this changed, newest first."""

    id: str
    registered: Registered | None
    status: str
    created_at: datetime | None
    updated_at: datetime | None
    batch_count: int
    batches_complete: int
    switched: tuple[Switched, ...]


class CommunicationRecord(Communication, frozen=True, kw_only=True):
    """All that is known of a communication: what is registered, its counts, and its newest batches."""

    registered: Registered | None
    status: str
    errors: tuple[MessageErrorCount, ...]
    batches: tuple[Batch, ...]
    more_batches: bool
    batch_count: int
    batches_complete: int
    switched: tuple[Switched, ...]
    updated_at: datetime | None


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one person. ``message`` is the one that counts for it; None while none is known."""

    channel: str
    recipient: str
    message: MessageSummary | None


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One person of a batch, by the sender's own key."""

    member_key: str
    attributes: Mapping[str, str]
    destinations: tuple[Destination, ...]


class MembersImported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file of members, in lines. ``errors`` is a file of the refused ones, in the format of what was
    sent, cut off at 1 MiB; ``errors_complete`` says whether that is all."""

    lines: int
    added: int
    changed: int
    unchanged: int
    refused: int
    errors: str
    errors_complete: bool


class RefusedMember(msgspec.Struct, frozen=True, kw_only=True):
    """One that was not taken: the how manieth it was, from 0, the field at fault, what is wrong, and the fix."""

    position: int
    member_key: str
    field: str
    message: str
    fix: str


class MembersAdded(msgspec.Struct, frozen=True, kw_only=True):
    """What became of members. ``refused`` of them were not taken, and ``refusals`` say why of each, as far as an answer
    holds them."""

    added: int
    changed: int
    unchanged: int
    refused: int
    refusals: tuple[RefusedMember, ...]
