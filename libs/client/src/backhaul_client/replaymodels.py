"""What the API answers about replays. Words are plain texts, so that a new one is no error."""

from __future__ import annotations

from datetime import datetime

import msgspec


class ReplayCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What was found so far. ``events`` that the ``callbacks`` tell are ``new``, or ``erased``, or known; known ones
    may be ``completed``, or, as dry runs say, ``contradicted``. What is ``unreadable`` stays as it is. ``dead_letters``
    were closed; those that were sent through and ``refused_again`` are open."""

    callbacks: int
    events: int
    new: int
    completed: int
    contradicted: int
    unreadable: int
    erased: int
    dead_letters: int
    refused_again: int = 0


class ReplayExample(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, by the id of the event, the callback or the dead letter. ``outcome`` is ``new``, ``completed``,
    ``contradicted``, ``unreadable``, ``closed`` or ``refused_again``."""

    outcome: str
    id: str
    event_kind: str | None


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A replay. ``kind`` is ``callbacks``, ``dead_letters`` or ``discard``; ``state`` is ``waiting``, ``running``,
    ``done``, ``cancelled`` or ``stopped``, and ``text`` says why it waits or stopped, whether
    callbacks may have gone before they were read, and whether dead letters may yet be refused again. What
    arrived before ``stored_since`` may not be there any more. Lists
    have no ``examples``. ``takes_s`` is how many seconds what was read so far takes at the least; of a dry run, in
    earnest."""

    id: str
    kind: str
    channel: str | None
    reason: str | None
    span_from: datetime | None
    span_to: datetime | None
    dry_run: bool
    state: str
    text: str | None
    percent: int
    counts: ReplayCounts
    examples: tuple[ReplayExample, ...]
    stored_since: datetime | None
    author: str | None
    created_at: datetime | None
    ended_at: datetime | None
    rate_per_s: int = 0
    takes_s: int = 0
