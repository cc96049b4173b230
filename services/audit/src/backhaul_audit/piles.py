"""Piles of events that become files: what is taken, when a file is closed, and how far all of it is safe.

Nothing here waits, reads a clock, or knows a server. Positions are those of EVENTS, and are taken in order. Whatever is
here can be lost: all behind ``floor`` is read again, and makes the same files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from backhaul_audit.contents import Content, Part
from backhaul_audit.model import EventId, PileKey, Plan
from backhaul_audit.plans import FILE_BYTES, Ask, Closed, Way, new_plan, separator_of, way_of


class Relief(Enum):
    """What makes room."""

    CLOSE = "close"
    """Close this pile: it goes into a file early."""
    LAPSE = "lapse"
    """Drop this pile: it is read again when its bucket is back."""
    WAIT = "wait"
    """Take nothing more, until what is under way is sealed."""


class Since(NamedTuple):
    """Since when a pile waits: when the first of its events arrived, and when EVENTS took the first of its messages.
    Unix time in microseconds."""

    arrived_us: int
    stored_us: int


@dataclass(slots=True)
class _Pile:
    key: PileKey
    done: int = 0
    ask: Ask | None = None
    content: Content = field(default_factory=Content)
    opened_at: float = 0.0
    first: int = 0
    last: int = 0
    closed: list[Closed] = field(default_factory=list)
    planned: list[Plan] = field(default_factory=list)
    """Plans that were recorded before, and are to be made again, the next first."""
    lapsed_at: int = 0
    """The first position that it lacks since it lapsed; 0 where it did not."""
    lapsed_since: Since | None = None
    """Since when what it lacks had been waiting."""

    def since(self) -> Since | None:
        """Since when it waits, None where it does not."""
        contents = [one.content for one in self.closed if one.content.events]
        if self.content.events:
            contents.append(self.content)
        if not contents:
            return self.lapsed_since
        return Since(min(one.first_at_us for one in contents), min(one.stored_at_us for one in contents))

    def waits_from(self, without: Collection[Closed] = ()) -> int:
        """The first position that is not sealed, 0 where none waits; ``without`` count as sealed."""
        firsts = [one.plan.first for one in self.closed if not any(one is other for other in without)]
        firsts += [plan.first for plan in self.planned[:1]]
        if self.lapsed_at:
            firsts.append(self.lapsed_at)
        if self.content.events:
            firsts.append(self.first)
        return min(firsts, default=0)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a file is closed, and what all of them may take in memory: see ``AuditSettings``."""

    file_bytes: int
    file_events: int
    file_age_s: float
    memory_bytes: int


class Piles:
    """All piles of the copy that files. ``new_id`` makes a file's id, 32 hex digits."""

    def __init__(self, limits: Limits, new_id: Callable[[], str]) -> None:
        self._limits = limits
        self._new_id = new_id
        self._piles: dict[PileKey, _Pile] = {}
        self._closed: list[Closed] = []
        self.bytes = 0
        """What all of them take in memory, files that are not sealed yet included."""

    def known(self, pile: PileKey, done: int, planned: Sequence[Plan] = ()) -> None:
        """To be told before anything is taken: up to ``done`` the pile is sealed, and ``planned`` are to be made."""
        mine = self._pile(pile)
        mine.done = done
        mine.planned = sorted(planned, key=lambda plan: plan.first)

    def wants(self, pile: PileKey, position: int) -> Plan | bool | None:
        """Whether a message at ``position`` belongs into the pile: False where it has been decided already; the plan
        that it is part of; None where it depends on whether the channel asks."""
        mine = self._piles.get(pile)
        if mine is None:
            return None
        if position <= mine.done or mine.lapsed_at or (mine.closed and position <= mine.closed[-1].plan.last):
            return False
        if mine.planned:
            plan = mine.planned[0]
            if position <= plan.last:
                return plan if position >= plan.first else False
        return None

    def passed(self, position: int) -> None:
        """Everything up to ``position`` was taken. Plans that end there, or before, are complete."""
        for mine in list(self._piles.values()):
            while mine.planned and mine.planned[0].last <= position:
                self._close(mine)

    def take(self, part: Part, ask: Ask, now: float) -> None:
        """Put ``part`` on its pile. ``wants`` was asked, and lines are written as its plan, else ``ask``, says."""
        mine = self._pile(part.pile)
        if mine.planned and part.position > mine.planned[0].last:
            self.passed(part.position - 1)
        plan = mine.planned[0] if mine.planned else None
        if plan is None:
            self._ask(mine, ask)
            more = sum(map(len, part.lines)) + 2 * len(part.lines)
            if mine.content.events and (
                mine.content.size + more > self._limits.file_bytes
                or mine.content.events + len(part.lines) > self._limits.file_events
            ):
                self._close_if_it_can_be(mine)
        if not mine.content.events:
            mine.first, mine.opened_at = part.position, now
        before = mine.content.held
        mine.content.add(part, separator_of((plan or mine.ask or ask).shape))
        mine.last = part.position
        self.bytes += mine.content.held - before
        if plan is not None:
            if part.position == plan.last:
                self._close(mine)
        elif mine.content.size >= self._limits.file_bytes or mine.content.events >= self._limits.file_events:
            self._close_if_it_can_be(mine)

    def expire(
        self,
        now: float,
        asks: Callable[[PileKey], Ask | None],
        blocked: Collection[Way] = (),
        aside: Collection[PileKey] = (),
        refusing: Mapping[Way, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """Close what has been open for long enough, and what is no longer asked for as it was.

        What goes by a ``blocked`` way, or is one of ``aside``, stays open: hours would otherwise leave a small file of
        every few minutes. Of a way that is ``refusing`` some registrations' files, one more file of another is closed
        where all that waits was refused, so that it is seen whether it refuses those alone.
        """
        for mine in list(self._piles.values()):
            if not mine.content.events or mine.planned or mine.ask is None:
                continue
            ask = asks(mine.key)
            if ask is not None:
                self._ask(mine, ask)
            elif not mine.ask.bucket:
                self._emptied(mine)  # There was never a place for it, and nobody wants it any more.
                continue
            old = now - mine.opened_at >= self._limits.file_age_s
            way = way_of(mine.key, mine.ask.destination)
            waits = mine.key in aside or (way in blocked and not self._may_try(mine.key, way, refusing))
            if ask is None or (old and not waits):
                self._close_if_it_can_be(mine)

    def _may_try(self, pile: PileKey, way: Way, refusing: Mapping[Way, Collection[str]]) -> bool:
        refused = refusing.get(way, ())
        if not refused or pile.registration in refused:
            return False
        return all(
            mine.key.registration in refused for mine in self._piles.values() for one in mine.closed if one.way == way
        )

    def closed(self) -> Sequence[Closed]:
        """What was closed since this was asked last, in order."""
        closed, self._closed = self._closed, []
        return closed

    def in_line(self, pile: PileKey) -> Sequence[Closed]:
        """The files of the pile that are to be sealed, in order."""
        mine = self._piles.get(pile)
        return mine.closed if mine is not None else ()

    def sealed(self, closed: Closed) -> None:
        """``closed`` was the next of its pile, and is sealed, or given up for good."""
        mine = self._piles.get(closed.plan.pile)
        if mine is None:
            return
        mine.done = max(mine.done, closed.plan.last)
        if any(one is closed for one in mine.closed):  # Not of a pile that lapsed meanwhile.
            mine.closed = [one for one in mine.closed if one is not closed]
            self.bytes -= closed.bytes

    def forget(self, pile: PileKey) -> Sequence[Closed]:
        """The tenant is gone: drop all of it. Returns what was closed."""
        mine = self._piles.pop(pile, None)
        if mine is None:
            return ()
        return self._emptied(mine)

    def floor(self, read: int, without: Collection[Closed] = ()) -> int:
        """Everything up to here is in sealed files, or belongs into none. ``read`` is the last position that was taken;
        ``without`` are files that count as sealed."""
        firsts = (mine.waits_from(without) for mine in self._piles.values())
        return min([read, *(first - 1 for first in firsts if first)])

    def holds(self, pile: PileKey) -> Iterator[Collection[EventId]]:
        """What lies in the files of the pile that are not sealed."""
        mine = self._piles.get(pile)
        if mine is not None:
            yield mine.content.known()
            for one in mine.closed:
                yield one.content.known()

    def relief(self, blocked: Collection[Way], aside: Collection[PileKey] = ()) -> tuple[Relief, PileKey | None] | None:
        """What to do where more is held than may be, None where there is room. ``blocked`` are ways that are away, and
        of ``aside`` the bucket takes nothing, though it takes others'."""
        if self.bytes <= self._limits.memory_bytes:
            return None
        half = self._limits.memory_bytes // 2
        stuck, closable, under_way = self._held(blocked, aside)
        if stuck and (stuck.total() > half or not (closable or under_way)):
            return Relief.LAPSE, stuck.most_common(1)[0][0]
        if closable and under_way < half:
            return Relief.CLOSE, closable.most_common(1)[0][0]
        if under_way or blocked or self._without_a_place():
            return Relief.WAIT, None
        return None  # All of it is to be made again, and reading on completes it.

    def _held(
        self, blocked: Collection[Way], aside: Collection[PileKey]
    ) -> tuple[Counter[PileKey], Counter[PileKey], int]:
        """How many bytes wait for buckets that are away or refuse them, and only them; could be closed; and are under
        way."""
        stuck, closable, under_way = Counter[PileKey](), Counter[PileKey](), 0
        for mine in self._piles.values():
            for one in mine.closed:
                if mine.key in aside or (one.way in blocked and one.way.destination):
                    stuck[mine.key] += one.bytes
                elif one.way not in blocked:
                    under_way += one.bytes
            to = mine.planned[0] if mine.planned else mine.ask
            if to is None or not mine.content.events:
                continue
            away = not to.bucket or way_of(mine.key, to.destination) in blocked
            if mine.key in aside or (away and to.destination):
                stuck[mine.key] += mine.content.held
            elif not away and not mine.planned:
                closable[mine.key] = mine.content.held
        return stuck, closable, under_way

    def _without_a_place(self) -> bool:
        asks = (mine.ask for mine in self._piles.values() if mine.content.events)
        return any(ask is not None and not ask.bucket for ask in asks)

    def close(self, pile: PileKey) -> None:
        """Close it now."""
        self._close_if_it_can_be(self._piles[pile])

    def lapse(self, pile: PileKey) -> Sequence[Closed]:
        """Drop what the pile holds, and take nothing for it until everything is read again from ``floor``. Returns what
        was closed: nothing more may be made of it."""
        mine = self._piles[pile]
        mine.lapsed_at, mine.lapsed_since = mine.waits_from(), mine.since()
        mine.planned = []
        return self._emptied(mine)

    @property
    def lapsed(self) -> Mapping[PileKey, Ask]:
        """The piles that lapsed, with what was asked for them."""
        return {one.key: one.ask for one in self._piles.values() if one.lapsed_at and one.ask is not None}

    def waiting(self) -> Mapping[PileKey, Since]:
        """Since when each pile waits that has something which is not sealed."""
        return {key: since for key, mine in self._piles.items() if (since := mine.since()) is not None}

    def stored_from(self, read_us: int) -> int:
        """When EVENTS took the first message that may have to be read again; ``read_us`` is when it took the last that
        was taken here."""
        return min([read_us, *(since.stored_us for since in self.waiting().values())])

    def all(self) -> Collection[PileKey]:
        """All piles that something was taken for, or told of."""
        return list(self._piles)

    def missed(self, first_position: int) -> None:
        """EVENTS has nothing before this position any more: plans that begin before cannot be made again."""
        for mine in self._piles.values():
            while mine.planned and mine.planned[0].first < first_position:
                self._line_up(mine, Closed(mine.planned.pop(0), Content(), recorded=True, lost=True))

    def _pile(self, key: PileKey) -> _Pile:
        mine = self._piles.get(key)
        if mine is None:
            mine = self._piles[key] = _Pile(key)
        return mine

    def _emptied(self, mine: _Pile) -> Sequence[Closed]:
        closed, mine.closed = mine.closed, []
        self._closed = [one for one in self._closed if one.plan.pile != mine.key]
        self.bytes -= sum(one.bytes for one in closed) + mine.content.held
        mine.content = Content()
        return closed

    def _ask(self, mine: _Pile, ask: Ask) -> None:
        """``ask`` holds from now on: what is there and was asked for otherwise is closed."""
        if mine.content.events and mine.ask is not None and mine.ask != ask:
            if not mine.ask.bucket:
                # It could not be closed; perhaps it can be now. What is written is of the shape that it had.
                mine.ask = replace(ask, shape=mine.ask.shape)
            if mine.ask != ask:
                self._close_if_it_can_be(mine)
        if not mine.content.events:
            mine.ask = ask

    def _close_if_it_can_be(self, mine: _Pile) -> None:
        if mine.ask is not None and mine.ask.bucket:
            self._close(mine)

    def _close(self, mine: _Pile) -> None:
        """Make a file of what lies on the pile: of the plan that it is to fulfil, or a new one."""
        recorded = bool(mine.planned)
        if mine.planned:
            plan = mine.planned.pop(0)
        elif mine.content.events and mine.ask is not None:
            plan = new_plan(mine.key, mine.ask, mine.content.named_at_us, mine.first, mine.last, self._new_id())
        else:
            return
        closed = Closed(plan, mine.content, recorded)
        mine.content = Content()
        self._line_up(mine, closed)

    def _line_up(self, mine: _Pile, closed: Closed) -> None:
        mine.closed.append(closed)
        self._closed.append(closed)
        self.bytes += FILE_BYTES
