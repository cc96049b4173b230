"""What an overview tells: a tenant at a glance, what is wrong with it first."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from backhaul_common.tenants import Processing, VerificationMode
from pydantic import BaseModel, Field

Severity = Literal["error", "warning"]
Standing = Literal["ok", "away", "not_installed"]


class ProblemOut(BaseModel):
    """What is wrong, in words. ``error``: something is lost, refused or stopped until somebody acts; ``warning``:
    something waits, or was left for somebody to decide. ``look`` says where to look. ``channel`` is null of what
    concerns all of them."""

    severity: Severity
    part: str
    channel: str | None = None
    text: str
    look: str


class ChannelAtAGlance(BaseModel):
    """One channel. ``state`` is its worst problem's. ``refused`` counts requests that failed verification at this
    gateway process since it started. ``silence``, ``silent_since`` and ``standing`` are the reconciler's words, as in
    ``/api/status``; null where it does not answer."""

    label: str
    provider: str
    state: Literal["ok", "warning", "error"] = "ok"
    processing: Processing
    verification: VerificationMode
    refused: int
    silence: str | None = None
    silent_since: datetime | None = None
    standing: str | None = None


class DeadLettersAtAGlance(BaseModel):
    """Open dead letters, counted up to 50; ``more`` where there are more. Null while nobody knows."""

    open: int | None = None
    more: bool = False
    latest_at: datetime | None = None


class DeliveriesAtAGlance(BaseModel):
    """What the tenant's application is told, as the part ``subscriptions`` of ``/api/status`` has it."""

    failing: int | None = None
    waiting: int | None = None
    held: int | None = None
    failed: int | None = None
    waiting_since: datetime | None = None


class TenantAtAGlance(BaseModel):
    """One tenant, the worst of its problems first, 50 of them at most. ``away`` are the services that did not say what
    they know of it. ``spooled`` are its callbacks on this gateway's own disk, null where there is no spool, and
    ``held`` those that lie there since they are over its limits. ``quota`` is the part of its share of the callback log
    that is taken, null where nothing bounds it."""

    tenant: str
    name: str
    status: str
    problems: list[ProblemOut] = Field(default_factory=list)
    channels: list[ChannelAtAGlance] = Field(default_factory=list)
    dead_letters: DeadLettersAtAGlance = Field(default_factory=DeadLettersAtAGlance)
    deliveries: DeliveriesAtAGlance = Field(default_factory=DeliveriesAtAGlance)
    spooled: int | None = None
    held: int = 0
    quota: float | None = None
    away: list[str] = Field(default_factory=list)


class ServiceAtAGlance(BaseModel):
    """Whether a service answers; ``text`` says what it answered instead."""

    name: str
    state: Standing
    text: str | None = None


class InstallationAtAGlance(BaseModel):
    """What all tenants share. ``callbacks_waiting`` are the messages of the callback log that are not processed yet;
    null while nobody knows."""

    problems: list[ProblemOut]
    services: list[ServiceAtAGlance]
    callbacks_waiting: int | None


class OverviewPage(BaseModel):
    """Tenants, the worst first. What was asked is at most as old as ``asked_since``. ``asked`` of ``tenants`` are
    looked at: where it is fewer than all, ask again in some seconds. ``with_errors`` and ``with_warnings`` count
    tenants. ``next_cursor`` is null on the last page."""

    asked_since: datetime | None
    tenants: int
    asked: int
    with_errors: int
    with_warnings: int
    installation: InstallationAtAGlance
    worst_first: list[TenantAtAGlance]
    next_cursor: str | None
