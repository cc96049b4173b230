"""When a batch is complete: exactly once, and said so.

A closed batch completes when each of its destinations is as far as it shall be, and any batch when its deadline passes.
That it is, and the notice of it, are one transaction, which writes every shard of its counts: whatever changes one of
its destinations is before that, or counts as late.

Deadlines stand in the batches' documents, and every copy of the service looks for the next one. So there is no timer
that could be lost, and nobody who must be elected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from backhaul_common import mongo, outbox
from backhaul_common.documents import Document
from backhaul_common.fence import living
from backhaul_common.logs import get_logger
from backhaul_common.metering import Counter
from backhaul_common.names import (
    BATCH_COUNTS_COLLECTION,
    BATCHES_COLLECTION,
    COMMUNICATIONS_COLLECTION,
    NORMALIZER_OUTBOX,
)
from backhaul_common.notices import entry, notice_id
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.notice.v1.notice_pb2 import About, Notice

from backhaul_normalizer.communications.counting import completed, ids_of, summed
from backhaul_normalizer.communications.documents import FINAL, PROCESSED, status_of
from backhaul_normalizer.writing import Commands

COMPLETED: Final = "communication.completed"

LOOK_S: Final = 5.0
"""How often every copy looks for a deadline that another copy may have learned of."""

CHECK_S: Final = 60.0
"""How often every copy looks at batches that are closed: whoever should have completed one may have died."""

_PAGE = 200


class Completing:
    """Completes batches. ``written`` is called after a commit that may have written a notice; ``counted`` counts
    batches by tenant and what completed them."""

    def __init__(
        self, database: mongo.Database, written: Callable[[], None], now_us: Callable[[], int], counted: Counter
    ) -> None:
        self._database = database
        self._counted = counted
        self._batches = database[BATCHES_COLLECTION]
        self._written = written
        self._now_us = now_us
        self._checked_to = b""
        self._log = get_logger(component="completing")

    async def check(self, batches: Collection[bytes]) -> None:
        """Complete those of these batches that are closed and as far as they shall be. UNAVAILABLE."""
        if not batches:
            return
        async with mongo.operation():
            closed = await self._batches.find({"_id": {"$in": list(batches)}, "status": "closed"}).to_list(None)
        for batch in closed:
            async with mongo.operation():
                shards = await self._database[BATCH_COUNTS_COLLECTION].find({"_id": ids_of(batch["_id"])}).to_list(None)
            if is_done(batch, summed(shards)[0]):
                await self._complete(batch)

    async def run(self) -> None:
        """Complete batches whose deadlines pass, and look after all others, until cancelled. UNAVAILABLE."""
        loop = asyncio.get_running_loop()
        check_at = loop.time()
        while True:
            until_us = await self.pass_deadlines()
            if loop.time() >= check_at:
                await self.check_some()
                check_at = loop.time() + CHECK_S
            wait_s = LOOK_S if until_us is None else min(LOOK_S, max(0.0, (until_us - self._now_us()) / 1e6))
            await asyncio.sleep(wait_s)

    async def pass_deadlines(self) -> int | None:
        """Complete all batches whose deadlines have passed. When the next one passes, in microseconds since 1970; None
        where there is none. UNAVAILABLE."""
        while True:
            async with mongo.operation():
                due = await self._batches.find_one({"due_at_us": {"$exists": True}}, sort=[("due_at_us", 1)])
            if due is None:
                return None
            if due["due_at_us"] > self._now_us():
                return int(due["due_at_us"])
            await self._complete(due)

    async def check_some(self) -> None:
        """Look at some closed batches, and go on with the next ones. UNAVAILABLE."""
        query = {"due_at_us": {"$exists": True}, "status": "closed", "_id": {"$gt": self._checked_to}}
        async with mongo.operation():
            found = await self._batches.find(query, {"_id": 1}).sort("_id", 1).limit(_PAGE).to_list(None)
        await self.check([row["_id"] for row in found])
        self._checked_to = found[-1]["_id"] if len(found) == _PAGE else b""

    async def _complete(self, batch: Document) -> None:
        work = partial(_completed, batch["_id"], batch["tenant"], self._now_us())
        async with mongo.translated():
            by = await mongo.in_transaction(self._database, work)
        if by:
            self._log.info(
                "batch_completed",
                tenant=batch["tenant"],
                communication_id=batch["communication_id"],
                batch_id=batch["batch_id"],
                by=by,
            )
            self._counted.add(batch["tenant"], by)
            self._written()


def is_done(batch: Document, states: Document) -> bool:
    """Whether a closed batch whose destinations are in these fulfilment states is as far as it shall be."""
    wanted = FINAL if batch["completes_on"] == "final" else PROCESSED
    processed: int = sum(states.get(state, 0) for state in wanted)
    return processed >= int(batch["destinations"])


def _completed(
    batch_key: bytes, tenant: str, now_us: int, database: mongo.ThreadDatabase, session: mongo.Session
) -> str:
    """Complete the batch if it is to be; by what it was, empty where it was not."""
    batch = database[BATCHES_COLLECTION].find_one({"_id": batch_key}, session=session)
    if batch is None or batch["status"] == "complete":
        return ""
    owner = living(database, session, [tenant]).get(tenant)
    if owner is None or owner.registration != batch["registration"]:
        # It is deleted with all that its tenant had, and must not be found again before.
        database[BATCHES_COLLECTION].update_one({"_id": batch_key}, {"$unset": {"due_at_us": ""}}, session=session)
        return ""
    shards = list(database[BATCH_COUNTS_COLLECTION].find({"_id": ids_of(batch_key)}, session=session))
    states, _ = summed(shards)
    if batch["status"] == "closed" and is_done(batch, states):
        by = "condition"
    elif batch["due_at_us"] <= now_us:
        by = "deadline"
    else:
        return ""
    at_completion = {"members": batch["members"], "destinations": batch["destinations"], "fulfilment": states}
    changed = {
        "status": "complete",
        "closed_at_us": batch.get("closed_at_us", now_us),
        "completed_at_us": now_us,
        "completed_by": by,
        "at_completion": at_completion,
    }
    database[BATCHES_COLLECTION].update_one(
        {"_id": batch_key}, {"$set": changed, "$unset": {"due_at_us": ""}}, session=session
    )
    Commands(database, session).update(BATCH_COUNTS_COLLECTION, completed(batch_key, batch["registration"]))
    _count(database, session, batch["communication"])
    notice = entry(_notice(batch | changed, states), owner.path)
    outbox.write(database, session, NORMALIZER_OUTBOX, [notice])
    return by


def _count(database: mongo.ThreadDatabase, session: mongo.Session, communication: bytes) -> None:
    """One batch more of the communication is complete."""
    communications = database[COMMUNICATIONS_COLLECTION]
    row = communications.find_one({"_id": communication}, session=session)
    if row is not None:
        row["complete"] = row.get("complete", 0) + 1
        changed = {"complete": row["complete"], "status": status_of(row)}
        communications.update_one({"_id": communication}, {"$set": changed}, session=session)


def _notice(batch: Document, states: Document) -> Notice:
    destinations = batch["destinations"]
    processed = sum(states.get(state, 0) for state in PROCESSED)
    how = "its deadline has passed" if batch["completed_by"] == "deadline" else "all of it is as far as it shall be"
    told = {
        "completed_by": batch["completed_by"],
        "members": batch["members"],
        "destinations": destinations,
        "waiting": destinations - sum(states.values()),
        **{state: states.get(state, 0) for state in ("Queued", *PROCESSED)},
    }
    return Notice(
        id=notice_id(batch["registration"], COMPLETED, batch["batch_id"]),
        tenant_id=batch["tenant"],
        registration=batch["registration"],
        type=COMPLETED,
        occurred_at_us=batch["completed_at_us"],
        about=About(communication_id=batch["communication_id"], reference=batch["batch_id"]),
        text=f"A batch of {batch['members']} members is complete: {how}. {processed} of {destinations} destinations "
        "were sent to, or failed.",
        attributes=[Attribute(name=name, value=str(value)) for name, value in told.items()],
    )
