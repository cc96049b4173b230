"""What is to be sent again, or at a rate, of one endpoint: done page by page by the copy that holds it.

A page's deliveries and how far its task is are written in one transaction, which the lease fences: whatever kills a
copy, the next one goes on where the last whole page ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import DELIVERIES_COLLECTION, ENDPOINTS_COLLECTION
from pymongo import UpdateOne

from backhaul_notifier.deliveries.redelivering import Chosen, reset
from backhaul_notifier.holding.holding import Holding
from backhaul_notifier.working.endpoints import Held, MongoEndpoints

TASK_PAGE: Final = 500
"""Deliveries that are changed at once, and those made in the same instant as the last of them."""

_ANEW_S: Final = 1.0
"""How often what waits is read anew while a task is done: what has fallen due meanwhile is sent no later than that."""


def is_first(task: Mapping[str, Any]) -> bool:
    """Whether a task is done before anything else is sent, which might be newer. Behind what is released, what is newer
    is held, unless the policy holds nothing any more."""
    return task["which"] == "waiting" or (task["which"] == "held" and bool(task.get("all")))


class Tasks:
    """Those of one endpoint. LostError from ``page`` where it is another copy's by now."""

    def __init__(self, database: mongo.Database, endpoints: MongoEndpoints, held: Held, holding: Holding) -> None:
        self.any = False
        """Whether there are some, as far as is known."""
        self.first = False
        """Whether one is to be done before anything else is sent."""
        self._database = database
        self._endpoints = endpoints
        self._held = held
        self._holding = holding
        self._anew_at = 0.0
        self.found(held.row.get("tasks", ()))

    def found(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        """The endpoint's document has ``tasks``."""
        self.any = bool(tasks)
        self.first = any(map(is_first, tasks))

    def look(self) -> None:
        """There may be others: it is looked before anything else is sent."""
        self.any = self.first = True

    async def page(self, now_us: int) -> bool:
        """Do the next page, if there is one; whether what waits is to be read anew. UNAVAILABLE."""
        # What is found from here on is newer than what is read now.
        self.any = self.first = False
        try:
            row = await self._endpoints.row(self._held.id)
            tasks: Sequence[Mapping[str, Any]] = row.get("tasks", ()) if row is not None else ()
            task = min(tasks, key=lambda one: (not is_first(one), one["which"] != "held"), default=None)
            ended = task is not None and await self._page(row or {}, task, now_us)
        except BaseException:
            self.look()
            raise
        left = [one for one in tasks if not (ended and one is task)]
        self.any = self.any or bool(left)
        self.first = self.first or any(map(is_first, left))
        now = self._held.loop_time()
        # What is released is older than what was read, and read before that which is behind it.
        if task is None or not (ended or task["which"] == "held" or now >= self._anew_at):
            return False
        self._anew_at = now + _ANEW_S
        return True

    async def _page(self, endpoint: Mapping[str, Any], task: Mapping[str, Any], now_us: int) -> bool:
        """Do the next page of ``task``; whether it was the last one."""
        if task["which"] == "held":
            return await self._holding.release(self._held, task)
        chosen = Chosen.of(task)
        query = chosen.condition(endpoint["registration"], self._held.id)
        at_once = chosen.which == "waiting" and not chosen.rate_per_s
        if at_once:  # All else is due already.
            query["due_at_us"] = {"$gt": chosen.to_us}
        page, last = await self._read(query, task.get("after_us"))
        step_us = 1_000_000 / chosen.rate_per_s if chosen.rate_per_s else 0.0
        # Whoever goes on after another copy keeps what that one has promised for its pages.
        first_us = max(now_us, task.get("next_us", 0)) if step_us else now_us
        changes = []
        for number, one in enumerate(sorted(page, key=lambda one: one["order"])):
            # As it was made, it is in its order among all that waits.
            due_us = one["created_at_us"] if at_once else first_us + round(number * step_us)
            change = {"$set": {"due_at_us": due_us}} if chosen.which == "waiting" else reset(due_us)
            # What has become something else since it was read is not meant any more.
            changes.append(UpdateOne({**query, "_id": one["_id"]}, change))
        progress: Document
        if last:
            progress = {"$pull": {"tasks": {"id": task["id"]}}}
        else:
            after_us, next_us = page[-1]["created_at_us"], first_us + round(len(page) * step_us)
            progress = {"$set": {"tasks.$.after_us": after_us, "tasks.$.next_us": next_us}}

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            self._endpoints.fence(database, session, self._held)
            mine = {"_id": self._held.id, "tasks.id": task["id"]}
            # One that is not there any more was withdrawn.
            if database[ENDPOINTS_COLLECTION].update_one(mine, progress, session=session).matched_count and changes:
                database[DELIVERIES_COLLECTION].bulk_write(changes, ordered=False, session=session)

        async with mongo.translated():
            await mongo.in_transaction(self._database, work)
        return last

    async def _read(self, query: Document, after_us: int | None) -> tuple[Sequence[Document], bool]:
        """The next ones of those that ``query`` finds, the oldest first, and whether they are the last. Read outside
        the transaction, whose time is short."""
        if after_us is not None:
            query = {**query, "created_at_us": {**query["created_at_us"], "$gt": after_us}}
            del query["created_at_us"]["$gte"]
        page = await self._find(query, TASK_PAGE)
        if len(page) < TASK_PAGE:
            return page, True
        # What is made in one instant, a batch of the enqueuer's, is in no order there: all of it is of one page.
        at_us = page[-1]["created_at_us"]
        whole = await self._find({**query, "created_at_us": at_us}, 0)
        return [one for one in page if one["created_at_us"] < at_us] + whole, False

    async def _find(self, query: Document, most: int) -> list[Document]:
        rows = self._database[DELIVERIES_COLLECTION]
        async with mongo.operation():
            found: list[Document] = (
                await rows.find(query, {"created_at_us": 1, "order": 1})
                .sort("created_at_us", 1)
                .limit(most)
                .to_list(None)
            )
        return found
