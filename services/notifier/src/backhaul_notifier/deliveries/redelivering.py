"""Sending again: one delivery at once, and many by a task, which whoever holds the endpoint does page by page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Final, Literal, TypeAlias

from backhaul_common import fence, mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import is_derived_id
from backhaul_common.names import DELIVERIES_COLLECTION, ENDPOINTS_COLLECTION, SUBSCRIPTIONS_COLLECTION
from backhaul_common.tenants import Tenant
from pymongo.errors import ExecutionTimeout

from backhaul_notifier.deliveries.reading import MAX_READ_S, NEVER_ATTEMPTED, STATES, too_many
from backhaul_notifier.documents import subscription_of

Which: TypeAlias = Literal["failed", "all", "never_attempted", "waiting"]

MAX_COUNTED = 100_000
"""Deliveries that are counted; as many may stand for more."""

MAX_TASKS = 20
"""Of one endpoint, that are not done yet."""

ABOUT: Final = ("channel", "message_id", "communication_id", "event_id")
"""What deliveries are chosen by beside their types."""

RESET_FIELDS: Final = ("counted", "ours", "ended_at_us", "ends_at", "call", "released", "begun_at_us")
"""What a delivery loses that is sent again. It keeps its attempts, and waits without any that counts."""

_STATES: Mapping[Which, Document] = {
    "failed": {"state": "failed"},
    # What is held would be held again.
    "all": {"state": {"$in": [state for state in STATES if state != "held"]}},
    "never_attempted": {**NEVER_ATTEMPTED, "state": "waiting"},
    "waiting": {"state": "waiting"},
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which of a subscription's deliveries are sent again. The span bounds ``created_at_us``, from inclusive to
    exclusive; without ``types``, all. ``about`` are fields of ABOUT, and what they must be. ``rate_per_s`` 0 is the
    subscription's own."""

    which: Which
    from_us: int
    to_us: int
    types: tuple[str, ...] = ()
    rate_per_s: int = 0
    about: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> Chosen:
        """As the endpoint's document has it."""
        span = (task["from_us"], task["to_us"])
        return cls(task["which"], *span, tuple(task["types"]), task["rate_per_s"], task.get("about", {}))

    def condition(self, registration: str, subscription: str) -> Document:
        """What MongoDB is asked."""
        return {
            "registration": registration,
            "subscription": subscription,
            **_STATES[self.which],
            "created_at_us": {"$gte": self.from_us, "$lt": self.to_us},
            **({"type": {"$in": list(self.types)}} if self.types else {}),
            **{name: self.about[name] for name in ABOUT if name in self.about},
        }

    def task(self) -> Document:
        """As the endpoint's document has it."""
        return {
            "id": token_hex(12),
            "which": self.which,
            "from_us": self.from_us,
            "to_us": self.to_us,
            "types": list(self.types),
            "rate_per_s": self.rate_per_s,
            **({"about": dict(self.about)} if self.about else {}),
        }


def reset(due_at_us: int) -> Document:
    """The update by which a delivery waits again, from its first attempt on."""
    return {
        "$set": {"state": "waiting", "attempts": 0, "due_at_us": due_at_us},
        "$inc": {"again": 1},
        "$unset": dict.fromkeys(RESET_FIELDS, ""),
    }


class Redelivering:
    """Has deliveries sent again. UNAVAILABLE from every method while MongoDB is away."""

    def __init__(
        self, database: mongo.Database, told: Callable[[str], Awaitable[None]], now_us: Callable[[], int]
    ) -> None:
        """``told`` wakes whoever holds the endpoint of a subscription; it may fail, for what is due is looked for as
        well."""
        self._database = database
        self._told = told
        self._now_us = now_us

    async def one(self, tenant: Tenant, id_: str, *, dry_run: bool) -> int:
        """Send a delivery, by its id in hex, from its first attempt on. NOT_FOUND names ``delivery_id``."""
        if not is_derived_id(id_):
            raise _no_delivery()
        query = {"_id": bytes.fromhex(id_), "registration": tenant.registration}
        now_us = self._now_us()

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> str:
            _require_living(database, session, tenant)
            row = database[DELIVERIES_COLLECTION].find_one(query, {"subscription": 1}, session=session)
            if row is None or not _there(database, session, tenant, subscription_of(row["subscription"])):
                raise _no_delivery()
            if not dry_run:
                # What comes of a call that is under way by now was not asked for by this one.
                again = reset(now_us)
                again["$inc"]["resets"] = 1
                database[DELIVERIES_COLLECTION].update_one(query, again, session=session)
                endpoint = {"_id": row["subscription"], "registration": tenant.registration}
                due = _due(now_us)
                due["$inc"]["restarts"] = 1
                database[ENDPOINTS_COLLECTION].update_one(endpoint, due, session=session)
            found: str = row["subscription"]
            return found

        await self._store(work, wake=not dry_run)
        return 1

    async def many(self, tenant: Tenant, subscription: str, chosen: Chosen, *, dry_run: bool) -> int:
        """Send those of ``subscription``; returns how many they are, MAX_COUNTED where they are more.

        NOT_FOUND names ``subscription_id``; FAILED_PRECONDITION where MAX_TASKS are not done; DEADLINE_EXCEEDED where
        they cannot be counted in time, and then nothing is sent.
        """
        # Counted before, since a transaction has less time.
        count = await self._count(chosen.condition(tenant.registration, subscription))
        now_us = self._now_us()

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> str:
            _require_living(database, session, tenant)
            if not _there(database, session, tenant, subscription):
                raise BackhaulError(
                    Code.NOT_FOUND,
                    "The tenant has no such subscription.",
                    field="subscription_id",
                    fix="List the tenant's subscriptions.",
                )
            if count and not dry_run:
                free = {
                    "_id": subscription,
                    "registration": tenant.registration,
                    f"tasks.{MAX_TASKS - 1}": {"$exists": False},
                }
                update = {**_due(now_us), "$push": {"tasks": chosen.task()}}
                if not database[ENDPOINTS_COLLECTION].update_one(free, update, session=session).matched_count:
                    raise BackhaulError(
                        Code.FAILED_PRECONDITION,
                        f"{MAX_TASKS} redeliveries of the subscription are not done yet.",
                        field="subscription_id",
                        fix="Wait until they are, or ask for a longer span at once. Of a subscription that is paused "
                        "or disabled none is done before it is resumed.",
                    )
            return subscription

        await self._store(work, wake=bool(count) and not dry_run)
        return count

    async def _count(self, condition: Document) -> int:
        rows = self._database[DELIVERIES_COLLECTION]
        async with mongo.translated():
            try:
                return await rows.count_documents(condition, limit=MAX_COUNTED, maxTimeMS=round(MAX_READ_S * 1000))
            except ExecutionTimeout as exc:
                raise too_many() from exc

    async def _store(self, work: Callable[[mongo.ThreadDatabase, mongo.Session], str], *, wake: bool) -> None:
        async with mongo.translated():
            subscription = await mongo.in_transaction(self._database, work)
        if wake:
            await self._told(subscription)


def _due(now_us: int) -> Document:
    return {"$min": {"due_at_us": now_us}, "$inc": {"told": 1}}


def _require_living(database: mongo.ThreadDatabase, session: mongo.Session, tenant: Tenant) -> None:
    found = fence.living(database, session, [tenant.id]).get(tenant.id)
    if found is None or found.registration != tenant.registration:
        raise BackhaulError(
            Code.NOT_FOUND, "There is no such tenant.", field="tenant_id", fix="Name a tenant that there is."
        )


def _there(database: mongo.ThreadDatabase, session: mongo.Session, tenant: Tenant, subscription: str) -> bool:
    query = {"_id": subscription, "registration": tenant.registration, "deleted": {"$ne": True}}
    return database[SUBSCRIPTIONS_COLLECTION].find_one(query, {"_id": 1}, session=session) is not None


def _no_delivery() -> BackhaulError:
    return BackhaulError(
        Code.NOT_FOUND,
        "There is no such delivery.",
        field="delivery_id",
        fix="Look for it with the list of deliveries; what is over is kept for a while only.",
    )
