"""Every open connection: how many there may be, and how long the gateway waits for each.

One timer looks at all of them. With a timer for each wait, every request would set and cancel two.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import CONNECTIONS_ENDED, CONNECTIONS_OPEN

from backhaul_gateway.web.http import BoundedProtocol, Wait

SLOWEST_BYTES_PER_S = 16 << 10
"""A peer may take a second more for each so many bytes of answers that it has not read yet. A large answer takes its
time, and whoever reads it this fast is not cut off."""

LARGEST_ANSWER_BYTES = 16 << 20
"""What the longest patience is reckoned by."""

FAREWELL_S = 5.0
"""How long a peer that has all answers may take to end its side of TLS."""

_RESERVED_DESCRIPTORS = 192
"""Descriptors for files and for connections to servers. MongoDB's pool alone may have a hundred."""


_MAX_WALKING = 0.05
"""The part of its time that the gateway walks over its connections in vain, while there are too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How many seconds the gateway waits for a peer."""

    head_s: float
    """For a whole head, from the connection or from the head's first byte."""
    body_s: float
    """For a whole body, from the end of its head. The application should give up earlier, as its answer says more."""
    idle_s: float
    """From an answer to the next request."""
    read_s: float
    """For reading an answer; a second more for every ``SLOWEST_BYTES_PER_S`` that are not read yet."""

    def of(self, wait: Wait, unread: int) -> float:
        """The seconds for one wait. ``unread`` counts the bytes of answers that the peer has not read."""
        if wait is Wait.READ:
            return self.read_s + unread / SLOWEST_BYTES_PER_S
        return {Wait.FAREWELL: FAREWELL_S, Wait.HEAD: self.head_s, Wait.BODY: self.body_s, Wait.IDLE: self.idle_s}[wait]

    @property
    def interval_s(self) -> float:
        """The seconds from one look to the next: a quarter of the shortest patience, and a second at most."""
        return min(1.0, self.head_s / 4, self.body_s / 4, self.idle_s / 4, self.read_s / 4)


class _Rank(Enum):
    """The order in which connections are ended when there are too many; within a rank the oldest goes first."""

    SILENT = "silent"
    """It never brought a request."""
    SLOW = "slow"
    """The gateway waits for a head, for the rest of a request that is answered already or of somebody whom it does not
    know, or for an answer to be read.
    It has waited since the timer last looked."""
    IDLE = "idle"
    """Between two requests."""
    UNFINISHED = "unfinished"
    """As ``SLOW``, but the wait began after the timer last looked."""


class Connections:
    """The open connections of one server. Belongs to the event loop that it was made on."""

    def __init__(
        self,
        patience: Patience,
        most: int,
        metrics: Metrics,
        *,
        handshakes: int = 0,
        descriptors: Callable[[int], int] | None = None,
    ) -> None:
        """``descriptors`` is asked for a number of open files, and returns the number that the system allows.
        ``handshakes`` of them are for peers that are no connections yet."""
        self._patience = patience
        self._log = get_logger(component="connections")
        self._loop = asyncio.get_running_loop()
        reserved = _RESERVED_DESCRIPTORS + handshakes
        available = (descriptors or _raise_descriptor_limit)(most + reserved)
        self.most = min(most, max(available - reserved, available // 2))
        if self.most < most:
            self._log.warning("connections_limited_by_descriptors", limit=self.most, wanted=most, descriptors=available)
        self._open: dict[BoundedProtocol, None] = {}
        self.leaving = False
        """Each connection ends with its next answer, which says so."""
        self._crossed = False
        self._walk_again = 0.0
        """When it is worth it to look for connections that can be ended, after none was found."""
        self._exhausted = False
        self._ended = metrics.counter(CONNECTIONS_ENDED)
        metrics.gauge(CONNECTIONS_OPEN, lambda: len(self._open))
        self._timer = self._loop.call_later(patience.interval_s, self._look)

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    @property
    def longest_read_s(self) -> float:
        """How long an answer may lie unread, whatever its size."""
        return self._patience.of(Wait.READ, LARGEST_ANSWER_BYTES)

    def opened(self, connection: BoundedProtocol) -> bool:
        """Count a new connection. False when there is no room for it, and none can be made by ending another one."""
        self._open[connection] = None
        if len(self._open) <= self.most:
            return True
        if not self._crossed:
            self._crossed = True
            self._log.warning("connections_at_limit", limit=self.most)
        if time.perf_counter() >= self._walk_again and self._make_room(connection):
            return True
        self._ended.add("refused")
        return False

    def leave(self) -> None:
        """End each connection with its next answer from now on, since the gateway is about to stop."""
        self.leaving = True

    async def check(self) -> None:
        """Raises when the gateway is about to stop."""
        if self.leaving:
            raise RuntimeError("The gateway is about to stop.")

    def missed(self, reason: str) -> None:
        """Count one that ended before it was a connection."""
        self._ended.add(reason)

    def closed(self, connection: BoundedProtocol) -> None:
        """A connection is gone."""
        self._open.pop(connection, None)

    def _make_room(self, newcomer: BoundedProtocol) -> bool:
        """End connections that only keep the gateway waiting, so that no stranger can take everybody's places.

        Finding them takes a walk over all connections, so a sixteenth of them is ended at a time.
        """
        began = time.perf_counter()
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
        if not leaving:
            # The next moment some may be answered, and then they can go; yet newcomers must not cost a walk each.
            now = time.perf_counter()
            self._walk_again = now + (now - began) / _MAX_WALKING
        return bool(leaving)

    def _rank(self, connection: BoundedProtocol) -> _Rank | None:
        """In which turn the connection is ended when there are too many. None: it stays.

        It stays while the application works on its request, or reads the body of somebody whom it knows, which
        ``BodyReader`` bounds.
        """
        wait, of = connection.owes()
        if wait is None or (wait is Wait.BODY and not (connection.is_answered or connection.is_strangers)):
            return None
        if wait is Wait.HEAD and of is None:
            return _Rank.SILENT
        if wait is Wait.IDLE:
            return _Rank.IDLE
        lasts = wait is connection.wait and of is connection.wait_of
        return _Rank.SLOW if lasts else _Rank.UNFINISHED

    def _look(self) -> None:
        now = self._loop.time()
        for connection in list(self._open):
            wait, of = connection.owes()
            if wait is None:
                connection.wait = connection.wait_of = None
            elif wait is not connection.wait or of is not connection.wait_of:
                connection.wait, connection.wait_of = wait, of
                connection.deadline = now + self._patience.of(wait, connection.unread())
            elif now >= connection.deadline:
                if wait is not Wait.FAREWELL:  # It was ended before.
                    self._ended.add(wait.value)
                connection.give_up(wait)
        if self._crossed and len(self._open) < self.most * 0.9:
            self._crossed = False
        self._probe_descriptors()
        self._timer = self._loop.call_later(self._patience.interval_s, self._look)

    def _probe_descriptors(self) -> None:
        """Log once when no file can be opened: libuv then drops new connections without a word."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE) and not self._exhausted:
                self._exhausted = True
                self._log.error("no_descriptors", error=exc.strerror, connections=len(self._open))
        else:
            self._exhausted = False


def _raise_descriptor_limit(wanted: int) -> int:
    """Raise the limit of open files to ``wanted``, or as far as the system allows. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if target > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return max(soft, target)
