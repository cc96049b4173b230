"""What every write to a subscription does in its transaction, and after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from backhaul_common import fence, mongo, wanted
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.jetstream import AWAY, ends, require_connected
from backhaul_common.logs import get_logger
from backhaul_common.names import (
    DELIVERIES_DUE_SUBJECT,
    ENDPOINTS_COLLECTION,
    EVENTS_STREAM,
    LOOK_MARK,
    NOTICES_STREAM,
    NOTIFIER_POSITIONS_COLLECTION,
    SUBSCRIPTION_CHANGED_SUBJECT,
    SUBSCRIPTIONS_COLLECTION,
)
from nats.aio.client import Client as NatsClient

from backhaul_notifier.catalogue.matching import covers
from backhaul_notifier.model import Subscription

ENDS_S: Final = 2.0
"""For how long a new subscription waits to hear where a stream ends."""

VERSION_ID: Final = "subscriptions"
"""The document of ``notifier_positions`` whose version grows with each write."""

T = TypeVar("T")


class Signals(Protocol):
    """Tells other copies. Nothing rests on it: whoever hears nothing looks by itself, a little later."""

    async def changed(self, id_: str) -> None:
        """A subscription was written or deleted. Never raises."""
        ...

    async def due(self, id_: str) -> None:
        """What waits for a subscription may be sent now, as its endpoint's document says. Never raises."""
        ...

    async def ends(self) -> Mapping[str, int]:
        """The positions at which EVENTS and NOTICES end by now; empty where that cannot be known. Never raises."""
        ...


class NatsSignals:
    """``Signals`` over core NATS."""

    def __init__(self, nats: NatsClient, reload: Callable[[str], Awaitable[Subscription | None]]) -> None:
        """``reload`` has this copy take over a subscription, as that of its directory does."""
        self._nats = nats
        self._reload = reload
        self._log = get_logger(component="subscription_signals")

    async def changed(self, id_: str) -> None:
        """See ``Signals``. This copy does not wait for NATS to hear itself."""
        try:
            await self._reload(id_)
        except BackhaulError as exc:
            self._log.warning("subscription_reload_failed", subscription=id_, error=str(exc))
        await self._say(SUBSCRIPTION_CHANGED_SUBJECT, id_)

    async def due(self, id_: str) -> None:
        """See ``Signals``."""
        await self._say(DELIVERIES_DUE_SUBJECT, f"{id_}{LOOK_MARK}")

    async def ends(self) -> Mapping[str, int]:
        """See ``Signals``."""
        try:
            require_connected(self._nats)
            return await ends(self._nats.jetstream(timeout=ENDS_S), (EVENTS_STREAM, NOTICES_STREAM))
        except AWAY as exc:
            self._log.warning("subscription_begins_by_time", error=repr(exc))
            return {}

    async def _say(self, subject: str, id_: str) -> None:
        try:
            await self._nats.publish(subject, id_.encode())
        except AWAY as exc:
            self._log.warning("subscription_not_told", subject=subject, subscription=id_, error=repr(exc))


class Writing:
    """Writes subscriptions and their endpoints in transactions, for registrations that live."""

    def __init__(self, database: mongo.Database, signals: Signals) -> None:
        self._database = database
        self._signals = signals
        # All write the version's document: of two at once one begins anew, in a thread that whoever enqueues waits for.
        self._turn = asyncio.Lock()

    async def run(
        self,
        tenant_id: str,
        registration: str,
        work: Callable[[Transaction], T],
    ) -> T:
        """Do ``work`` in a transaction, and tell what it wrote once that is committed. NOT_FOUND where the registration
        does not live; UNAVAILABLE."""
        made: list[Transaction] = []

        def whole(database: mongo.ThreadDatabase, session: mongo.Session) -> T:
            found = fence.living(database, session, [tenant_id]).get(tenant_id)
            if found is None or found.registration != registration:
                raise no_tenant()
            transaction = Transaction(database, session, registration, found.path)
            made[:] = [transaction]
            result = work(transaction)
            transaction.note_wanted()
            return result

        async with self._turn, mongo.translated():
            result = await mongo.in_transaction(self._database, whole)
        (transaction,) = made
        for id_ in transaction.written:
            await self._signals.changed(id_)
        for id_ in transaction.due:
            await self._signals.due(id_)
        return result


class Transaction:
    """What may be written of one registration."""

    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session, registration: str, path: str) -> None:
        self.database = database
        self.session = session
        self.path = path
        self.written: list[str] = []
        self.due: list[str] = []
        self._registration = registration
        self._versioned = False

    def begin(self) -> None:
        """Have every other write meet this one, before anything is read that it rests on: one of the two begins anew,
        and reads what the other one wrote. Whoever enqueues finds that subscriptions have changed."""
        self._versioned = True
        self.database[NOTIFIER_POSITIONS_COLLECTION].update_one(
            {"_id": VERSION_ID}, {"$inc": {"version": 1}}, upsert=True, session=self.session
        )

    def find(self, id_: str) -> Document:
        """The document of a subscription. NOT_FOUND."""
        query = {"_id": id_, "registration": self._registration, "deleted": {"$ne": True}}
        row = self.database[SUBSCRIPTIONS_COLLECTION].find_one(query, session=self.session)
        if row is None:
            raise no_subscription()
        return row

    def count(self) -> int:
        """How many subscriptions the registration has."""
        query = {"registration": self._registration, "deleted": {"$ne": True}}
        return self.database[SUBSCRIPTIONS_COLLECTION].count_documents(query, session=self.session)

    def made_by(self, key: str) -> Document | None:
        """The subscription that an idempotency key made."""
        query = {"registration": self._registration, "made_by": key}
        return self.database[SUBSCRIPTIONS_COLLECTION].find_one(query, session=self.session)

    def forget_key(self, id_: str) -> None:
        """Let another subscription be made by the key that made this one."""
        self.database[SUBSCRIPTIONS_COLLECTION].update_one(
            {"_id": id_}, {"$unset": {"made_by": "", "made_of": ""}}, session=self.session
        )

    def insert(self, row: Document) -> None:
        """A new subscription with its endpoint."""
        self._require_begun()
        self.database[SUBSCRIPTIONS_COLLECTION].insert_one(row, session=self.session)
        endpoint = {
            "_id": row["_id"],
            "tenant": row["tenant"],
            "registration": row["registration"],
            "active": row["state"] == "active",
            "told": 0,
        }
        self.database[ENDPOINTS_COLLECTION].insert_one(endpoint, session=self.session)
        self.written.append(row["_id"])

    def change(self, row: Document, values: Mapping[str, Any], absent: tuple[str, ...] = ()) -> Document:
        """Set ``values`` of a subscription that was found, and leave the fields ``absent`` out; the document then."""
        self._require_begun()
        values = {**values, "revision": row["revision"] + 1}
        update: Document = {"$set": values}
        if absent:
            update["$unset"] = dict.fromkeys(absent, "")
        self.database[SUBSCRIPTIONS_COLLECTION].update_one({"_id": row["_id"]}, update, session=self.session)
        if "state" in values or "deleted" in values:
            active = values.get("state", row["state"]) == "active" and not values.get("deleted", False)
            self.endpoint(row["_id"], {"$set": {"active": active}})
        self.written.append(row["_id"])
        return {name: value for name, value in {**row, **values}.items() if name not in absent}

    def note_wanted(self) -> None:
        """Note which notices the registration's subscriptions want, as they are now, of those that are written only
        where somebody does."""
        if not self.written:
            return
        query = {"registration": self._registration, "deleted": {"$ne": True}}
        rows = self.database[SUBSCRIPTIONS_COLLECTION].find(query, {"definition.types": 1}, session=self.session)
        patterns = {pattern for row in rows for pattern in row["definition"].get("types", ())}
        types = [name for name in wanted.ASKED_FOR if any(covers(pattern, name) for pattern in patterns)]
        wanted.write(self.database, self.session, self._registration, types)

    def endpoint(self, id_: str, update: Document) -> None:
        """Change the endpoint of a subscription."""
        self.database[ENDPOINTS_COLLECTION].update_one({"_id": id_}, update, session=self.session)

    def _require_begun(self) -> None:
        if not self._versioned:
            raise RuntimeError("a write of subscriptions begins with their version")


def no_tenant() -> BackhaulError:
    """The error of a registration that does not live."""
    return BackhaulError(
        Code.NOT_FOUND, "There is no such tenant.", field="tenant_id", fix="Name a tenant that there is."
    )


def other_was_made() -> BackhaulError:
    """The error of an idempotency key that has made another subscription."""
    return BackhaulError(
        Code.CONFLICT,
        "The idempotency key made another subscription.",
        field="idempotency_key",
        fix="Pass another key, or say the same as before.",
    )


def other_revision(revision: int) -> BackhaulError:
    """The error of a change to a subscription that is of ``revision`` by now."""
    return BackhaulError(
        Code.FAILED_PRECONDITION,
        f"The subscription is of revision {revision} by now.",
        field="revision",
        fix="Read it again, and change what there is.",
    )


def no_subscription() -> BackhaulError:
    """The error of an id that none of the tenant's subscriptions has."""
    return BackhaulError(
        Code.NOT_FOUND, "There is no such subscription.", field="id", fix="List the tenant's subscriptions."
    )
