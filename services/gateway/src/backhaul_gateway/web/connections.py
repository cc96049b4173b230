"""Every open connection: how many there may be, and how long each may be waited for.

One timer looks at all of them. A timer for each wait would cost every request two of them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from backhaul_common.logs import get_logger
from backhaul_common.metrics import CONNECTIONS_ENDED, CONNECTIONS_OPEN, Metrics

from backhaul_gateway.web.http import BoundedProtocol, Wait

SLOWEST_BYTES_PER_S = 16 << 10
"""An answer that piles up is given this much less hurry: a large one may take its time, as long as it is being read."""

_RESERVED_DESCRIPTORS = 192
"""Files and connections beside the clients': MongoDB's pool alone may have a hundred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds that a peer may take."""

    head_s: float
    """For a whole head, from the connection or from the head's first byte."""
    body_s: float
    """For a whole body, from the end of its head. The application may give up earlier, and then says so better."""
    idle_s: float
    """From an answer to the next request."""
    read_s: float
    """For reading an answer, and a second more for every ``SLOWEST_BYTES_PER_S``."""

    def of(self, wait: Wait, unread: int) -> float:
        """For one wait; ``unread`` are the bytes of answers that have piled up."""
        if wait is Wait.READ:
            return self.read_s + unread / SLOWEST_BYTES_PER_S
        return {Wait.HEAD: self.head_s, Wait.BODY: self.body_s, Wait.IDLE: self.idle_s}[wait]

    @property
    def interval_s(self) -> float:
        """How often to look."""
        return min(1.0, self.head_s / 4, self.body_s / 4, self.idle_s / 4, self.read_s / 4)


class _Rank(Enum):
    """Connections that give way when there are too many, in this order; within a rank the oldest first."""

    SILENT = "silent"
    """It never brought a request."""
    SLOW = "slow"
    """Its peer is late with a head, with the rest of a request that was answered already, or with reading."""
    IDLE = "idle"
    UNFINISHED = "unfinished"
    """As ``SLOW``, but not yet when the timer last looked."""


class Connections:
    """The open connections of one server. Belongs to the event loop that it was made on."""

    def __init__(
        self,
        patience: Patience,
        most: int,
        metrics: Metrics,
        *,
        descriptors: Callable[[int], int] | None = None,
    ) -> None:
        """``descriptors`` tells how many files may be open after it was asked for that many."""
        self._patience = patience
        self._log = get_logger(component="connections")
        self._loop = asyncio.get_running_loop()
        available = (descriptors or _raise_descriptor_limit)(most + _RESERVED_DESCRIPTORS)
        self.most = min(most, max(available - _RESERVED_DESCRIPTORS, available // 2))
        if self.most < most:
            self._log.warning("connections_limited_by_descriptors", limit=self.most, wanted=most, descriptors=available)
        self._open: dict[BoundedProtocol, None] = {}
        self._crossed = False
        self._in_vain = False
        self._exhausted = False
        self._ended = metrics.counter(CONNECTIONS_ENDED)
        metrics.gauge(CONNECTIONS_OPEN, lambda: len(self._open))
        self._timer = self._loop.call_later(patience.interval_s, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def opened(self, connection: BoundedProtocol) -> bool:
        """Count a new connection. False when there is no room for it, not even by ending one that is not in use."""
        self._open[connection] = None
        if len(self._open) <= self.most:
            return True
        if not self._crossed:
            self._crossed = True
            self._log.warning("connections_at_limit", limit=self.most)
        if not self._in_vain and self._make_room(connection):
            return True
        self._ended.add("refused")
        return False

    def closed(self, connection: BoundedProtocol) -> None:
        """A connection is gone."""
        self._open.pop(connection, None)

    def _make_room(self, newcomer: BoundedProtocol) -> bool:
        """End connections whose peers only keep us waiting, so that no stranger can take the others' places.

        A sixteenth goes at a time, as looking for them takes a walk over all.
        """
        ranked: dict[_Rank, list[BoundedProtocol]] = {rank: [] for rank in _Rank}
        for connection in self._open:
            rank = self._rank(connection)
            if rank is not None and connection is not newcomer:
                ranked[rank].append(connection)
        leaving = [connection for rank in _Rank for connection in ranked[rank]][: max(1, self.most // 16)]
        for connection in leaving:
            self._ended.add("room")
            self.closed(connection)
            connection.transport.abort()
        # Until the next look, others would be looked for in vain too.
        self._in_vain = not leaving
        return bool(leaving)

    def _rank(self, connection: BoundedProtocol) -> _Rank | None:
        """When the connection goes, among those that have to; None: the application is at work for it, or reads its
        body, of which ``BodyReader`` bounds how many there are."""
        wait, of = connection.owes()
        if wait is None or (wait is Wait.BODY and not connection.is_answered):
            return None
        if wait is Wait.HEAD and of is None:
            return _Rank.SILENT
        if wait is Wait.IDLE:
            return _Rank.IDLE
        lasts = wait is connection.wait and of is connection.wait_of
        return _Rank.SLOW if lasts else _Rank.UNFINISHED

    def _look(self) -> None:
        now = self._loop.time()
        self._in_vain = False
        for connection in list(self._open):
            wait, of = connection.owes()
            if wait is None:
                connection.wait = connection.wait_of = None
            elif wait is not connection.wait or of is not connection.wait_of:
                connection.wait, connection.wait_of = wait, of
                connection.deadline = now + self._patience.of(wait, connection.unread())
            elif now >= connection.deadline:
                self._ended.add(wait.value)
                connection.give_up(wait)
        if self._crossed and len(self._open) < self.most * 0.9:
            self._crossed = False
        self._probe_descriptors()
        self._timer = self._loop.call_later(self._patience.interval_s, self._look)

    def _probe_descriptors(self) -> None:
        """Say once when no file can be opened: libuv then drops new connections without a word."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE) and not self._exhausted:
                self._exhausted = True
                self._log.error("no_descriptors", error=exc.strerror, connections=len(self._open))
        else:
            self._exhausted = False


def _raise_descriptor_limit(wanted: int) -> int:
    """Ask for as many open files as ``wanted``, as far as the system allows; returns how many there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if target > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return max(soft, target)
