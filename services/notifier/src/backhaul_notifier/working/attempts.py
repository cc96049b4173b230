"""Attempts, as they are made. One that takes long is written down while it is under way.

A copy may end before the result of a call is stored: it is killed, or has lost the endpoint. Whoever has the endpoint
next finds in the delivery when the call began, and says that it is not known what came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.logs import get_logger
from backhaul_common.names import DELIVERIES_COLLECTION
from backhaul_common.outages import Repeated, is_outage
from pymongo import UpdateMany

from backhaul_notifier.model import Attempted, Delivery, Subscription
from backhaul_notifier.ports import Caller
from backhaul_notifier.schedules import LOST, Outcome
from backhaul_notifier.working.calls import Call
from backhaul_notifier.working.counts import Counts
from backhaul_notifier.working.endpoints import Held

INTERNAL: Final = "internal"
"""The word for what should not happen, and did."""

LONG_S: Final = 0.25
"""A call that takes longer is written down. Most take less, and cost no write more."""

MAX_WRITTEN: Final = 500
"""Deliveries of one statement."""

_LOOK_S: Final = 0.1


class _UnderWay(msgspec.Struct, frozen=True):
    held: Held
    deliveries: Sequence[Delivery]
    at_us: int
    at: float


class Attempts:
    """Those of all endpoints of a copy. ``now_us`` is unix time in microseconds."""

    def __init__(self, database: mongo.Database, caller: Caller, counts: Counts, now_us: Callable[[], int]) -> None:
        self._rows = database[DELIVERIES_COLLECTION]
        self._caller = caller
        self._counts = counts
        self._now_us = now_us
        # In the order in which they began; without those that are written down.
        self._under_way: dict[int, _UnderWay] = {}
        self._number = 0
        self._some = asyncio.Event()
        self._away = Repeated("calls_not_noted", component="working")

    async def make(self, held: Held, subscription: Subscription, call: Call, may_send: Callable[[], bool]) -> Attempted:
        """Make ``call``, and say what came of it; of one that was begun before, and whose result was not stored, that
        this is not known. Raises nothing: a delivery must not be lost, or tried for ever, by what is wrong with one."""
        at_us = self._now_us()
        if begun_at_us := next((one.begun_at_us for one in call.deliveries if one.begun_at_us), 0):
            text = "The copy of Backhaul that made it ended before its result was stored: what came of it is not known."
            attempted = Attempted(begun_at_us, 0, Outcome(error=LOST), text, "", "")
        else:
            self._counts.sent(call.deliveries[0].due_at_us, at_us)
            number = 0

            def begins() -> bool:
                # Until it is asked for its first request it has reached nobody: values for the address are asked for
                # before, a token is fetched, and it waits for a connection.
                nonlocal number
                if (ok := may_send()) and not number:
                    number = self._begin(held, call.deliveries)
                return ok

            try:
                attempted = await self._caller.call(subscription, call.deliveries, call.webhook_id, begins)
            except Exception as exc:  # noqa: BLE001  # see the docstring
                get_logger(component="working").error("caller_failed", endpoint=held.id, exc_info=exc)
                outcome = Outcome(error=INTERNAL)
                attempted = Attempted(self._now_us(), 0, outcome, "Something went wrong here.", "", "")
            finally:
                self._under_way.pop(number, None)
        self._counts.attempted(subscription, attempted)
        return attempted

    async def run(self) -> None:
        """Write down what takes long, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._under_way:
                self._some.clear()
                await self._some.wait()
            await asyncio.sleep(_LOOK_S)
            now = loop.time()
            # Whoever slept may have lost the endpoint, and another copy has begun a call of its own by now.
            long = {
                number: one
                for number, one in self._under_way.items()
                if now - one.at >= LONG_S and now < one.held.works_until
            }
            try:
                await self._write(long.values())
                self._away.over()
            except Exception as exc:
                if not is_outage(exc):
                    raise
                self._away.warning(repr(exc))
            else:
                for number in long:
                    self._under_way.pop(number, None)

    def _begin(self, held: Held, deliveries: Sequence[Delivery]) -> int:
        self._number += 1
        self._under_way[self._number] = _UnderWay(held, deliveries, self._now_us(), held.loop_time())
        self._some.set()
        return self._number

    async def _write(self, calls: Iterable[_UnderWay]) -> None:
        """Write down when ``calls`` began, unless their results are written by now, or they were asked for again.
        UNAVAILABLE."""
        alike: dict[tuple[int, int, int], list[tuple[bytes, int]]] = {}
        for call in calls:
            for one in call.deliveries:
                alike.setdefault((one.attempts, one.resets, one.again), []).append((one.id, call.at_us))
        changes = []
        for (attempts, resets, again), begun in alike.items():
            rest = iter(begun)
            while some := list(islice(rest, MAX_WRITTEN)):
                ids = [id_ for id_, _ in some]
                times = {"$literal": [at_us for _, at_us in some]}
                at_us: Document = {"$arrayElemAt": [times, {"$indexOfArray": [{"$literal": ids}, "$_id"]}]}
                as_read = {"attempts": attempts, "resets": resets or None, "again": again or None}
                query = {"_id": {"$in": ids}, "state": "waiting", **as_read}
                changes.append(UpdateMany(query, [{"$set": {"begun_at_us": at_us}}], hint={"_id": 1}))
        if changes:
            async with mongo.operation():
                await self._rows.bulk_write(changes, ordered=False)
