"""What was read for one endpoint, on its way to being called: what nobody wants is left out, what its communication
holds is held back, and what goes together comes together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import DELIVERIES_COLLECTION
from backhaul_common.outages import is_outage
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from msgspec.structs import replace
from pymongo import UpdateOne

from backhaul_notifier.documents import is_alert
from backhaul_notifier.model import Delivery, Subscription
from backhaul_notifier.working.calls import Call, Queue
from backhaul_notifier.working.endpoints import Held
from backhaul_notifier.working.ordered import Ordered
from backhaul_notifier.working.parts import Parts
from backhaul_notifier.working.sources import NEVER, PAGE, Source, Unordered
from backhaul_notifier.working.weight import Weight

LOOKS_S: Final = (5, 60)
"""When it is looked again, from its being made on, whether something is of a communication that is asked for; after the
last time it is not told. A sender may register what it sent, or a callback that names the communication may come, later
than what happened to the message."""

AWAY_S: Final = (5, 60)
"""For how long the normalizer is left alone that did not say, at first and at most: twice as long each time, since
nothing is read of an endpoint while it is asked."""

ASKED_AT_ONCE: Final = 32
"""Of so many it is asked together of which communication they are."""

_OF_ALL: Final = frozenset({Code.UNAUTHENTICATED, Code.FORBIDDEN})
"""What is answered to whoever may ask for nothing, whatever it is."""

_OPEN: Final = 2 * PAGE
_ORDERED: Final = frozenset({pb.ORDERING_MESSAGE, pb.ORDERING_RECIPIENT})


class Intake:
    """Reads into ``queue``. ``unwritten`` counts what was taken from it and is not written down yet."""

    def __init__(
        self, parts: Parts, held: Held, subscription: Subscription, unwanted: Callable[[Delivery], None]
    ) -> None:
        """``unwanted`` has one deleted, which counts as unwritten until it is."""
        self.queue = Queue()
        self.unwritten = 0
        kind: type[Source] = Ordered if subscription.definition.ordering in _ORDERED else Unordered
        self.weight = Weight(parts.memory)
        self.source = kind(parts.database, held.id, self.weight)
        self._rows = parts.database[DELIVERIES_COLLECTION]
        self._parts = parts
        self._held = held
        self._subscription = subscription
        self._unwanted = unwanted
        self._unknown: list[Delivery] = []
        self._asks_from_us = 0
        self._away_s = 0
        self._unplaced: list[Delivery] = []
        self._sifted = 0

    def allow(self, subscription: Subscription) -> None:
        """What the subscription says."""
        self._subscription = subscription
        definition = subscription.definition
        if by_digest(self._held, subscription):
            self.queue.allow_digest(definition.mail.every_minutes)
        else:
            self.queue.allow(definition.payload.max_events, definition.payload.max_wait_s)

    @property
    def stuck(self) -> bool:
        """Whether something was read that could not be placed yet."""
        return bool(self._unknown or self._unplaced)

    @property
    def next_at_us(self) -> int:
        """When there may be something to read or to place: 0 where that is now, NEVER where there is no room."""
        if self.stuck:
            return 0
        return self.source.next_at_us if self._has_room else NEVER

    @property
    def falls_due_us(self) -> int:
        """When something is to be sent next, room or not."""
        return min(self.source.next_at_us, self.queue.ripe_at_us or NEVER)

    def wants(self, now_us: int) -> bool:
        """Whether more should be read."""
        return self._has_room and self.source.next_at_us <= now_us

    async def read(self, now_us: int) -> None:
        """Have ready some of what may be sent now: what is to be asked for comes later, so that nothing else waits for
        it. UNAVAILABLE; LostError."""
        await self._read(now_us)
        # A mail tells all that there is, and not what is read of it at once.
        while by_digest(self._held, self._subscription) and (self._unknown or self.wants(now_us)):
            await self._read(now_us)

    async def _read(self, now_us: int) -> None:
        if not self.stuck and self.wants(now_us):
            for one in await self.source.read(now_us):
                self._sort(one)
        elif self._unknown and not self._unplaced:
            await self._ask(now_us)
        while self._unplaced:
            await (self.hold_back() if self._is_held_back(self._unplaced[0]) else self._place(self._unplaced[0]))
        if self.weight.room <= 0:
            self.queue.gather_no_more()

    async def left(self, now_us: int) -> bool:
        """Whether something can be sent now, now that no more will be. UNAVAILABLE."""
        # What was told by then is met by this look.
        self.source.told()
        self.weight.clear()
        return bool(await self.source.read(now_us)) or self.stuck or self.queue.has_ready(now_us)

    async def hold_back(self) -> None:
        """Have what is not placed yet wait for its communication, where that is disabled. UNAVAILABLE; LostError."""
        self.sift()
        if not (back := [one for one in self._unplaced if self._is_held_back(one)]):
            return
        kept = await self._parts.holding.hold(self._held, self._subscription, back)
        self._unplaced = [one for one in self._unplaced if one.id not in kept]
        for one in back:
            if one.id in kept:
                self.source.ended(one, 0)

    def sift(self) -> bool:
        """Take back what a communication holds that was disabled after it was placed. Whether there was anything."""
        version = self._parts.holding.switches.version
        if self._sifted == version:
            return False
        self._sifted = version
        back = self.queue.sift(self._is_held_back)
        self._unplaced += back
        return bool(back)

    def put_back(self, call: Call) -> None:
        """``call`` was not made after all; maybe since it is held back by now."""
        self.queue.put_back(call)
        self._sifted = -1

    def is_any_held_back(self, deliveries: Iterable[Delivery]) -> bool:
        """Whether one of ``deliveries`` is not to be sent now."""
        return any(map(self._is_held_back, deliveries))

    @property
    def _has_room(self) -> bool:
        return self.queue.has_room and self.unwritten < _OPEN

    def _is_held_back(self, delivery: Delivery) -> bool:
        return self._parts.holding.switches.holds(self._subscription, delivery)

    def _sort(self, delivery: Delivery) -> None:
        """Have what was read placed, as its subscription wants it; where it does not, it is deleted, and where that is
        not known yet, it is asked for."""
        if not delivery.unsure:
            self._unplaced.append(delivery)
            return
        said, matcher = delivery.said, self._subscription.matcher
        if types := matcher.types(said):
            self._unplaced.append(replace(delivery, type=types[0]))
        elif isinstance(said, Event) and matcher.types_if_known(said):
            self._unknown.append(delivery)
        else:
            self._delete(delivery)

    def _delete(self, delivery: Delivery) -> None:
        self.unwritten += 1
        self._unwanted(delivery)

    async def _ask(self, now_us: int) -> None:
        """Ask of which communication the next ones are: what is wanted is placed, and this is written down, what is not
        is deleted, and what is not known yet is put off. UNAVAILABLE."""
        group = self._unknown[:ASKED_AT_ONCE]
        answers = await asyncio.gather(*(self._communication_of(one, now_us) for one in group))
        matcher, known, unwanted = self._subscription.matcher, list[Delivery](), list[Delivery]()
        put_off, changed = list[tuple[Delivery, int]](), list[Delivery]()
        for one, communication_id in zip(group, answers, strict=True):
            if not (types := matcher.types_if_known(Event.FromString(one.payload))):
                changed.append(one)  # The subscription asks for others by now, or for all.
            elif communication_id is None:
                # Whoever could not ask must not say that it is of none, nor have others wait.
                put_off.append((one, self._asks_from_us))
            elif matcher.asks_for(communication_id):
                # Protobuf reads the last of two values.
                payload = one.payload + Event(communication_id=communication_id).SerializeToString()
                known.append(replace(one, communication_id=communication_id, payload=payload, type=types[0]))
            elif not communication_id and (due_us := _next_look_us(one, now_us)):
                put_off.append((one, due_us))
            else:
                unwanted.append(one)
        as_read = await self._write(group, known, put_off)
        del self._unknown[: len(group)]
        for one in changed:
            self._sort(one)
        for one in unwanted:
            self._delete(one)
        for one, due_us in put_off:
            self.source.ended(one, due_us)
        if as_read:
            self._unplaced += known
        else:
            for one in known:
                self.source.ended(one, now_us)

    async def _write(
        self, group: Iterable[Delivery], known: Iterable[Delivery], put_off: Iterable[tuple[Delivery, int]]
    ) -> bool:
        """Note of which communication those of ``group`` are that are ``known``, and until when others are put off.
        Whether all were still as they were read; if not, those that are known are read anew. Whoever is erased is so in
        the payload."""
        values: dict[bytes, Document] = {one.id: {"due_at_us": due_us} for one, due_us in put_off}
        values |= {one.id: {"communication_id": one.communication_id, "payload": one.payload} for one in known}
        changes = [
            UpdateOne({"_id": one.id, "state": "waiting", "unsure": True, "payload": one.payload}, {"$set": said})
            for one in group
            if (said := values.get(one.id))
        ]
        if not changes:
            return True
        async with mongo.operation():
            written = await self._rows.bulk_write(changes, ordered=False)
        return written.matched_count == len(changes)

    async def _communication_of(self, delivery: Delivery, now_us: int) -> str | None:
        """See ``Communications``; empty also where it can say nothing of this one alone. None where the normalizer did
        not say: it is not asked again for a while, in which it might take its time for each."""
        if now_us < self._asks_from_us:
            return None
        try:
            found = await self._parts.communications.of(self._subscription, delivery)
        except BackhaulError as exc:
            self._parts.away.warning(repr(exc))
            if not (is_outage(exc) or exc.code in _OF_ALL):
                return ""
            # It may have taken its time until it failed. Those that were asked for together failed together.
            if self._asks_from_us <= now_us:
                first_s, most_s = AWAY_S
                self._away_s = min(max(2 * self._away_s, first_s), most_s)
                self._asks_from_us = self._parts.now_us() + self._away_s * 1_000_000
            return None
        self._away_s = 0
        return found

    async def _place(self, delivery: Delivery) -> None:
        """Have the first of what was read sent, with those that it was sent with before."""
        if not (delivery.call and self.queue.batched):
            self.queue.add(delivery)
            del self._unplaced[0]
            return
        fellows = await self.source.of_call(delivery.call)
        here = {one.id for one in self._unplaced if one.call == delivery.call}
        together = [one for one in fellows if one.id in here or self.source.adopt(one)] or [delivery]
        # Their communication may have been disabled while these were read.
        back = [one for one in together if self._is_held_back(one)]
        self._unplaced = back + [one for one in self._unplaced if one.id not in here]
        if forth := [one for one in together if one not in back]:
            self.queue.add_again(forth)


def _next_look_us(delivery: Delivery, now_us: int) -> int:
    """When it is asked again of which communication it is; 0 where that was the last time."""
    looks = (delivery.created_at_us + seconds * 1_000_000 for seconds in LOOKS_S)
    return next((at_us for at_us in looks if at_us > now_us), 0)


def by_digest(held: Held, subscription: Subscription) -> bool:
    """Whether events are gathered for a mail: people are alerted at once."""
    return subscription.definition.WhichOneof("destination") == "mail" and not is_alert(held.id)
