"""A stream of events as Server-Sent Events: which are wanted, where a reader is, and how it is written.

The format is the one of the HTML standard: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from backhaul_channels.addresses import canonical
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import events_of
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch

from backhaul_gateway.reads.views import KINDS, ONE_EVENT
from backhaul_gateway.twins.turns import Steps

LAST_EVENT_ID = "Last-Event-ID"

_ID = re.compile(r"(0|[1-9][0-9]{0,18})(?:\.(0|[1-9][0-9]{0,5}))?")
_LAST_SEQ = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader is in EVENTS: behind event ``index`` of message ``seq``, or behind all of it (None).

    Written as ``7.2``, or ``7``. It is the same for every reader, whatever it filters by.
    """

    seq: int
    index: int | None = None

    def __str__(self) -> str:
        return f"{self.seq}" if self.index is None else f"{self.seq}.{self.index}"

    @property
    def before(self) -> int:
        """The last message of which nothing more is to be read."""
        return self.seq if self.index is None else self.seq - 1

    def has(self, seq: int, index: int) -> bool:
        """Whether event ``index`` of message ``seq`` lies at it, or before."""
        return seq < self.seq or (seq == self.seq and (self.index is None or index <= self.index))


def position_of(text: str) -> Position:
    """The position that is written as ``text``. INVALID_ARGUMENT where none is."""
    found = _ID.fullmatch(text)
    if found is None or int(found[1]) > _LAST_SEQ or (found[1] == "0" and found[2]):
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "It is no id that a stream of events gave.",
            field=LAST_EVENT_ID,
            fix="Send the last id that came, as it came; 0 for all that is kept; or leave it out, to begin now.",
        )
    return Position(int(found[1]), int(found[2]) if found[2] else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events of a registration are wanted; what is empty, or 0, filters nothing. ``channel`` is a key."""

    registration: str
    queue_path: str
    channel: str = ""
    kind: int = 0
    message_id: str = ""
    recipient: str = ""
    communication: str = ""
    error_code: str = ""

    def subject(self) -> str:
        """All of them, and as few others as a subject can tell apart."""
        return events_of(self.queue_path, self.channel, KINDS.word(self.kind) if self.kind else "")

    def picks(self, event: Event) -> bool:
        """Whether the event is one of them. One that tells what another one tells is none, as in ``/v1/events``."""
        return (
            event.registration == self.registration
            and not event.duplicate_of
            and (not self.channel or event.channel == self.channel)
            and (not self.kind or event.kind == self.kind)
            and (not self.message_id or event.message_id == self.message_id or self.message_id in event.references)
            and (not self.communication or event.communication_id == self.communication)
            and (not self.error_code or event.error_code == self.error_code)
            and (not self.recipient or canonical(event.recipient) == self.recipient)
        )

    def written(self, seq: int, data: bytes, done: Position) -> Steps[bytes]:
        """What a reader is told of message ``seq`` of EVENTS, beyond ``done``; empty where it has nothing for it."""
        picked: list[tuple[int, Event]] = []
        for index, event in enumerate(EventBatch.FromString(data).events):
            if not done.has(seq, index) and self.picks(event):
                picked.append((index, event))
            yield
        told = []
        for index, event in picked:
            # The last one stands for the whole message, so that nobody comes back for the rest of it in vain.
            place = Position(seq) if index == picked[-1][0] else Position(seq, index)
            told.append(message(place, (yield from ONE_EVENT.json(event))))
            yield
        return b"".join(told)


def wanted_recipient(address: str) -> str:
    """What the recipient of a wanted event is compared with: all spellings of one address are one."""
    return canonical(address) if address else ""


def message(place: Position | None, data: bytes, name: str = "") -> bytes:
    """One message: ``data``, and the id by which a reader goes on behind it. Without a name it is an event."""
    head = [f"id: {place}".encode()] if place is not None else []
    if name:
        head.append(f"event: {name}".encode())
    # The provider's own JSON is passed on as it came, and may have line breaks between its tokens.
    return _block([*head, *(b"data: " + line for line in data.splitlines())])


def heartbeat(place: Position) -> bytes:
    """A comment, and how far was looked meanwhile. A reader shows nothing of it, and goes on from there."""
    return _block([b": still here", f"id: {place}".encode()])


def missed(place: Position, after: Position) -> bytes:
    """Says that what lies between the two may be gone: it is not kept in EVENTS any more."""
    text = (
        "Some of what was published behind this id may not be kept in the stream any more. What is stored is found by "
        "GET /v1/events."
    )
    return message(place, orjson.dumps({"after": str(after), "up_to": str(place), "message": text}), "missed")


def end(reason: BackhaulError) -> bytes:
    """Says why the stream ends."""
    told: dict[str, Any] = {"code": reason.code.value, "message": reason.message}
    return message(None, orjson.dumps(told), "end")


def _block(lines: Sequence[bytes]) -> bytes:
    return b"\n".join([*lines, b"", b""])
