"""What the API answers about reconciliation. Words are plain texts, so that a new one is no error."""

from __future__ import annotations

from datetime import datetime

import msgspec


class RunCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found. Of the ``seen`` records all was ``known``, or something was ``missing``, or only completed
    (``better``), or it cannot be read. Messages whose state is ``differing``, that are still ``open`` at the provider,
    or that it does not know; and how many ``requests`` it took."""

    seen: int
    known: int
    missing: int
    better: int
    unreadable: int
    differing: int
    open: int
    unknown_to_provider: int
    requests: int


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """A run. ``cause`` is ``schedule`` or ``call``; ``state`` is ``running``, ``done`` or ``stopped``, and ``text``
    says why it stopped. It asked about what was sent from ``asked_from`` to ``asked_to``."""

    id: str
    channel: str
    cause: str
    state: str
    text: str | None
    asked_from: datetime | None
    asked_to: datetime | None
    dry_run: bool
    counts: RunCounts
    began_at: datetime | None
    ended_at: datetime | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A message about which both sides say something else. ``kind`` is ``state`` or ``unknown_to_provider``; what a
    side does not say is None."""

    channel: str
    message_id: str
    kind: str
    our_state: str | None
    our_error_code: str | None
    provider_state: str | None
    provider_error_code: str | None
    first_seen_at: datetime | None
    last_seen_at: datetime | None
    report_id: str


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """The account of one day (UTC) of one channel. ``state`` is ``open``, ``closed`` or ``cannot_be_closed``, and
    ``text`` says why it is not closed. Of the provider's messages so many are ``equal`` here, ``backfilled`` of them by
    reconciliation alone."""

    channel: str
    day: str
    state: str
    text: str | None
    provider_messages: int
    equal: int
    backfilled: int
    differing: int
    open: int
    unknown_to_provider: int
    compared_at: datetime | None


class ReconciledChannel(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands with one channel: ``standing`` is ``asked``, ``no_api``, ``no_credentials``,
    ``credentials_refused``, ``waiting``, ``failing`` or ``off``, and ``text`` says more. ``silence`` is ``none``,
    ``silent`` or ``cannot_be_told``; None where no callbacks are expected."""

    channel: str
    standing: str
    text: str | None
    asked_at: datetime | None
    due_at: datetime | None
    discovered_to: datetime | None
    silence: str | None
    silent_since: datetime | None
    report_id: str | None
