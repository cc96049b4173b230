"""What a plan reads of what is stored, and how much of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from backhaul_common.documents import Document

from backhaul_normalizer.counts import Counted
from backhaul_normalizer.model import Fact

MAX_EVENTS, MAX_BYTES = 4096, 8 << 20
"""Stored events and further names, and bytes of events, that one plan of several events reads or changes. The driver
sends 16 MB at once."""

MAX_ANEW, MAX_ANEW_BYTES = 128, 4 << 20
"""Events of one message, and bytes of them, up to which the message is folded anew and may change its communication.
Providers tell ten or twenty of a message."""

MAX_MOVED, MAX_MOVED_BYTES = 64, 1 << 20
"""Events under a further name, and bytes of them, up to which they move to the message that has it. One or two wait for
it usually."""


class TooMuchError(Exception):
    """A plan would read or change too much. Half of its events need less; for a single one it is never raised."""


class Allowance:
    """What one plan may read and change. What a single event can bring about is bounded message by message."""

    def __init__(self, *, bounded: bool) -> None:
        self.bounded = bounded
        self._events = 0
        self._bytes = 0

    def take(self, events: int, size: int) -> None:
        """So many events more, and bytes of them. TooMuchError when that is beyond what one plan may."""
        self._events += events
        self._bytes += size
        if self.bounded and (self._events > MAX_EVENTS or self._bytes > MAX_BYTES):
            raise TooMuchError


class Snapshot(Protocol):
    """What is stored, as it is at one moment."""

    def known(self, facts: Collection[Fact]) -> Iterable[Document]:
        """Of those of ``facts`` that are stored: ``_id``, ``stream_seq``, ``revised_seqs``, ``digest``,
        ``occurred_at_us``, and as ``size`` the bytes of the payload."""
        ...

    def events(self, event_ids: Collection[str]) -> Iterable[Document]:
        """These events, which ``known`` found, whole; but for those that have expired."""
        ...

    def events_of(self, messages: Collection[str]) -> Iterable[Document]:
        """All events of the messages with these keys, whole; but for those that have expired."""
        ...

    def of_kinds(self, messages: Collection[str], kinds: Collection[str]) -> Iterable[Document]:
        """The events of any of these kinds of the messages with these keys, whole. Of one that has expired, counts, and
        is of a kind that happens once: ``_id``, ``message``, ``kind`` and ``expired``."""
        ...

    def provisional(self, messages: Collection[str], most: int) -> Iterable[Document]:
        """Events of the messages with these keys that use a further name, whole; ``most`` of them at most."""
        ...

    def moved_by(self, event_ids: Collection[str]) -> Iterable[Document]:
        """The events that were moved last because of one of these, whole."""
        ...

    def counted(self, messages: Collection[str]) -> Mapping[str, Iterable[Counted]]:
        """All events of the messages with these keys, as they are counted."""
        ...

    def messages(self, keys: Collection[str]) -> Iterable[Document]:
        """The stored messages among ``keys``."""
        ...

    def joins(self, keys: Collection[str]) -> Iterable[Document]:
        """The stored joins among ``keys``."""
        ...
