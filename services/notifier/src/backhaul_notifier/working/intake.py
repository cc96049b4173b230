"""What was read for one endpoint, on its way to being called: what nobody wants is left out, what its communication
holds is held back, and what goes together comes together."""

from __future__ import annotations

from collections import deque
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
        self._unlooked: deque[Delivery] = deque()
        self._asks_from_us = 0
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
        return bool(self._unlooked or self._unplaced)

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
        """Have ready what may be sent now. UNAVAILABLE; LostError."""
        await self._read(now_us)
        # A mail tells all that there is, and not what is read of it at once.
        while by_digest(self._held, self._subscription) and self.wants(now_us):
            await self._read(now_us)

    async def _read(self, now_us: int) -> None:
        if not self.stuck and self.wants(now_us):
            self._unlooked += await self.source.read(now_us)
        while self._unlooked:
            if (wanted := await self._wanted(self._unlooked[0], now_us)) is not None:
                self._unplaced.append(wanted)
            self._unlooked.popleft()
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

    async def _wanted(self, delivery: Delivery, now_us: int) -> Delivery | None:
        """What was read, as its subscription wants it; where it does not, it is deleted, and where that is not known
        yet, it is put off. UNAVAILABLE."""
        if not delivery.unsure:
            return delivery
        said, matcher = delivery.said, self._subscription.matcher
        if types := matcher.types(said):
            return replace(delivery, type=types[0])
        if isinstance(said, Event) and (types := matcher.types_if_known(said)):
            looks = [delivery.created_at_us + seconds * 1_000_000 for seconds in LOOKS_S]
            due_us = next((at_us for at_us in looks if at_us > now_us), 0)
            communication_id = await self._communication_of(delivery, now_us)
            if communication_id is None:
                # Whoever could not ask must not say that it is of none, nor have others wait.
                communication_id, due_us = "", self._asks_from_us
            if matcher.asks_for(communication_id):
                return await self._known(delivery, communication_id, types[0], now_us)
            if not communication_id and due_us:
                await self._write(delivery, {"due_at_us": due_us})
                self.source.ended(delivery, due_us)
                return None
        self.unwritten += 1
        self._unwanted(delivery)
        return None

    async def _communication_of(self, delivery: Delivery, now_us: int) -> str | None:
        """See ``Communications``; empty also where it can say nothing of this one alone. None where the normalizer did
        not say: it is not asked again for a while, in which it might take its time for each."""
        if now_us < self._asks_from_us:
            return None
        try:
            return await self._parts.communications.of(self._subscription, delivery)
        except BackhaulError as exc:
            self._parts.away.warning(repr(exc))
            if not (is_outage(exc) or exc.code in _OF_ALL):
                return ""
            # It may have taken its time until it failed.
            self._asks_from_us = self._parts.now_us() + LOOKS_S[0] * 1_000_000
            return None

    async def _known(self, delivery: Delivery, communication_id: str, type_: str, now_us: int) -> Delivery | None:
        """Note of which communication it is. None: it has changed meanwhile, and is read anew."""
        # Protobuf reads the last of two values.
        payload = delivery.payload + Event(communication_id=communication_id).SerializeToString()
        if await self._write(delivery, {"communication_id": communication_id, "payload": payload}):
            return replace(delivery, communication_id=communication_id, payload=payload, type=type_)
        self.source.ended(delivery, now_us)
        return None

    async def _write(self, delivery: Delivery, values: Document) -> bool:
        """Whether it was still as it was read. Whoever is erased is so in the payload."""
        query = {"_id": delivery.id, "state": "waiting", "unsure": True, "payload": delivery.payload}
        async with mongo.operation():
            written = await self._rows.update_one(query, {"$set": values})
        return bool(written.matched_count)

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


def by_digest(held: Held, subscription: Subscription) -> bool:
    """Whether events are gathered for a mail: people are alerted at once."""
    return subscription.definition.WhichOneof("destination") == "mail" and not is_alert(held.id)
