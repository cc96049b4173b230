"""What messages of EVENTS bring for which pile, and what of it lies in a file already."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from backhaul_common.feed import StreamMessage
from backhaul_common.logs import get_logger
from backhaul_digests.model import Chain
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_BACKFILL, SOURCE_REPLAY
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from google.protobuf.message import DecodeError

from backhaul_audit.asking import Asking
from backhaul_audit.books import AGAIN_US
from backhaul_audit.contents import SLOT_US, Part, events_of, id_bytes
from backhaul_audit.counts import Counts
from backhaul_audit.encrypting import EncryptedLines
from backhaul_audit.lines import Lines
from backhaul_audit.model import EventId, PileKey, Plan, Shape
from backhaul_audit.piles import Piles
from backhaul_audit.plans import Ask

_LATER = frozenset({SOURCE_BACKFILL, SOURCE_REPLAY})
_MAX_REVISION = (1 << 32) - 1

MAX_EXPECTED = 10_000
"""Channels that encrypt of which it is known before their messages are read."""


class Sealed(Protocol):
    """What lies in sealed files: see ``Books``."""

    async def remember(
        self, pile: PileKey, position: int, at_us: int, ids: bytes, revisions: Sequence[int]
    ) -> None: ...

    async def found(self, pile: PileKey, wanted: set[EventId], slots: Iterable[int]) -> set[EventId]: ...


@dataclass(slots=True)
class _Columns:
    """Events of one pile, column by column."""

    events: list[Event]
    ids: bytes
    revisions: array[int]


class Taking:
    """Takes one message after another. ``again`` are the events that may come twice, and when they did."""

    def __init__(
        self,
        piles: Piles,
        asking: Asking,
        sealed: Sealed,
        again: dict[PileKey, dict[EventId, int]],
        counts: Counts,
        lines: Lines,
        encrypted: EncryptedLines,
        *,
        traced: bool,
    ) -> None:
        self._piles = piles
        self._asking = asking
        self._sealed = sealed
        self._again = again
        self._traced = traced
        self._lines = lines
        self._encrypted = encrypted
        self._encrypting: dict[tuple[str, ...], None] = {}
        self._repeated = counts.repeated
        self._log = get_logger(component="taking")

    async def expect(self, messages: Sequence[StreamMessage]) -> None:
        """These will be taken next: have the keys of their people here, if their channels want them, by one look-up for
        all. UNAVAILABLE; FAILED_PRECONDITION where keys cannot be decrypted."""
        if not self._encrypting:
            return
        batches = []
        for message in messages:
            if _source(message) in self._encrypting:
                with suppress(DecodeError):  # ``take`` says so.
                    events = EventBatch.FromString(message.data).events
                    if events:
                        batches.append((events[0].registration, events))
        if len(batches) > 1:
            await self._encrypted.expect(batches)

    async def take(self, message: StreamMessage, now: float) -> None:
        """Put what ``message`` brings on its piles. UNAVAILABLE; nothing of it is taken then."""
        try:
            events = EventBatch.FromString(message.data).events
        except DecodeError:
            # Only a program that is not Backhaul can have written it.
            self._log.error("not_an_event_batch", path=message.path, stream_seq=message.stream_seq)
            return
        if not events:
            return
        first = events[0]
        parts: list[tuple[Part, Ask]] = []
        for chain, some in _by_chain(events):
            pile = PileKey(first.registration, first.channel, chain)
            brought = await self._part(message, pile, first.tenant_id, some)
            if brought is not None:
                parts.append(brought)
        for part, ask in parts:
            self._piles.take(part, ask, now)

    async def _part(
        self, message: StreamMessage, pile: PileKey, tenant_id: str, events: Sequence[Event]
    ) -> tuple[Part, Ask] | None:
        """What of ``events`` goes on the pile, None where nothing does."""
        position = message.stream_seq
        wants = self._piles.wants(pile, position)
        if wants is False:
            return None
        if isinstance(wants, Plan):
            ask = Ask(wants.tenant_id, wants.destination, wants.bucket, wants.shape)
        else:
            asked = await self._asking.of(tenant_id, pile.registration, pile.channel)
            if asked is None:
                self._encrypting.pop(_source(message), None)
                return None
            ask = asked
        columns = _columns(events)
        if message.again or pile in self._again:
            columns = await self._new(message, pile, columns)
            if not columns.events:
                return None
        return (
            Part(
                pile=pile,
                position=position,
                lines=await self._lines_of(message, pile, ask.shape, columns.events),
                ids=columns.ids,
                revisions=columns.revisions,
                arrivals=[event.received_at_us for event in columns.events],
                stored_at_us=message.stored_at_us,
                traceparent=columns.events[0].traceparent if self._traced else "",
            ),
            ask,
        )

    async def _lines_of(
        self, message: StreamMessage, pile: PileKey, shape: Shape, events: Sequence[Event]
    ) -> Sequence[bytes]:
        if not shape.encrypted:
            if self._encrypting:
                self._encrypting.pop(_source(message), None)
            return self._lines.of(events, with_event=shape.with_event)
        if len(self._encrypting) >= MAX_EXPECTED:
            self._encrypting.clear()
        self._encrypting[_source(message)] = None
        return await self._encrypted.of(pile.registration, events, with_event=shape.with_event)

    async def _new(self, message: StreamMessage, pile: PileKey, columns: _Columns) -> _Columns:
        """Without those that lie in a file, or will."""
        at_us = message.stored_at_us
        remembered = self._again.get(pile, {})
        # The oldest come first, and most messages find none that is old enough.
        for event in [event for event, _ in takewhile(lambda one: one[1] < at_us - AGAIN_US, remembered.items())]:
            del remembered[event]
        events = list(events_of(columns.ids, columns.revisions))
        asked = set(events) if message.again else remembered.keys() & set(events)
        if message.again:
            # Before anything is taken: whoever goes on from a later position must know of it.
            await self._sealed.remember(pile, message.stream_seq, at_us, columns.ids, columns.revisions)
            for event in asked:
                remembered.pop(event, None)
                remembered[event] = at_us
            self._again[pile] = remembered
        elif not remembered:
            self._again.pop(pile, None)
        if not asked:
            return columns
        # In memory first: what is sealed meanwhile goes from there into the database, and never back.
        found = {event for known in self._piles.holds(pile) for event in asked if event in known}
        slots = {
            event.received_at_us // SLOT_US for event, key in zip(columns.events, events, strict=True) if key in asked
        }
        found |= await self._sealed.found(pile, asked - found, slots)
        kept = []
        for index, event in enumerate(events):
            if event not in found:
                kept.append(index)
                if message.again:
                    found.add(event)  # Twice in one message.
        if len(kept) == len(events):
            return columns
        self._repeated.add(pile.registration.rpartition(".")[0], pile.channel, amount=len(events) - len(kept))
        return _columns([columns.events[index] for index in kept])


def _source(message: StreamMessage) -> tuple[str, ...]:
    """Queue path and channel, as the subject has them."""
    return tuple(message.subject.split(".", 3)[1:3])


def _by_chain(events: Sequence[Event]) -> Iterable[tuple[Chain, Sequence[Event]]]:
    later = [event.source in _LATER for event in events]
    if not any(later):
        yield Chain.EVENTS, events
    elif all(later):
        yield Chain.BACKFILL, events
    else:
        yield Chain.EVENTS, [event for event, is_later in zip(events, later, strict=True) if not is_later]
        yield Chain.BACKFILL, [event for event, is_later in zip(events, later, strict=True) if is_later]


def _columns(events: Sequence[Event]) -> _Columns:
    ids = [event.id for event in events]
    try:
        joined = bytes.fromhex("".join(ids))
    except ValueError:
        joined = b""
    if len(joined) != 16 * len(ids) or any(len(one) != 32 for one in ids):
        joined = b"".join(map(id_bytes, ids))
    revisions = array("I", [min(max(event.revision, 0), _MAX_REVISION) for event in events])
    return _Columns(list(events), joined, revisions)
