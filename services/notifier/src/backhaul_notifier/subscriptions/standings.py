"""How it stands with subscriptions: what waits, and what became of the latest attempts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from backhaul_common import mongo
from backhaul_common.names import DELIVERIES_COLLECTION, ENDPOINTS_COLLECTION
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from pymongo import ASCENDING

from backhaul_notifier.model import Subscription

MAX_WAITING: Final = 100_000
"""Deliveries of one subscription in one state that are counted."""

MAX_OF_TENANT: Final = 10_000
"""The same of all of a tenant's in one state: whoever watches asks for them again and again."""

_AT_ONCE: Final = 8


class Standings:
    """Reads what the standings of subscriptions are made of."""

    def __init__(self, database: mongo.Database) -> None:
        self._endpoints = database[ENDPOINTS_COLLECTION]
        self._deliveries = database[DELIVERIES_COLLECTION]

    async def of(self, registration: str, ids: Sequence[str]) -> Mapping[str, pb.Standing]:
        """The standing of each of these subscriptions of a registration. UNAVAILABLE."""
        async with mongo.operation():
            endpoints = await self._endpoints.find({"_id": {"$in": list(ids)}}).to_list(None)
        turns = asyncio.Semaphore(_AT_ONCE)
        by_id = {row["_id"]: row for row in endpoints}
        made = await asyncio.gather(*(self._one(registration, id_, by_id.get(id_, {}), turns) for id_ in ids))
        return dict(zip(ids, made, strict=True))

    async def of_all(self, registration: str, subscriptions: Sequence[Subscription]) -> pb.GetStateResponse:
        """How it goes with all ``subscriptions`` of a registration. UNAVAILABLE."""
        failing = {"_id": {"$in": [one.id for one in subscriptions]}, "failing_since_us": {"$exists": True}}
        waiting, held, failed = (
            {"registration": registration, "state": state} for state in ("waiting", "held", "failed")
        )
        async with mongo.operation():
            of_state = Counter(one.state for one in subscriptions)
            stopped = next((one for one in subscriptions if one.state != "active" and one.state_text), None)
            oldest = await self._deliveries.find_one(
                waiting, {"created_at_us": 1}, sort=[("created_at_us", ASCENDING), ("_id", ASCENDING)]
            )
            # What comes or goes in between is not said by half.
            count = await self._deliveries.count_documents(waiting, limit=MAX_OF_TENANT) if oldest else 0
            return pb.GetStateResponse(
                active=of_state["active"],
                paused=of_state["paused"],
                disabled=of_state["disabled"],
                failing=await self._endpoints.count_documents(failing),
                waiting=count,
                held=await self._deliveries.count_documents(held, limit=MAX_OF_TENANT),
                failed=await self._deliveries.count_documents(failed, limit=MAX_OF_TENANT),
                oldest_waiting_at_us=oldest["created_at_us"] if oldest and count else 0,
                problem=_problem(stopped) if stopped else "",
            )

    async def _one(
        self, registration: str, id_: str, endpoint: Mapping[str, Any], turns: asyncio.Semaphore
    ) -> pb.Standing:
        # With the registration: MongoDB counts then without reading a document.
        query, held = (
            {"subscription": id_, "registration": registration, "state": state} for state in ("waiting", "held")
        )
        async with turns, mongo.operation():
            waiting = await self._deliveries.count_documents(query, limit=MAX_WAITING)
            holding = await self._deliveries.count_documents(held, limit=MAX_WAITING)
            # By their order, of which there is an index: that in which they were made, but for notices among events.
            oldest = await self._deliveries.find_one(
                {"subscription": id_, "state": "waiting"}, {"created_at_us": 1}, sort=[("order", 1)]
            )
        return pb.Standing(
            waiting=waiting,
            held=holding,
            oldest_waiting_at_us=oldest["created_at_us"] if oldest else 0,
            failing_since_us=endpoint.get("failing_since_us", 0),
            last_success_at_us=endpoint.get("last_success_at_us", 0),
            last_failure_at_us=endpoint.get("last_failure_at_us", 0),
            last_failure=endpoint.get("last_failure", ""),
            resting_until_us=endpoint.get("rest_until_us", 0) if endpoint.get("active", True) else 0,
        )


def _problem(stopped: Subscription) -> str:
    name = stopped.definition.name
    return f"The subscription {name or stopped.id} is {stopped.state}: {stopped.state_text}"
