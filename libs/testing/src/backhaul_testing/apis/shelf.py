"""Where the messages or calls of one account lie, so that a page of a hundred thousand costs what the page costs."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Generic, TypeVar

from backhaul_testing.apis.twilio_rows import Resource

R = TypeVar("R", bound=Resource)

_Key = tuple[datetime, str]
"""What lists are ordered by, newest first: the date, or else when it was created; and the SID."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list is filtered by; None stands for no filter. Days are of UTC, both inclusive."""

    first: date | None = None
    last: date | None = None
    to: str | None = None
    sender: str | None = None
    status: str | None = None
    parent: str | None = None

    @property
    def dated(self) -> bool:
        """Whether rows without a date fall out."""
        return self.first is not None or self.last is not None

    def has_day(self, day: date) -> bool:
        """Whether it wants rows of ``day``."""
        return (self.first is None or day >= self.first) and (self.last is None or day <= self.last)

    def fits(self, resource: Resource, at: datetime) -> bool:
        """Whether it wants ``resource``, whatever its day."""
        return (
            self.to in (None, resource.to)
            and self.sender in (None, resource.sender)
            and (self.status is None or self.status == resource.status(at))
            and (self.parent is None or self.parent == getattr(resource, "parent", None))
        )


class Shelf(Generic[R]):
    """All of one account. Whoever calls it holds the API's lock."""

    def __init__(self) -> None:
        self._all: dict[str, R] = {}
        self._days: dict[date, list[_Key]] = {}
        self._places: dict[str, _Key] = {}
        """Where each lies in its day, or lay when it was removed."""

    def __iter__(self) -> Iterator[R]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def get(self, sid: str) -> R | None:
        """The one of that SID."""
        return self._all.get(sid)

    def put(self, resource: R) -> None:
        """Add it, or find its place anew after its steps have changed."""
        self._lift(resource.sid)
        self._all[resource.sid] = resource
        dated = resource.dated()
        if dated is not None:
            key = self._places[resource.sid] = (dated, resource.sid)
            insort(self._days.setdefault(dated.date(), []), key)

    def remove(self, sid: str) -> None:
        """As if somebody had deleted it. A page may still begin where it was."""
        resource = self._all[sid]
        key = (resource.dated() or resource.created, sid)
        self._lift(sid)
        del self._all[sid]
        self._places[sid] = key

    def newest_first(self, wanted: Wanted, *, at: datetime, oldest: datetime, after: str | None) -> Iterator[R]:
        """What ``wanted`` fits, as it was at ``at``, behind ``after``. KeyError where there never was such a SID."""
        begin = None if after is None else self._key(self._all.get(after), after, at)
        for key in self._keys(wanted, at, begin):
            resource = self._all[key[1]]
            visible = resource.created <= at and key[0] >= oldest
            if visible and wanted.fits(resource, at) and not (wanted.dated and resource.dated(at) is None):
                yield resource

    def _keys(self, wanted: Wanted, at: datetime, begin: _Key | None) -> Iterator[_Key]:
        if wanted.dated:
            for day in sorted(filter(wanted.has_day, self._days), reverse=True):
                keys = self._days[day]
                end = len(keys) if begin is None else bisect_left(keys, begin)
                yield from (keys[place] for place in range(end - 1, -1, -1))
            return
        everything = (self._key(resource, sid, at) for sid, resource in self._all.items())
        yield from sorted((key for key in everything if begin is None or key < begin), reverse=True)

    def _key(self, resource: R | None, sid: str, at: datetime) -> _Key:
        return self._places[sid] if resource is None else (resource.dated(at) or resource.created, sid)

    def _lift(self, sid: str) -> None:
        key = self._places.pop(sid, None)
        if key is not None:
            keys = self._days.get(key[0].date(), [])
            place = bisect_left(keys, key)
            if place < len(keys) and keys[place] == key:
                del keys[place]
