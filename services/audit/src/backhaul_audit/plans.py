"""What is asked of a file, where it goes, and its plan: all that is known of it before it is there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from backhaul_digests.model import Chain

from backhaul_audit.contents import Content
from backhaul_audit.model import FileFormat, PileKey, Plan, Shape

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FILE_BYTES = 7_000
"""What a closed file takes in memory beside its content: its plan, and the task that makes it, about."""


@dataclass(frozen=True, slots=True)
class Ask:
    """That a channel wants its events filed, and how. ``bucket`` is empty where none is set up for ``destination``."""

    tenant_id: str
    destination: str
    bucket: str
    shape: Shape


class Way(NamedTuple):
    """Where files go that are away together: the installation's bucket, or one channel's own."""

    registration: str
    destination: str


def way_of(pile: PileKey, destination: str) -> Way:
    """The way of a file of ``pile``."""
    return Way(pile.registration if destination else "", destination)


@dataclass(slots=True)
class Closed:
    """A file that is complete and not sealed yet. ``recorded`` is whether its plan is stored."""

    plan: Plan
    content: Content
    recorded: bool
    lost: bool = False
    """EVENTS no longer has what it is of: ``content`` is empty."""

    @property
    def way(self) -> Way:
        """Where it goes."""
        return way_of(self.plan.pile, self.plan.destination)

    @property
    def bytes(self) -> int:
        """What it is counted as in memory, compressed by now or not: whoever takes over needs as much."""
        return self.content.held + FILE_BYTES


def new_plan(pile: PileKey, ask: Ask, named_at_us: int, first: int, last: int, file_id: str) -> Plan:
    """The plan of a file with what arrived first at ``named_at_us``, by which its key is made."""
    at = _EPOCH + timedelta(microseconds=max(0, min(named_at_us, 253402300799_000000)))
    name = f"AUDIT_{at:%Y%m%d%H%M%S}{at.microsecond // 1000:03d}_{UUID(file_id)}_Events.json"
    folder = ask.shape.folder if pile.chain is Chain.EVENTS else f"{ask.shape.folder}/{pile.chain}"
    place = "" if ask.shape.flat else f"channel={pile.channel}/dt={at:%Y-%m-%d}/"
    key = f"tenants/{pile.registration}/{folder}/{place}{name}{'.gz' if ask.shape.gzip else ''}"
    return Plan(file_id, pile, ask.tenant_id, ask.destination, ask.bucket, key, ask.shape, first, last)


def separator_of(shape: Shape) -> bytes:
    """What stands between two events."""
    return b"\n" if shape.format is FileFormat.JSON_LINES else b",\n"
