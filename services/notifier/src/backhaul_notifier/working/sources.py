"""What waits for an endpoint, as it is read: by its time, or in its order.

A source remembers what it has handed out, and hands it out again only after ``ended`` was told of it. It is read by one
coroutine at a time.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import DELIVERIES_COLLECTION

from backhaul_notifier.model import Delivery
from backhaul_notifier.working.weight import Weight, weight_of

PAGE: Final = 256
"""Deliveries that are read at once, where there is room for them in memory."""

_FIRST_PAGE: Final = 16
"""Those that are read first: they say how much others weigh."""

_STEP: Final = 32
"""After so many it is looked how much room is left."""

AHEAD_US: Final = 1_000_000
"""What was made to be sent at once counts as due by so much earlier: whoever made it may have a clock that is ahead.
What is to be sent at a time of its own is read so much earlier, and waits for it in memory."""

NEVER: Final = 1 << 62
"""When nothing falls due."""

_LATE_US: Final = 10_000_000
"""By how much something may be stored later than it was due: a transaction takes its time, and clocks differ."""

_FIELDS: Final = dict.fromkeys(
    (
        *("subscription", "type", "payload", "notice", "order", "key", "call", "communication_id", "released"),
        *("unsure", "resets", "again", "begun_at_us"),
        *("due_at_us", "created_at_us", "attempts", "counted", "ours"),
    ),
    1,
)


class Source(ABC):
    """What waits for one subscription's endpoint."""

    def __init__(self, database: mongo.Database, subscription: str, weight: Weight) -> None:
        self._rows = database[DELIVERIES_COLLECTION]
        self._waiting: Document = {"subscription": subscription, "state": "waiting"}
        self._weight = weight
        self._each = 0

    @property
    @abstractmethod
    def next_at_us(self) -> int:
        """When there may be something to read: 0 where that is now."""

    @abstractmethod
    async def read(self, now_us: int) -> Sequence[Delivery]:
        """What may be sent now and was not handed out yet, some of it. UNAVAILABLE."""

    @abstractmethod
    def adopt(self, delivery: Delivery) -> bool:
        """``delivery`` was read otherwise. Whether it was not handed out yet: it is now."""

    @abstractmethod
    def ended(self, delivery: Delivery, retry_at_us: int) -> None:
        """It is written down what became of ``delivery``; 0: it is not tried again."""

    @abstractmethod
    def told(self) -> None:
        """Something was added to what waits."""

    @abstractmethod
    def restart(self) -> None:
        """Something older may wait again."""

    async def of_call(self, call: bytes) -> Sequence[Delivery]:
        """All that wait and were sent together as ``call``. UNAVAILABLE."""
        found, _ = await self._find({**self._waiting, "call": call}, [("order", 1)], 1_000, all_=True)
        return found

    async def _first_due(self, query: Document) -> int | None:
        async with mongo.operation():
            row = await self._rows.find_one({**self._waiting, **query}, {"due_at_us": 1}, sort=[("due_at_us", 1)])
        return row["due_at_us"] if row is not None else None

    async def _find(
        self, query: Document, sort: Sequence[tuple[str, int]], most: int, *, all_: bool = False
    ) -> tuple[list[Delivery], bool]:
        """The first ones, at least one if there is any, and whether these are all. ``all_``: whatever they weigh."""
        if not (self._each or all_):
            most = min(most, _FIRST_PAGE)
        room, read, found = self._weight.room, 0, list[Delivery]()
        step = max(1, min(_STEP, room // max(1, self._each)))
        batch_size = most + 1 if step == _STEP or all_ else step
        async with (
            mongo.operation(),
            self._rows.find(query, _FIELDS, sort=list(sort), limit=most, batch_size=batch_size) as cursor,
        ):
            while rows := await cursor.to_list(step):
                for row in rows:
                    one = Delivery.of(row)
                    found.append(one)
                    read += weight_of(one)
                    if one.id not in self._weight:
                        room -= weight_of(one)
                if len(rows) < step or (room <= 0 and not all_):
                    break
        if found:
            self._each = read // len(found)
        return found, len(found) < most and (all_ or room > 0)


def is_early(delivery: Delivery, now_us: int) -> bool:
    """Whether it is not to be sent yet."""
    at_once = not delivery.attempts and delivery.due_at_us == delivery.created_at_us
    return delivery.due_at_us > now_us + (AHEAD_US if at_once else 0)


class Unordered(Source):
    """By the time at which each is due. ``keyless``: only those in which order plays no part."""

    def __init__(self, database: mongo.Database, subscription: str, weight: Weight, *, keyless: bool = False) -> None:
        super().__init__(database, subscription, weight)
        self._only: Document = {"key": {"$exists": False}} if keyless else {}
        self._handed: set[bytes] = set()
        self._early: list[tuple[int, bytes, Delivery]] = []
        # What is written down while a read is under way may be met by it as it was before. When each is tried again.
        self._ended: dict[bytes, int] = {}
        self._more = True
        self._restarting = False
        self._after: tuple[int, int] | None = None
        self._from_us = 0
        self._began_us = 0
        self._next_us = 0

    @property
    def next_at_us(self) -> int:
        """See ``Source``."""
        early_us = self._early[0][0] if self._early else NEVER
        if self._is_full:
            return early_us
        return 0 if self._more else min(self._next_us, early_us)

    async def read(self, now_us: int) -> Sequence[Delivery]:
        """See ``Source``."""
        if self._restarting:
            self._begin_anew()
        found: list[Delivery] = []
        if not self._is_full and (self._more or self._next_us <= now_us):
            found = await self._read(now_us)
        while self._early and self._early[0][0] <= now_us:
            found.append(heapq.heappop(self._early)[2])
        return found

    @property
    def _is_full(self) -> bool:
        return len(self._early) >= PAGE or self._weight.room <= 0

    def _begin_anew(self) -> None:
        self._restarting, self._after, self._from_us, self._next_us = False, None, 0, 0
        # They may have become something else, and are met again.
        for _, id_, _ in self._early:
            self._handed.discard(id_)
            self._weight.drop(id_)
        self._early.clear()

    async def _read(self, now_us: int) -> list[Delivery]:
        if self._after is None:
            self._began_us = now_us
        self._more = False
        self._ended.clear()
        try:
            rows, whole = await self._page(now_us + AHEAD_US)
            if whole and self._next_us <= now_us:
                await self._look_ahead(now_us + AHEAD_US)
        except BaseException:
            self._more = True
            raise
        # Looking ahead has forgotten these, and nearer ones than it looks at.
        self._next_us = min([self._next_us, *filter(None, self._ended.values())])
        if whole:
            # What was stored late lies behind where this pass was: it is met from the beginning.
            self._more = self._more or self._after is not None
            self._after, self._from_us = None, self._began_us - _LATE_US
        else:
            self._after, self._more = (rows[-1].due_at_us, rows[-1].order), True
        found = []
        for one in rows:
            if one.id in self._handed or one.id in self._ended:
                continue
            if one.due_at_us > now_us and one.attempts:
                self._next_us = min(self._next_us, one.due_at_us)
                continue
            self._handed.add(one.id)
            self._weight.add(one)
            if is_early(one, now_us):
                heapq.heappush(self._early, (one.due_at_us, one.id, one))
            else:
                found.append(one)
        return found

    def adopt(self, delivery: Delivery) -> bool:
        """See ``Source``."""
        if delivery.id in self._handed:
            return False
        self._handed.add(delivery.id)
        self._weight.add(delivery)
        return True

    def ended(self, delivery: Delivery, retry_at_us: int) -> None:
        """See ``Source``."""
        self._handed.discard(delivery.id)
        self._weight.drop(delivery.id)
        self._ended[delivery.id] = retry_at_us
        if retry_at_us:
            self._next_us = min(self._next_us, retry_at_us)

    def told(self) -> None:
        """See ``Source``."""
        self._more = True

    def restart(self) -> None:
        """See ``Source``."""
        self._more = self._restarting = True

    async def _page(self, until_us: int) -> tuple[list[Delivery], bool]:
        """The next ones, and whether these were the last."""
        span: Document = {"$lte": until_us}
        if self._only and self._from_us:
            span["$gte"] = self._from_us
        query: Document = {**self._waiting, **self._only, "due_at_us": span}
        most = PAGE
        if self._after is None:
            most += len(self._handed)  # They are met again.
        else:
            due_us, order = self._after
            query["$or"] = [{"due_at_us": due_us, "order": {"$gt": order}}, {"due_at_us": {"$gt": due_us}}]
        return await self._find(query, [("due_at_us", 1), ("order", 1)], most)

    async def _look_ahead(self, until_us: int) -> None:
        """When something falls due that this copy has not put off itself."""
        self._next_us = NEVER
        try:
            due_us = await self._first_due({**self._only, "due_at_us": {"$gt": until_us}})
        except BaseException:
            self._next_us = 0
            raise
        if due_us is not None:
            self._next_us = min(self._next_us, due_us)
