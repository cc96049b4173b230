"""How many open dead letters a tenant may have, so that what cannot be read does not fill the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from backhaul_common import mongo
from backhaul_common.ids import derived_id
from backhaul_common.logs import get_logger
from backhaul_common.names import DEAD_LETTERS_COLLECTION

from backhaul_normalizer.model import Committed, Fact, Fill, Rejection
from backhaul_normalizer.ports import EventStore

_COUNT_AGAIN_S = 5.0
_MAX_COUNT_S = 2.0


class FilledStore(EventStore, Protocol):
    """An ``EventStore`` that is told how far quotas are filled."""

    async def commit(
        self, facts: Sequence[Fact], rejections: Sequence[Rejection], fills: Sequence[Fill] = ()
    ) -> Committed:
        """See ``EventStore``. Whoever has a quota that ``fills`` says is reached is given notice of it, once."""
        ...


class BoundedDeadLetters:
    """An ``EventStore`` before another one, which it gives no more new dead letters than a tenant may have open.

    What is beyond becomes one more letter of its channel, which counts how often that happened. The callbacks
    themselves stay in CALLBACKS as long as any other.
    """

    def __init__(
        self,
        store: FilledStore,
        database: mongo.Database,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        on_reached: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_reached`` is called after a commit that may have written a notice."""
        self._store = store
        self._on_reached = on_reached
        self._database = database
        self._most = most
        self._clock = clock
        # By registration: how many are open, and when that was counted.
        self._open: dict[str, tuple[int, float]] = {}
        self._log = get_logger(component="dead_letters")

    async def commit(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> Committed:
        """See ``EventStore``."""
        if not rejections:
            return await self._store.commit(facts, ())
        async with mongo.operation():
            rejections, fills = await self._bounded(rejections)
        committed = await self._store.commit(facts, rejections, fills)
        if any(fill.after >= fill.most for fill in fills):
            self._on_reached()
        return committed

    async def ping(self) -> None:
        """See ``EventStore``."""
        await self._store.ping()

    async def takes_writes(self) -> None:
        """See ``EventStore``."""
        await self._store.takes_writes()

    async def _bounded(self, rejections: Sequence[Rejection]) -> tuple[Sequence[Rejection], Sequence[Fill]]:
        by_registration: dict[str, list[Rejection]] = {}
        for one in rejections:
            by_registration.setdefault(one.registration, []).append(one)
        kept: list[Rejection] = []
        fills: list[Fill] = []
        for registration, own in by_registration.items():
            before = await self._count(registration)
            room = self._most - before
            filing = own if len(own) <= room else await self._cut(own, max(0, room))
            count, at = self._open[registration]
            self._open[registration] = count + len(filing), at
            kept += filing
            fills.append(Fill(before, before + len(filing), self._most, own[0]))
        return kept, fills

    async def _count(self, registration: str) -> int:
        now = self._clock()
        count, at = self._open.get(registration, (0, -_COUNT_AGAIN_S))
        if now - at >= _COUNT_AGAIN_S:
            self._open = {key: value for key, value in self._open.items() if now - value[1] < _COUNT_AGAIN_S}
            async with mongo.operation(_MAX_COUNT_S):
                count = await self._database[DEAD_LETTERS_COLLECTION].count_documents(
                    {"registration": registration, "state": "open"}, limit=self._most + 1
                )
            self._open[registration] = count, now
        return count

    async def _cut(self, rejections: Sequence[Rejection], room: int) -> list[Rejection]:
        """Those that are filed already, ``room`` of the others, and what stands for the rest."""
        ids = [one.id for one in rejections]
        filed = {
            row["_id"] async for row in self._database[DEAD_LETTERS_COLLECTION].find({"_id": {"$in": ids}}, {"_id": 1})
        }
        kept = [one for one in rejections if one.id in filed]
        new = [one for one in rejections if one.id not in filed]
        kept += new[:room]
        # One for each message of the stream: of two with one id and position, the store counts one.
        summaries = {
            (one.channel, one.provider, seq): self._summary(one, seq)
            for one in reversed(new[room:])
            for seq in (one.stream_seq, *one.duplicates)
        }
        if summaries:
            self._log.warning("dead_letters_not_kept", tenant=rejections[0].tenant, parts=len(new) - room)
        return kept + sorted(summaries.values(), key=lambda one: one.stream_seq)

    def _summary(self, first: Rejection, stream_seq: int) -> Rejection:
        return msgspec.structs.replace(
            first,
            stream_seq=stream_seq,
            duplicates=(),
            id=derived_id("dead-beyond", first.registration, first.channel, first.provider, ""),
            reason=f"More than {self._most} dead letters are open, so further ones are not kept one by one. This one "
            "counts the stored messages that held some, and has the first part. Replay or discard the others. What "
            f"was wrong with the latest: {first.reason}",
        )
