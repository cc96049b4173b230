"""What a recount needs: what a communication counts and lists, and which events lie in files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from backhaul_common.tenants import Tenant

from backhaul_audit.model import EventId


class Listed(NamedTuple):
    """An event as it is listed. ``kind`` is the contract's number; it arrived at ``received_at_us``, unix time in
    microseconds, which no revision changes."""

    event: EventId
    kind: int
    channel: str
    received_at_us: int


class Counts(NamedTuple):
    """How many events a communication counts, by kind: those of which there is any. The first of them arrived at
    ``since_us``."""

    kinds: Mapping[int, int]
    since_us: int


class Page(NamedTuple):
    """Some events of a communication, the latest arrival first, and the token of the next page, empty on the last. Of
    what arrived before ``retained_since_us`` some events may be kept no longer; 0 where that is of none."""

    listed: Sequence[Listed]
    token: str
    retained_since_us: int


class Communications(Protocol):
    """What the normalizer knows of communications. UNAVAILABLE while it is away; NOT_FOUND where no event has named the
    communication, or the tenant is not known there."""

    async def counts(self, tenant: Tenant, communication_id: str) -> Counts:
        """What it counts."""
        ...

    async def page(self, tenant: Tenant, communication_id: str, token: str) -> Page:
        """Some of its events, without those that repeat another one. An empty ``token`` begins."""
        ...


class Contents(Protocol):
    """What lies in sealed files. UNAVAILABLE while the store is away."""

    async def filed(self, registration: str, events: Sequence[Listed]) -> Collection[EventId]:
        """Which of ``events`` lie in files of the registration, in the very revision."""
        ...


@dataclass(frozen=True, slots=True)
class KindCount:
    """Of one kind of event: what the communication counts, what it lists, and how many of those lie in files."""

    kind: int
    counted: int
    listed: int
    audited: int


@dataclass(frozen=True, slots=True)
class Recounted:
    """How far a recount is: ``events`` were looked at. All else is of the last one, which is ``done``: see the
    contract."""

    events: int
    done: bool = False
    kinds: Sequence[KindCount] = ()
    not_asked: int = 0
    waiting: int = 0
    missing: int = 0
    missing_ids: Sequence[str] = field(default=())
    channels_not_asked: Sequence[str] = ()
    moving: bool = False
    may_expire: bool = False
    """Whether some of what is counted may be kept no longer."""

    @property
    def expired(self) -> int:
        """How many events are counted and, for all that is known, kept no longer."""
        return sum(max(0, one.counted - one.listed) for one in self.kinds) if self.may_expire else 0

    @property
    def equal(self) -> bool:
        """Whether all is as it should be."""
        same = all(one.listed == one.counted or (self.may_expire and one.listed < one.counted) for one in self.kinds)
        return self.done and same and not self.missing and not self.moving


class Recounts(Protocol):
    """Compares what communications count with what lies in files."""

    def run(self, tenant: Tenant, communication_id: str) -> AsyncGenerator[Recounted, None]:
        """How far it is, every few hundred milliseconds, and last the result. As ``Communications`` and ``Contents``
        raise."""
        ...
