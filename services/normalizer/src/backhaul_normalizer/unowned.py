"""Callbacks under a queue path that nobody has: of a tenant who is not heard of yet, or of one who was deleted.

A gateway that slept over a tenant's deletion may store a callback of that tenant afterwards. Nobody will ever read it,
and the broker would deliver it until it is too old.
"""

from __future__ import annotations

from typing import Protocol

from backhaul_common.logs import get_logger
from backhaul_common.metering import Counter

DELIVERIES = 10
"""How often a message must have been delivered before it is given up; some 20 seconds, more than one full read."""

MAX_REMEMBERED = 10_000


class Paths(Protocol):
    """What of the tenant directory is asked."""

    @property
    def reads_begun(self) -> int:
        """Reads of the tenants so far, by number."""
        ...

    def nobody_has(self, path: str, since: int) -> bool:
        """Whether a full read that began after the read ``since`` found no tenant with this queue path."""
        ...


class Unowned:
    """Tells which of them belong to a tenant who was deleted.

    A gateway reads a tenant before it stores anything for it, and a queue path never changes. So the owner was there
    before the message was; a read of all tenants that began after the message was first seen, and finds nobody with its
    queue path, proves that the owner is gone. Reads are counted, and no clocks are compared.
    """

    def __init__(self, paths: Paths, given_up: Counter) -> None:
        self._paths = paths
        self._given_up = given_up
        self._first_seen: dict[int, int] = {}
        self._said: set[str] = set()
        self._log = get_logger(component="unowned")

    def is_over(self, path: str, stream_seq: int, deliveries: int) -> bool:
        """Whether nobody will ever come for this message. Counted then, and logged once for each path."""
        since = self._first_seen.get(stream_seq)
        if since is None:
            if len(self._first_seen) >= MAX_REMEMBERED:
                self._first_seen.clear()
            self._first_seen[stream_seq] = self._paths.reads_begun
            return False
        if deliveries < DELIVERIES or not self._paths.nobody_has(path, since):
            return False
        del self._first_seen[stream_seq]
        self._given_up.add()
        if path not in self._said:
            if len(self._said) >= MAX_REMEMBERED:
                self._said.clear()
            self._said.add(path)
            self._log.warning("callbacks_of_a_deleted_tenant", queue_path=path, stream_seq=stream_seq)
        return True
