"""What a simulated API was asked, so that a client's budget can be held against it."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from backhaul_testing.apis.clock import Clock


@dataclass(slots=True)
class Entry:
    """One request. ``key`` names the credentials and ``account`` whose limits it counts against, never a secret.

    ``together`` is how many of the account's were under way when it came, itself included. ``status`` is 0 until it is
    answered.
    """

    at: datetime
    route: str
    key: str
    account: str
    together: int
    status: int = 0


class Requests:
    """All requests so far, in the order in which they came. It may be read in any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._entries: list[Entry] = []

    @contextmanager
    def under_way(self, route: str, key: str, account: str) -> Iterator[Entry]:
        """Count a request, which is under way inside."""
        with self._lock:
            self._under_way[account] += 1
            entry = Entry(self._clock.now(), route, key, account, self._under_way[account])
            self._entries.append(entry)
        try:
            yield entry
        finally:
            with self._lock:
                self._under_way[account] -= 1

    def entries(
        self, *, route: str | Set[str] | None = None, key: str | None = None, status: int | None = None
    ) -> list[Entry]:
        """Those of ``route``, or of one of several, with the credentials ``key``, answered with ``status``; None stands
        for all."""
        routes = {route} if isinstance(route, str) else route
        with self._lock:
            return [
                entry
                for entry in self._entries
                if (routes is None or entry.route in routes)
                and key in (None, entry.key)
                and status in (None, entry.status)
            ]

    def count(self, *, route: str | Set[str] | None = None, key: str | None = None, status: int | None = None) -> int:
        """How many those are."""
        return len(self.entries(route=route, key=key, status=status))

    def by_route(self) -> Counter[str]:
        """How many of each route."""
        return Counter(entry.route for entry in self.entries())

    def by_key(self) -> Counter[str]:
        """How many with each credentials."""
        return Counter(entry.key for entry in self.entries())

    def most_in_flight(self, account: str | None = None) -> int:
        """The most that were under way at once of ``account``; of the account that had most, where it is None."""
        return max((entry.together for entry in self.entries() if account in (None, entry.account)), default=0)

    def most_within(self, seconds: float, *, route: str | Set[str] | None = None, key: str | None = None) -> int:
        """The most that came within any span of ``seconds`` by the clock, refused ones included."""
        most, span, recent = 0, timedelta(seconds=seconds), deque[datetime]()
        for entry in self.entries(route=route, key=key):
            recent.append(entry.at)
            while recent[0] <= entry.at - span:
                recent.popleft()
            most = max(most, len(recent))
        return most

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self._entries = []
