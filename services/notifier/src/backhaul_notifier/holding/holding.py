"""What one endpoint's holder holds back, and releases: each page in a transaction that its lease fences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import unavailable
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    ENDPOINTS_COLLECTION,
    SUBSCRIPTIONS_COLLECTION,
    SWITCHED_COLLECTION,
)
from backhaul_common.revisioned import Directory

from backhaul_notifier.documents import switched_id
from backhaul_notifier.holding.switches import Switched, Switches
from backhaul_notifier.model import Delivery, Subscription
from backhaul_notifier.working.endpoints import Held, MongoEndpoints

PAGE: Final = 500
"""Deliveries that are released in one transaction."""


class Holding:
    """Holds back, and releases, for endpoints that this copy holds. LostError where one is another copy's by now;
    UNAVAILABLE."""

    def __init__(self, database: mongo.Database, directory: Directory[Switched], endpoints: MongoEndpoints) -> None:
        self.switches = Switches(directory)
        self._database = database
        self._directory = directory
        self._endpoints = endpoints

    async def hold(self, held: Held, subscription: Subscription, deliveries: Sequence[Delivery]) -> Collection[bytes]:
        """Have ``deliveries`` wait for their communications; the ids of those that do. Others may be sent, as theirs
        was enabled meanwhile."""
        kept: set[bytes] = set()
        by_communication: dict[str, list[Delivery]] = {}
        for one in deliveries:
            by_communication.setdefault(one.communication_id, []).append(one)
        for communication_id, some in by_communication.items():
            id_ = switched_id(subscription.registration, communication_id)
            if await self._hold(held, subscription, id_, some):
                kept.update(one.id for one in some)
            await self._directory.reload(id_)
        return kept

    async def _hold(self, held: Held, subscription: Subscription, id_: str, some: Sequence[Delivery]) -> bool:
        # What was enabled still holds what is newer than what is held: see ``Switches.holds``.
        condition = {"_id": id_, "$or": [{"disabled": True}, {"held": held.id}]}
        known = {"$in": [held.id, {"$ifNull": ["$held", []]}]}
        change = {
            "held": {"$setUnion": [{"$ifNull": ["$held", []]}, [held.id]]},
            "revision": {"$add": ["$revision", {"$cond": [known, 0, 1]}]},
            "touches": {"$add": [{"$ifNull": ["$touches", 0]}, 1]},
        }
        ids = [one.id for one in some]

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> bool:
            self._endpoints.fence(database, session, held)
            # By the policy that it has now: whoever changes it writes the endpoint, too, so one of them begins anew.
            by = {"_id": subscription.id, "revision": subscription.revision}
            if database[SUBSCRIPTIONS_COLLECTION].find_one(by, {"_id": 1}, session=session) is None:
                raise unavailable("The subscription's change")
            rows = database[SWITCHED_COLLECTION]
            if not rows.update_one(condition, [{"$set": change}], session=session).matched_count:
                return False
            waiting = {"_id": {"$in": ids}, "state": "waiting"}
            hold = {"$set": {"state": "held"}, "$unset": {"due_at_us": "", "call": "", "released": ""}}
            database[DELIVERIES_COLLECTION].update_many(waiting, hold, session=session)
            return True

        async with mongo.translated():
            return await mongo.in_transaction(self._database, work)

    async def release(self, held: Held, task: Mapping[str, Any]) -> bool:
        """Have the next page wait for nothing but its turn; whether the task is done."""
        condition: Document = {"held": held.id} | ({} if task.get("all") else {"disabled": False})
        async with mongo.operation():
            row = await self._database[SWITCHED_COLLECTION].find_one(condition, {"communication_id": 1})
        if row is None:
            return await self._done(held, task, condition)
        of_it = {"subscription": held.id, "communication_id": row["communication_id"], "state": "held"}
        async with mongo.operation():
            found = self._database[DELIVERIES_COLLECTION].find(of_it, {"_id": 1}).sort("order", 1).limit(PAGE)
            page = [one["_id"] async for one in found]
        # In the order in which they were made, among all others that wait.
        change = [{"$set": {"state": "waiting", "due_at_us": "$created_at_us", "released": True}}]

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            self._endpoints.fence(database, session, held)
            last = len(page) < PAGE
            touch: Document = {"$inc": {"touches": 1, "revision": int(last)}}
            if last:
                touch["$pull"] = {"held": held.id}
            # One that is disabled again holds on to them.
            switched = {"_id": row["_id"], **condition}
            if database[SWITCHED_COLLECTION].update_one(switched, touch, session=session).matched_count:
                query = {"_id": {"$in": page}, "state": "held"}
                database[DELIVERIES_COLLECTION].update_many(query, change, session=session)

        async with mongo.translated():
            await mongo.in_transaction(self._database, work)
        await self._directory.reload(row["_id"])
        return False

    async def _done(self, held: Held, task: Mapping[str, Any], condition: Document) -> bool:
        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> bool:
            self._endpoints.fence(database, session, held)
            if database[SWITCHED_COLLECTION].find_one(condition, {"_id": 1}, session=session) is not None:
                return False
            done = {"$pull": {"tasks": {"id": task["id"]}}}
            database[ENDPOINTS_COLLECTION].update_one({"_id": held.id}, done, session=session)
            return True

        async with mongo.translated():
            return await mongo.in_transaction(self._database, work)
