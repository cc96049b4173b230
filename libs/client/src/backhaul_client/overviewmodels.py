"""What an overview tells, as values; see ``models``."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, in words, and where to look. ``severity`` is ``error`` or ``warning``; ``channel`` is None of what
    concerns all of them."""

    severity: str
    part: str
    channel: str | None
    text: str
    look: str


class ChannelAtAGlance(msgspec.Struct, frozen=True, kw_only=True):
    """One channel. ``state`` is that of its worst problem, or ``ok``; ``refused`` counts requests that failed
    verification at the gateway that answered, since it started. What the reconciler says is None where it does not
    answer."""

    label: str
    provider: str
    state: str
    processing: str
    verification: str
    refused: int
    silence: str | None
    silent_since: datetime | None
    standing: str | None


class DeadLettersAtAGlance(msgspec.Struct, frozen=True, kw_only=True):
    """Open dead letters, counted up to 50; ``more`` where there are more. None while nobody knows."""

    open: int | None
    more: bool
    latest_at: datetime | None


class DeliveriesAtAGlance(msgspec.Struct, frozen=True, kw_only=True):
    """What the tenant's application is told; None while nobody knows."""

    failing: int | None
    waiting: int | None
    held: int | None
    failed: int | None
    waiting_since: datetime | None


class TenantOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant, the worst of its problems first. ``away`` are the services that did not say what they know of it;
    ``spooled`` and ``held`` are its callbacks on the disk of the gateway that answered; ``quota`` is the part of its
    share of the callback log that is taken."""

    tenant: str
    name: str
    status: str
    problems: tuple[Problem, ...]
    channels: tuple[ChannelAtAGlance, ...]
    dead_letters: DeadLettersAtAGlance
    deliveries: DeliveriesAtAGlance
    spooled: int | None
    held: int
    quota: float | None
    away: tuple[str, ...]


class ServiceAtAGlance(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a service answers: ``state`` is ``ok``, ``away`` or ``not_installed``."""

    name: str
    state: str
    text: str | None


class InstallationAtAGlance(msgspec.Struct, frozen=True, kw_only=True):
    """What all tenants share. ``callbacks_waiting`` is None while nobody knows."""

    problems: tuple[Problem, ...]
    services: tuple[ServiceAtAGlance, ...]
    callbacks_waiting: int | None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All tenants, the worst first, a page of them. Where ``asked`` is fewer than ``tenants``, ask again in some
    seconds. ``next_cursor`` is None on the last page."""

    asked_since: datetime | None
    tenants: int
    asked: int
    with_errors: int
    with_warnings: int
    installation: InstallationAtAGlance
    worst_first: tuple[TenantOverview, ...]
    next_cursor: str | None
