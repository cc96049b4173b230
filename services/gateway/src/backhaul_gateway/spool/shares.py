"""How much of the spool is whose. Arithmetic only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backhaul_gateway.spool.file import Kept


@dataclass(slots=True)
class Holding:
    """Callbacks, their bytes, and when the oldest was kept, in unix microseconds; 0 where there is none."""

    callbacks: int = 0
    bytes: int = 0
    since_us: int = 0

    def add(self, callbacks: int, size: int, since_us: int) -> None:
        """So much more is held."""
        self.since_us = min(self.since_us, since_us) if self.callbacks else since_us
        self.callbacks += callbacks
        self.bytes += size

    def take(self, row: Kept) -> None:
        """``row`` is held no more. Those of a subject go in the order in which they came: none is older than it."""
        self.callbacks -= 1
        self.bytes -= row.size
        self.since_us = row.kept_at_us if self.callbacks else 0


class Shares:
    """Who holds how much of ``max_bytes``: a tenant at most as much as is then still free."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.all = Holding()
        self._held: dict[str, dict[str, Holding]] = {}
        """By the queue path's key and the subject."""

    def of(self, path: str) -> Holding:
        """What lies under a queue path's key."""
        return _sum(self._held.get(path, {}).values())

    @property
    def subjects(self) -> list[str]:
        """All under which something lies."""
        return [subject for held in list(self._held.values()) for subject in held]

    @property
    def since_us(self) -> int:
        """When the oldest was kept; 0 where there is none. Any thread may ask."""
        return min((one.since_us for held in list(self._held.values()) for one in list(held.values())), default=0)

    @property
    def fill(self) -> float:
        """The part that is taken, 0 to 1."""
        return self.all.bytes / self._max_bytes

    def admits(self, path: str, size: int) -> bool:
        """Whether there is room for ``size`` bytes more, and ``path`` may have it."""
        return self.of(path).bytes + size <= self._max_bytes - self.all.bytes - size

    def count(self, held: Iterable[tuple[str, int, int, int]]) -> None:
        """Begin anew with what is held: subject, callbacks, bytes, and since when."""
        self.all, self._held = Holding(), {}
        for subject, callbacks, size, since_us in held:
            self._add(subject, callbacks, size, since_us)

    def add(self, row: Kept) -> None:
        """``row`` is held."""
        self._add(row.subject, 1, row.size, row.kept_at_us)

    def take(self, row: Kept) -> None:
        """``row`` is held no more."""
        path = path_in(row.subject)
        held = self._held[path]
        held[row.subject].take(row)
        if not held[row.subject].callbacks:
            del held[row.subject]
            if not held:
                del self._held[path]
        self.all.take(row)

    def _add(self, subject: str, callbacks: int, size: int, since_us: int) -> None:
        self._held.setdefault(path_in(subject), {}).setdefault(subject, Holding()).add(callbacks, size, since_us)
        self.all.add(callbacks, size, since_us)


def _sum(parts: Iterable[Holding]) -> Holding:
    whole = Holding()
    for part in parts:
        whole.add(part.callbacks, part.bytes, part.since_us)
    return whole


def path_in(subject: str) -> str:
    """The key of the queue path in callbacks.<queue path>.<channel>; empty where the disk has made another
    text of it."""
    parts = subject.split(".", 2)
    return parts[1] if len(parts) == 3 else ""
