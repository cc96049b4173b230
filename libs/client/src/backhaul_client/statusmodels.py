"""What the API answers about the service and about channels, as values; see ``models``."""

from __future__ import annotations

from datetime import datetime

import msgspec

from backhaul_client.overviewmodels import Problem


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
    """When the channel's last callback was stored; None where the log holds none. ``silence`` is ``none``, ``silent``
    where messages were sent from ``silent_since`` on and nothing is heard, or ``cannot_be_told``; None where no
    callbacks are expected, or nobody says."""

    last_seen_at: datetime | None
    silence: str | None = None
    silent_since: datetime | None = None


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


class ReconciliationPart(Part, frozen=True, kw_only=True):
    """How the channel's provider is asked for what its callbacks did not tell, by a word of
    ``reconciliation.channels()``; None where nobody says. Up to ``discovered_to`` all is known that its lists tell."""

    standing: str | None
    asked_at: datetime | None
    discovered_to: datetime | None


class SubscriptionsPart(Part, frozen=True, kw_only=True):
    """What the tenant's own application is told, of all channels: subscriptions by their states, how many are
    ``failing`` by their latest attempts, and deliveries that wait, are ``held`` while their communication is disabled,
    or have failed for good, each up to 10,000. None where nobody says. In Error while a subscription is stopped by
    Backhaul."""

    active: int | None
    paused: int | None
    disabled: int | None
    failing: int | None
    waiting: int | None
    held: int | None
    failed: int | None
    waiting_since: datetime | None


class SpoolPart(Part, frozen=True, kw_only=True):
    """The tenant's callbacks that the gateway process which answers keeps on its own disk, while they cannot be stored,
    and since when; None where it has no spool."""

    kept: int | None
    kept_since: datetime | None


class HeldPart(Part, frozen=True, kw_only=True):
    """The tenant's callbacks that the gateway process which answers holds on its own disk, as they were over its rate
    or its share, or it is suspended, their bytes, and the oldest one's time; None where it has no spool. In Error while
    no more are held."""

    callbacks: int | None
    bytes: int | None
    since: datetime | None


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
    reconciliation: ReconciliationPart | None = None
    subscriptions: SubscriptionsPart | None = None
    spool: SpoolPart | None = None
    held: HeldPart | None = None


class ChannelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``Error`` when any part is, or any of the ``problems``: what the overview says of the channel, and of all
    channels. ``away`` are the services that did not say what they know of problems."""

    state: str
    channel: str
    provider: str
    parts: Parts
    problems: tuple[Problem, ...] = ()
    away: tuple[str, ...] = ()
