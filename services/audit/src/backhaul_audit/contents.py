"""What goes into a file, in its order, and by which events of it are found again."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from backhaul_common.ids import derived_id

from backhaul_audit.model import EventId, PileKey

ID_BYTES = 16
SLOT_US = 600_000_000
"""Files are found by the ten minutes in which their events arrived."""

MAX_LINKS = 64
"""Traces of its messages that are kept of a file, for its span to name."""

MESSAGE_BYTES, EVENT_BYTES = 160, 32
"""What a message and an event take in memory beside its line, about."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one message brings for one pile, in its order. ``ids`` are 16 bytes each; ``arrivals`` unix time in us."""

    pile: PileKey
    position: int
    lines: Sequence[bytes]
    ids: bytes
    revisions: Sequence[int]
    arrivals: Sequence[int]
    stored_at_us: int = 0
    """When EVENTS took the message."""
    traceparent: str = ""


@dataclass(slots=True)
class Content:
    """What lies in a file, in its order: pieces of lines without what stands between pieces."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    held: int = 0
    """What all of it takes in memory: of small events much more than their lines."""
    events: int = 0
    ids: bytearray = field(default_factory=bytearray)
    revisions: array[int] = field(default_factory=lambda: array("I"))
    slots: set[int] = field(default_factory=set)
    first_at_us: int = 0
    last_at_us: int = 0
    named_at_us: int = 0
    stored_at_us: int = 0
    """When EVENTS took the first message of it: a replay brings what arrived long before."""
    traceparents: list[str] = field(default_factory=list)
    _known: set[EventId] | None = None

    def add(self, part: Part, separator: bytes) -> None:
        """Put what ``part`` brings behind the rest."""
        size = sum(map(len, part.lines)) + len(separator) * len(part.lines)
        earliest, latest = min(part.arrivals), max(part.arrivals)
        if not self.events:
            self.named_at_us, self.first_at_us, self.last_at_us = part.arrivals[0], earliest, latest
            self.stored_at_us = part.stored_at_us
        self.first_at_us, self.last_at_us = min(self.first_at_us, earliest), max(self.last_at_us, latest)
        self.slots.update({at_us // SLOT_US for at_us in part.arrivals})
        self.pieces.append(separator.join(part.lines))
        self.size += size
        self.held += size + MESSAGE_BYTES + EVENT_BYTES * len(part.lines)
        self.events += len(part.lines)
        self.ids += part.ids
        self.revisions.extend(part.revisions)
        if part.traceparent and len(self.traceparents) < MAX_LINKS:
            self.traceparents.append(part.traceparent)
        if self._known is not None:
            self._known.update(events_of(part.ids, part.revisions))

    def known(self) -> Collection[EventId]:
        """Which events lie in it; worked out when it is first asked for."""
        if self._known is None:
            self._known = set(events_of(self.ids, self.revisions))
        return self._known


def id_bytes(text: str) -> bytes:
    """The 16 bytes of an event's id. Nothing that Backhaul publishes has another id than 32 hex digits; what has is
    filed all the same, under an id that follows from its own."""
    try:
        found = bytes.fromhex(text) if len(text) == 2 * ID_BYTES else b""
    except ValueError:
        found = b""
    return found if len(found) == ID_BYTES else bytes.fromhex(derived_id("foreign", text))


def events_of(ids: bytes | bytearray, revisions: Sequence[int]) -> Iterator[EventId]:
    """The events of which ``ids`` and ``revisions`` are, ids in hex."""
    text = ids.hex()
    width = 2 * ID_BYTES
    return (EventId(text[start : start + width], rev) for start, rev in zip(range(0, len(text), width), revisions))  # noqa: B905  # there is a revision for each id
