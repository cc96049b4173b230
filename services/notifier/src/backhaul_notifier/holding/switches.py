"""Which communications are disabled, as every copy knows it, and how that changes.

The normalizer decides it, and says so in a notice. Whoever reads the notices writes it down in the transaction that
moves the position; the copy that has a communication disabled writes down what it was answered, as it sends more within
the moment. Both go by the time at which the normalizer did it, so the latest counts, whoever comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final

from backhaul_common import fence, mongo
from backhaul_common.documents import Document
from backhaul_common.jetstream import AWAY
from backhaul_common.logs import get_logger
from backhaul_common.names import COMMUNICATION_SWITCHED_SUBJECT, ENDPOINTS_COLLECTION, SWITCHED_COLLECTION
from backhaul_common.revisioned import Directory, Kind
from nats.aio.client import Client as NatsClient
from pydantic import BaseModel
from pymongo import ASCENDING, IndexModel

from backhaul_notifier.catalogue.types import SWITCHES
from backhaul_notifier.documents import switched_id
from backhaul_notifier.model import Delivery, Subscription
from backhaul_notifier.schedules import Disables

INDEXES: Final = {
    SWITCHED_COLLECTION: [IndexModel([("registration", ASCENDING)]), IndexModel([("held", ASCENDING)])],
}


@dataclass(frozen=True, slots=True)
class Switch:
    """That a communication was disabled, or enabled, at a time by the normalizer's clock."""

    tenant: str
    registration: str
    communication_id: str
    disabled: bool
    at_us: int

    @property
    def id(self) -> str:
        """That of the communication's document."""
        return switched_id(self.registration, self.communication_id)


@dataclass(frozen=True, slots=True)
class Switched:
    """A communication that is disabled, or was. ``held`` are subscriptions of which something is still held."""

    id: str
    registration: str
    communication_id: str
    revision: int
    disabled: bool
    held: frozenset[str]


class _Stored(BaseModel):
    registration: str
    communication_id: str
    revision: int
    disabled: bool
    held: tuple[str, ...] = ()


def read(document: Mapping[str, Any]) -> Switched:
    """That of a document. ValidationError where it is none."""
    row = _Stored.model_validate(document)
    return Switched(
        document["_id"], row.registration, row.communication_id, row.revision, row.disabled, frozenset(row.held)
    )


SWITCHED: Final = Kind("communication", COMMUNICATION_SWITCHED_SUBJECT, read)
"""What a ``Directory`` of them holds."""


def holds_back(subscription: Subscription) -> bool:
    """Whether what a subscription tells is held while its communication is disabled: its policy is what disables."""
    return subscription.policy.exhausted is Disables.COMMUNICATION


class Switches:
    """The communications in memory."""

    def __init__(self, directory: Directory[Switched]) -> None:
        self._known: dict[tuple[str, str], Switched] = {}
        self._places: dict[str, tuple[str, str]] = {}
        self.version = 0
        """Grows with each change."""
        directory.listen(self._changed)

    def holds(self, subscription: Subscription, delivery: Delivery) -> bool:
        """Whether ``delivery`` is not to be sent now. That a communication was disabled or enabled is said
        nevertheless."""
        if not (delivery.communication_id and self._known) or not holds_back(subscription) or delivery.type in SWITCHES:
            return False
        one = self._known.get((subscription.registration, delivery.communication_id))
        # What is newer than what is held comes after it, also once it is enabled.
        return one is not None and (one.disabled or (subscription.id in one.held and not delivery.released))

    def _changed(self, id_: str, one: Switched | None) -> None:
        self.version += 1
        if (place := self._places.pop(id_, None)) is not None:
            del self._known[place]
        if one is not None and (one.disabled or one.held):
            place = self._places[id_] = (one.registration, one.communication_id)
            self._known[place] = one


def apply(database: mongo.ThreadDatabase, session: mongo.Session, switch: Switch, now_us: int) -> list[str]:
    """Write a switch down, in a transaction that has proved that the registration lives; the endpoints that have
    something to do then. Nothing where a later one is known."""
    rows = database[SWITCHED_COLLECTION]
    known = rows.find_one({"_id": switch.id}, session=session) or {}
    if known.get("at_us", 0) >= switch.at_us:
        return []
    values = {
        "registration": switch.registration,
        "communication_id": switch.communication_id,
        "disabled": switch.disabled,
        "at_us": switch.at_us,
        # One that is made anew is newer than what a copy may still know of the one before.
        "revision": max(switch.at_us, known.get("revision", 0) + 1),
    }
    rows.update_one({"_id": switch.id}, {"$set": values}, upsert=True, session=session)
    woken = [] if switch.disabled else list(known.get("held", ()))
    for endpoint in woken:
        have_released(database, session, endpoint, now_us)
    return woken


def have_released(
    database: mongo.ThreadDatabase, session: mongo.Session, endpoint: str, now_us: int, *, all_: bool = False
) -> None:
    """Have whoever holds an endpoint release what may be sent of what is held; with ``all_``, also what is of
    communications that are disabled."""
    endpoints = database[ENDPOINTS_COLLECTION]
    # Always written, so that it meets the holder that has just found nothing more to release.
    told = {"$min": {"due_at_us": now_us}, "$inc": {"told": 1, "restarts": 1}}
    endpoints.update_one({"_id": endpoint}, told, session=session)
    task: Document = {"id": token_hex(12), "which": "held"} | ({"all": True} if all_ else {})
    same = {"tasks": {"$not": {"$elemMatch": {"which": "held", "all": {"$exists": all_}}}}}
    endpoints.update_one({"_id": endpoint, **same}, {"$push": {"tasks": task}}, session=session)


class Switching:
    """Writes down what the normalizer answered."""

    def __init__(
        self, database: mongo.Database, directory: Directory[Switched], nats: NatsClient, now_us: Callable[[], int]
    ) -> None:
        self._database = database
        self._directory = directory
        self._nats = nats
        self._now_us = now_us

    async def note(self, switch: Switch) -> None:
        """Write it down, and have this copy know it at once. UNAVAILABLE."""

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> list[str]:
            lives = fence.living(database, session, [switch.tenant]).get(switch.tenant)
            if lives is None or lives.registration != switch.registration:
                return []
            return apply(database, session, switch, self._now_us())

        async with mongo.translated():
            await mongo.in_transaction(self._database, work)
        await self._directory.reload(switch.id)
        await say(self._nats, [switch.id])


async def say(nats: NatsClient, ids: list[str]) -> None:
    """Tell other copies that these were written. Who hears nothing looks by itself."""
    for id_ in ids:
        try:
            await nats.publish(COMMUNICATION_SWITCHED_SUBJECT, id_.encode())
        except AWAY as exc:
            get_logger(component="switches").warning("communication_not_told", document=id_, error=repr(exc))
