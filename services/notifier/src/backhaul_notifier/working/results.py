"""What became of calls, written down in groups: some milliseconds' worth of all endpoints at once.

MongoDB parses, plans and accounts for each statement, which costs it more than to change a document. So what is alike
in a group is one statement for all, in which each delivery finds its own part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

import msgspec
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import DELIVERIES_COLLECTION
from backhaul_common.outages import Repeated, is_outage
from backhaul_common.pauses import pauses
from pymongo import DeleteMany, UpdateMany

from backhaul_notifier.documents import MAX_TRIES
from backhaul_notifier.model import Attempted, Delivery
from backhaul_notifier.schedules import Decision, Verdict
from backhaul_notifier.working.endpoints import Held, MongoEndpoints

GROUP_S: Final = 0.05
"""For how long results are gathered. Nobody waits for them but who is to send what lies behind them in its order."""

ORDERED_S: Final = 0.005
"""The same where somebody does."""

GROUP: Final = 500
"""How many are written at once."""


class Result(msgspec.Struct, frozen=True):
    """What became of one delivery of a call, which is kept for ``days`` if that is its end. ``written`` is called once
    it is written down; with True where somebody else may have written to the delivery meanwhile."""

    delivery: Delivery
    attempted: Attempted
    decision: Decision
    ended_at_us: int
    days: float
    held: Held
    written: Callable[[Written, bool], None]

    @property
    def retry_at_us(self) -> int:
        """When it is tried again; 0 where it is not."""
        return self.decision.retry_at_us

    @property
    def ended(self) -> bool:
        """Whether that is the end of it."""
        return self.decision.verdict is not Verdict.RETRY

    def fields(self) -> Document:
        """What its document says then, which says of ``tries`` this one only."""
        one, said, decision = self.delivery, self.attempted, self.decision
        attempt = {
            "number": one.attempts + 1,
            "at_us": said.at_us,
            "us": said.us,
            "status": said.outcome.status,
            "error": said.outcome.error,
            "text": _clean(decision.text),
            "answer": _clean(said.answer),
            "request": _clean(said.request),
            **({"again": one.again} if one.again else {}),
        }
        fields: Document = {"attempts": one.attempts + 1, "tries": [attempt]}
        if decision.counted:
            fields["counted"] = one.counted + 1
        else:
            fields["ours"] = one.ours + 1
        if one.unsure:
            fields["type"] = one.type
        if self.ended:
            fields["state"] = "delivered" if decision.verdict is Verdict.SUCCEEDED else "failed"
            fields["ended_at_us"] = self.ended_at_us
            fields["ends_at"] = datetime.fromtimestamp(self.ended_at_us / 1_000_000, UTC) + timedelta(days=self.days)
        else:
            fields["due_at_us"] = decision.retry_at_us
        return fields


class Unwanted(msgspec.Struct, frozen=True):
    """A delivery whose subscription does not want it, as those see who can read it."""

    delivery: Delivery
    held: Held
    written: Callable[[Written, bool], None]
    retry_at_us: int = 0


Written: TypeAlias = Result | Unwanted


class Results:
    """Writes them down. While MongoDB is away they are kept and tried again, and ``stuck`` says so."""

    def __init__(
        self, database: mongo.Database, endpoints: MongoEndpoints, *, group_s: float = GROUP_S, most: int = GROUP
    ) -> None:
        self._rows = database[DELIVERIES_COLLECTION]
        self._endpoints = endpoints
        self._group_s = group_s
        self._most = most
        self._gathered: list[Written] = []
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._hurries = False
        self._away = Repeated("results_kept", component="working")
        self.stuck = False

    def add(self, result: Written) -> None:
        """Have it written down soon."""
        self._gathered.append(result)
        self._some.set()
        if len(self._gathered) >= self._most:
            self._full.set()
        elif result.delivery.key and not self._hurries:
            self._hurries = True
            asyncio.get_running_loop().call_later(ORDERED_S, self._full.set)

    async def run(self) -> None:
        """Write until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            if len(self._gathered) < self._most:
                full = loop.call_later(self._group_s, self._full.set)
                await self._full.wait()
                full.cancel()
            self._full.clear()
            self._hurries = False
            group, self._gathered = self._gathered[: self._most], self._gathered[self._most :]
            if not self._gathered:
                self._some.clear()
            await self._write(group)

    async def _write(self, group: Sequence[Written]) -> None:
        """Write ``group``, however long that takes."""
        waits = pauses(0.05, 2.0)
        while True:
            matched = 0
            try:
                if mine := await self._mine(group):
                    async with mongo.operation():
                        done = await self._rows.bulk_write(_changes(mine), ordered=False)
                    matched = done.matched_count + done.deleted_count
            except Exception as exc:
                if not is_outage(exc):
                    raise
                self.stuck = True
                self._away.warning(repr(exc))
                await asyncio.sleep(next(waits))
                continue
            self.stuck = False
            self._away.over()
            for one in group:
                one.written(one, matched < len(group))
            return

    async def _mine(self, group: Sequence[Written]) -> Sequence[Written]:
        """Those of ``group`` whose endpoints are still this copy's. Whoever slept asks before it writes."""
        now = asyncio.get_running_loop().time()
        late = {one.held.id: one.held for one in group if now >= one.held.works_until}
        if not late:
            return group
        lost = {held.id for held in await self._endpoints.renew_all(late.values())}
        return [one for one in group if one.held.id not in lost]


def _changes(group: Iterable[Written]) -> list[UpdateMany | DeleteMany]:
    """As ``group`` is written."""
    unwanted = [one.delivery.id for one in group if isinstance(one, Unwanted)]
    alike: dict[tuple[int, int, bool], list[Result]] = {}
    for one in group:
        if isinstance(one, Result):
            alike.setdefault((one.delivery.attempts, one.delivery.resets, one.ended), []).append(one)
    changes: list[UpdateMany | DeleteMany] = [_told(*what, results) for what, results in alike.items()]
    if unwanted:
        # They were never to be there.
        changes.append(DeleteMany({"_id": {"$in": unwanted}, "state": "waiting", "unsure": True}))
    return changes


def _told(attempts: int, resets: int, ended: bool, results: Sequence[Result]) -> UpdateMany:
    """What became of those that were tried so often before, unless somebody else has made the attempt meanwhile, or
    somebody has asked for another one."""
    ids = [one.delivery.id for one in results]
    said = {"$literal": [one.fields() for one in results]}
    mine = {"$arrayElemAt": [said, {"$indexOfArray": [{"$literal": ids}, "$_id"]}]}
    tries = {"$slice": [{"$concatArrays": [{"$ifNull": ["$tries", []]}, "$$mine.tries"]}, -MAX_TRIES]}
    changed = {"$let": {"vars": {"mine": mine}, "in": {"$mergeObjects": ["$$ROOT", "$$mine", {"tries": tries}]}}}
    return UpdateMany(
        {"_id": {"$in": ids}, "state": "waiting", "attempts": attempts, "resets": resets or None},
        [{"$replaceWith": changed}, {"$unset": ["unsure", "begun_at_us", *(["due_at_us"] if ended else [])]}],
        # No other is thought of.
        hint={"_id": 1},
    )


def _clean(text: str) -> str:
    """``text`` as it can be stored: an endpoint may answer anything."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
