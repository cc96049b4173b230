"""What the API answers about the service and about channels, as values; see ``models``."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The service is accessible."""

    status: str
    version: str


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part that a channel depends on. ``state`` is ``OK`` or ``Error``; ``detail`` says what is wrong."""

    state: str
    detail: str | None = None


class ObjectStoragePart(Part, frozen=True, kw_only=True):
    """Object storage; in Error where it is not configured."""

    configured: bool


class CallbacksPart(Part, frozen=True, kw_only=True):
    """When the channel's last callback was stored; None where the log holds none."""

    last_seen_at: datetime | None


class ProcessingPart(Part, frozen=True, kw_only=True):
    """Whether callbacks are processed as they come (``on``) or ``held``, and since when. ``held_messages`` are stored
    messages, each of one callback or several, that wait; None while nobody knows."""

    mode: str
    held_since: datetime | None
    held_messages: int | None


class AuditPart(Part, frozen=True, kw_only=True):
    """The channel's audit files, where its settings ask for them (``asked``). ``waiting_since`` is when the first event
    arrived that lies in no file yet; what was published before ``read_to`` lies in files, or will at once;
    ``weaknesses`` say what the bucket was seen not to hold to; ``locked_files`` are over their time and held by locks,
    the last one until ``locked_until``."""

    asked: bool
    waiting_since: datetime | None
    read_to: datetime | None
    weaknesses: tuple[str, ...]
    locked_files: int
    locked_until: datetime | None


class VerificationPart(Part, frozen=True, kw_only=True):
    """``refused`` counts requests whose signature was bad, at this process of the gateway since it started."""

    mode: str
    secret_count: int
    refused: int


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Every part of a channel's state."""

    queue: Part
    store: Part
    object_storage: ObjectStoragePart
    callbacks: CallbacksPart
    processing: ProcessingPart
    audit: AuditPart
    verification: VerificationPart


class ChannelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``Error`` when any part is."""

    state: str
    channel: str
    provider: str
    parts: Parts
