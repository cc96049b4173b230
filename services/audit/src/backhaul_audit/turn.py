"""What one copy does while it owns the position: reads on, closes piles in time, and makes room."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from backhaul_common.feed import PositionReader
from backhaul_common.logs import get_logger
from backhaul_common.outages import Repeated
from backhaul_common.tracing import Tracing

from backhaul_audit.asking import Asking
from backhaul_audit.books import AGAIN_US, Books, Opened
from backhaul_audit.counts import Counts
from backhaul_audit.encrypting import EncryptedLines
from backhaul_audit.lateness import Lateness
from backhaul_audit.lines import Lines
from backhaul_audit.model import PileKey
from backhaul_audit.piles import Piles, Relief, Since
from backhaul_audit.plans import Way, way_of
from backhaul_audit.ports import Destinations, Waiting
from backhaul_audit.returns import Returns
from backhaul_audit.sealer import ReadAgainError, Sealer
from backhaul_audit.states import MongoStates
from backhaul_audit.taking import Taking
from backhaul_audit.uploading import Uploads

_TICK_S = 0.25
"""How often it is looked whether a pile has been open for long enough."""

_MOVE_S = 5.0
"""How often the position moves where nothing is sealed, and how often it is told how it stands."""

_HALF = "half of the time has passed for which EVENTS keeps it"


class Turn:
    """One ownership. What is in memory here is lost with it, and read again."""

    def __init__(
        self,
        reader: PositionReader,
        books: Books,
        states: MongoStates,
        asking: Asking,
        destinations: Destinations,
        piles: Piles,
        opened: Opened,
        counts: Counts,
        lines: Lines,
        encrypted: EncryptedLines,
        tracing: Tracing,
        new_id: Callable[[], str],
        now_us: Callable[[], int],
        *,
        lateness: Lateness,
        returns: Returns,
        position: int,
    ) -> None:
        self.piles = piles
        self._reader = reader
        self._books = books
        self._states = states
        self._now_us = now_us
        self._asking = asking
        self._lateness = lateness
        self._returns = returns
        self._read = position
        self._stored_at_us = 0
        self._read_to_us = 0
        self._room = asyncio.Event()
        self._lapsing: set[Way] = set()
        self.uploads = Uploads(destinations, asking, counts, self._room.set)
        self._sealer = Sealer(
            piles,
            books,
            self.uploads,
            asking,
            counts,
            tracing,
            new_id,
            read=lambda: self._read,
            changed=self._room.set,
        )
        self._taking = Taking(piles, asking, books, opened.again, counts, lines, encrypted, traced=tracing.enabled)
        self._waits = Repeated("filing_waits_for_room", component="turn")
        self._late = Repeated("events_wait_too_long", component="turn")
        self._log = get_logger(component="turn")

    async def run(self) -> None:
        """Until cancelled, or something fails; ``ReadAgainError`` where all must be read again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._books.keep(), name="keep_position")
            group.create_task(self._sealer.begin(group), name="record")
            group.create_task(self._sealer.seal(), name="seal")
            group.create_task(self._tick(), name="tick")
            self._sealer.look()
            await self._read_on(group)

    async def _read_on(self, group: asyncio.TaskGroup) -> None:
        while True:
            messages = await self._reader.next_batch()
            await self._taking.expect(messages)
            now = time.monotonic()
            for message in messages:
                await self._taking.take(message, now)
                self._read = message.stream_seq
                self._stored_at_us = message.stored_at_us
            self.piles.passed(self._read)
            self._sealer.look()
            await self._make_room(group)

    async def _make_room(self, group: asyncio.TaskGroup) -> None:
        """Returns when there is room for more."""
        while (relief := self.piles.relief(self.uploads.blocked, self.uploads.aside)) is not None:
            self._room.clear()
            match relief:
                case Relief.CLOSE, PileKey() as pile:
                    self.piles.close(pile)
                    self._sealer.look()
                case Relief.LAPSE, PileKey() as pile:
                    self._lapse(group, pile)
                case _:
                    self._waits.warning("; ".join(self.uploads.problems.values()) or "files are being uploaded")
                    await self._room.wait()
        self._waits.over()

    def _lapse(self, group: asyncio.TaskGroup, pile: PileKey) -> None:
        refused = pile in self.uploads.aside
        closed = self.piles.lapse(pile)
        self._sealer.drop(closed)
        self._log.error("pile_lapsed", registration=pile.registration, channel=pile.channel, files=len(closed))
        # What the bucket of all refuses is tried again when it is read again.
        way = Way(pile.registration, "" if refused else pile.channel)
        if way not in self._lapsing:
            self._lapsing.add(way)
            group.create_task(self._come_back(way), name="come_back")

    async def _come_back(self, way: Way) -> None:
        await asyncio.sleep(self._returns.pause_s(way.registration))
        await self.uploads.back(way, f"tenants/{way.registration}/nothing")
        raise ReadAgainError

    async def _tick(self) -> None:
        looked_at = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            self.piles.expire(now, self._asking.now, self.uploads.blocked, self.uploads.aside, self.uploads.refusing)
            self._sealer.look()
            self._room.set()  # What has no place may have got one, or have been given up.
            if now - looked_at >= _MOVE_S:
                looked_at = now
                await self._look_after()

    async def _look_after(self) -> None:
        """What is done now and then."""
        gone = {pile.registration for pile in self.piles.all() if self._asking.gone(pile.registration)}
        if gone:
            really = await self._books.abandon(gone)
            for pile in self.piles.all():
                if pile.registration in really:
                    self._sealer.drop(self.piles.forget(pile))
            self._room.set()
        floor = self.piles.floor(self._read)
        if floor > self._books.floor:
            await self._books.move(floor)
        if self._stored_at_us:
            # Not by what was read last: what waits for a bucket is read again, however much later.
            await self._books.forget_again(self.piles.stored_from(self._stored_at_us) - 2 * AGAIN_US)
        # Before it is asked: where nothing lies behind what was taken, all that was published by now was. While the
        # broker does not say so, what was known stands.
        now_us = self._now_us()
        behind = await self._reader.is_behind(self._read)
        self._read_to_us = max(self._read_to_us, self._stored_at_us) if behind else now_us
        await self._states.tell(self._waiting(), self._read_to_us)
        self._tell_late(self._read_to_us)

    def _tell_late(self, read_to_us: int) -> None:
        now_us = self._now_us()
        late = {
            pile: since.stored_us
            for pile, since in self.piles.waiting().items()
            if self._lateness.is_late(since.stored_us, now_us)
        }
        if late:
            pile = min(late, key=lambda one: late[one])
            said = self._lateness.waiting(late[pile], now_us)
            self._late.error(_HALF, detail=said, registration=pile.registration, channel=pile.channel, piles=len(late))
        elif unread := self._lateness.unread(read_to_us, now_us):
            self._late.error(_HALF, detail=unread)
        else:
            self._late.over()

    def _waiting(self) -> dict[str, Sequence[Waiting]]:
        problems, since = self.uploads.problems, self.piles.waiting()
        told: dict[str, dict[str, Waiting]] = defaultdict(dict)
        for pile in self.piles.all():
            ask = self._asking.now(pile)
            problem = problems.get(way_of(pile, ask.destination), "") if ask is not None else ""
            problem = self.uploads.aside.get(pile, problem)
            if ask is not None and not ask.bucket:
                problem = "Object storage is not configured."
            waits = [since[pile]] if pile in since else []
            before = told[pile.registration].get(pile.channel)
            if before is not None and before.since_us:
                waits.append(Since(before.since_us, before.stored_us))
            if problem or waits:
                told[pile.registration][pile.channel] = Waiting(
                    pile.channel,
                    problem,
                    min((one.arrived_us for one in waits), default=0),
                    min((one.stored_us for one in waits), default=0),
                )
        return {registration: list(channels.values()) for registration, channels in told.items() if channels}
