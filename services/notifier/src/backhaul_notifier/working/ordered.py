"""What waits for an endpoint whose deliveries are in an order, as it is read."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from backhaul_common import mongo

from backhaul_notifier.model import Delivery
from backhaul_notifier.working.sources import NEVER, PAGE, Source, Unordered, is_early
from backhaul_notifier.working.weight import Weight

MAX_BUSY: Final = 10_000
"""Keys of an endpoint that are remembered of which something is under way or to be tried again. Of others it is asked
whether something of theirs waits before what is read: they are met again when all is read anew."""

ANEW_US: Final = 10_000_000
"""How often all is read anew for what is to be tried again of keys that are not remembered."""

_KEPT: Final = 2_000
"""Deliveries behind busy keys that are kept in memory, so that each is not read anew when its turn has come."""

_OF_KEY: Final = 32

_KEYLESS_US: Final = 50_000
"""How often it is looked for what is in no order, beside a page after the other of it."""


@dataclass(slots=True)
class _Key:
    """A key of which something is under way (``due_us`` 0) or waits for its time. ``kept`` are the next ones; ``gap``:
    there may be others behind these, which are to be read."""

    due_us: int = 0
    kept: deque[Delivery] = field(default_factory=deque)
    gap: bool = False


class Ordered(Source):
    """In the order of the stream. Of each key only the first one that waits is handed out; what is in no order, by its
    time."""

    def __init__(self, database: mongo.Database, subscription: str, weight: Weight) -> None:
        super().__init__(database, subscription, weight)
        self._keyless = Unordered(database, subscription, weight, keyless=True)
        self._keyless_not_before_us = 0
        self._cursor = -1
        self._more = True
        self._restarting = False
        self._handed: set[bytes] = set()
        self._busy: dict[bytes, _Key] = {}
        self._due: list[tuple[int, bytes]] = []
        self._to_read: deque[bytes] = deque()
        self._ready: list[Delivery] = []
        self._kept = 0
        # Of keys that are not remembered: when the first of them is to be tried again.
        self._forgotten_us = NEVER
        self._anew_not_before_us = 0
        self._forgotten_meanwhile: set[bytes] = set()

    @property
    def next_at_us(self) -> int:
        """See ``Source``."""
        keyless_us = max(self._keyless.next_at_us, self._keyless_not_before_us)
        if self._ready or self._weight.room <= 0:
            return 0 if self._ready else keyless_us
        if self._to_read or self._more:
            return 0
        anew_us = max(self._forgotten_us, self._anew_not_before_us)
        return min(keyless_us, anew_us, self._due[0][0] if self._due else NEVER)

    async def read(self, now_us: int) -> Sequence[Delivery]:
        """See ``Source``."""
        if self._restarting or max(self._forgotten_us, self._anew_not_before_us) <= now_us:
            self._begin_anew(now_us)
        if max(self._keyless.next_at_us, self._keyless_not_before_us) <= now_us:
            found = await self._keyless.read(now_us)
            self._ready += found
            if len(found) < PAGE:
                self._keyless_not_before_us = now_us + _KEYLESS_US
        await self._read_keys(now_us)
        if self._more and self._weight.room > 0:
            await self._read_on(now_us)
        ready, self._ready = self._ready, []
        return ready

    def adopt(self, delivery: Delivery) -> bool:
        """See ``Source``."""
        if not delivery.key:
            return self._keyless.adopt(delivery)
        if delivery.id in self._handed:
            return False
        key = self._busy.setdefault(delivery.key, _Key())
        self._forget(key)
        key.due_us = 0
        self._handed.add(delivery.id)
        self._weight.add(delivery)
        if delivery.key in self._to_read:
            self._to_read.remove(delivery.key)
        return True

    def ended(self, delivery: Delivery, retry_at_us: int) -> None:
        """See ``Source``."""
        if not delivery.key:
            self._keyless.ended(delivery, retry_at_us)
            return
        self._handed.discard(delivery.id)
        self._weight.drop(delivery.id)
        key = self._busy[delivery.key]
        if retry_at_us:
            self._forget(key)
            self._wait(delivery.key, key, retry_at_us)
        elif key.kept:
            self._kept -= 1
            following = key.kept.popleft()
            self._handed.add(following.id)
            self._ready.append(following)
        elif key.gap:
            self._to_read.append(delivery.key)
        else:
            del self._busy[delivery.key]

    def told(self) -> None:
        """See ``Source``."""
        self._more = True
        self._keyless.told()

    def restart(self) -> None:
        """See ``Source``."""
        self._more = self._restarting = True
        self._keyless.restart()

    def _begin_anew(self, now_us: int) -> None:
        self._restarting = False
        self._more = True
        self._cursor = -1
        self._forgotten_us = NEVER
        self._anew_not_before_us = now_us + ANEW_US
        # What was not handed out yet is met again as well, behind what is before it now.
        for one in self._ready:
            if one.key:
                self._handed.discard(one.id)
                self._weight.drop(one.id)
                self._forget(self._busy.pop(one.key))
        self._ready = [one for one in self._ready if not one.key]
        for name, key in list(self._busy.items()):
            self._forget(key)
            if key.due_us:
                del self._busy[name]  # It is met again, or what is before it now.
        self._due.clear()

    async def _read_keys(self, now_us: int) -> None:
        """Read the heads of keys whose time has come, or whose last head has ended."""
        while self._due and self._due[0][0] <= now_us:
            due_us, name = heapq.heappop(self._due)
            key = self._busy.get(name)
            if key is not None and key.due_us == due_us:
                key.due_us = 0
                self._to_read.append(name)
        for _ in range(min(len(self._to_read), PAGE)):
            if self._weight.room <= 0:
                return
            name = self._to_read[0]
            # Beyond the cursor it is met in its order.
            query = {**self._waiting, "key": name, "order": {"$lte": self._cursor}}
            rows, all_ = await self._find(query, [("order", 1)], _OF_KEY)
            self._to_read.popleft()
            key = self._busy[name]
            if not rows:
                del self._busy[name]
                continue
            self._forget(key)
            key.gap = False
            self._keep(key, rows[1:])
            key.gap = key.gap or not all_
            self._hand_out(name, key, rows[0], now_us)

    async def _read_on(self, now_us: int) -> None:
        self._more = False
        # What becomes of heads may be written down while MongoDB is asked.
        self._forgotten_meanwhile.clear()
        try:
            query = {**self._waiting, "order": {"$gt": self._cursor}, "key": {"$exists": True}}
            rows, all_ = await self._find(query, [("order", 1)], PAGE)
            behind = await self._behind({one.key for one in rows if one.key not in self._busy})
        except BaseException:
            self._more = True
            raise
        self._more = self._more or not all_
        for one in rows:
            self._cursor = one.order
            key = self._busy.get(one.key)
            if key is not None:
                self._keep(key, (one,))
                continue
            if one.key in behind or one.key in self._forgotten_meanwhile:
                continue
            behind.add(one.key)
            key = self._busy[one.key] = _Key()
            self._hand_out(one.key, key, one, now_us)

    async def _behind(self, names: set[bytes]) -> set[bytes]:
        """Of keys that are not busy, those of which something waits that was read before: they are not remembered."""
        if self._forgotten_us == NEVER or not names:
            return set()
        query = {**self._waiting, "key": {"$in": list(names)}, "order": {"$lte": self._cursor}}
        async with mongo.operation():
            found = self._rows.aggregate([{"$match": query}, {"$group": {"_id": "$key"}}])
            return {row["_id"] async for row in found}

    def _hand_out(self, name: bytes, key: _Key, head: Delivery, now_us: int) -> None:
        if is_early(head, now_us):
            self._forget(key)
            self._wait(name, key, head.due_at_us)
            return
        key.due_us = 0
        self._handed.add(head.id)
        self._weight.add(head)
        self._ready.append(head)

    def _wait(self, name: bytes, key: _Key, due_us: int) -> None:
        if len(self._busy) > MAX_BUSY:
            del self._busy[name]
            self._forgotten_meanwhile.add(name)
            self._forgotten_us = min(self._forgotten_us, due_us)
            return
        key.due_us = due_us
        heapq.heappush(self._due, (due_us, name))

    def _keep(self, key: _Key, rows: Iterable[Delivery]) -> None:
        for one in rows:
            if key.gap or key.due_us or self._kept >= _KEPT or self._weight.room <= 0:
                key.gap = True
                return
            key.kept.append(one)
            self._weight.add(one)
            self._kept += 1

    def _forget(self, key: _Key) -> None:
        """Its next ones are read again when its head has ended."""
        self._kept -= len(key.kept)
        for one in key.kept:
            self._weight.drop(one.id)
        key.kept.clear()
        key.gap = True
