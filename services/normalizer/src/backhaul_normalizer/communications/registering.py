"""Communications and batches as senders register them: each call is one transaction, in which the tenant lives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, TypeVar

from backhaul_common import mongo, outbox
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.fence import Living, living
from backhaul_common.names import (
    BATCHES_COLLECTION,
    COMMUNICATIONS_COLLECTION,
    COUNTS_COLLECTION,
    NORMALIZER_OUTBOX,
    queue_path_key,
)
from backhaul_common.notices import entry, notice_id
from backhaul_common.tenants import Tenant
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.notice.v1.notice_pb2 import About, Notice

from backhaul_normalizer.communications.documents import (
    MAX_SWITCHED,
    batch_key,
    communication_id_of,
    status_of,
)
from backhaul_normalizer.communications.ports import Consequences
from backhaul_normalizer.communications.validation import checked_deadline, default_registered
from backhaul_normalizer.counts import ids_of

DISABLED: Final = "communication.disabled"
ENABLED: Final = "communication.enabled"

_FOR_SAFETY: Final = (
    "What was to be told on behalf of a communication failed for good, and it is disabled for safety: nothing is "
    "called on its behalf until it is enabled."
)
_BY_CALL: Final = {
    DISABLED: "A communication was disabled: nothing is called on its behalf until it is enabled.",
    ENABLED: "A communication was enabled: what was held back on its behalf is called now.",
}

T = TypeVar("T")

Work = Callable[[mongo.ThreadDatabase, mongo.Session], T]


class Put(NamedTuple):
    """What is registered now, and whether it was not before."""

    document: Document
    created: bool


class BatchTold(NamedTuple):
    """What a sender tells of a batch. A ``deadline_at_us`` of 0 is the communication's; of one that is registered, the
    one that it has."""

    label: str
    expected_members: int
    deadline_at_us: int


def no_communication() -> BackhaulError:
    """NOT_FOUND."""
    return BackhaulError(
        Code.NOT_FOUND,
        "There is no such communication.",
        field="communication_id",
        fix="Register it with PutCommunication.",
    )


def no_batch() -> BackhaulError:
    """NOT_FOUND."""
    return BackhaulError(Code.NOT_FOUND, "There is no such batch.", field="batch_id", fix="Register it with PutBatch.")


def require_living(database: mongo.ThreadDatabase, session: mongo.Session, tenant: Tenant) -> None:
    """NOT_FOUND where the registration does not live, as the transaction of ``session`` sees it."""
    path = queue_path_key(tenant.queue_path)
    if living(database, session, {tenant.id}).get(tenant.id) != Living(tenant.registration, path):
        raise BackhaulError(
            Code.NOT_FOUND, "The tenant is deleted, or was changed just now.", field="tenant_id", fix="Check the id."
        )


class MongoRegister:
    """Registers. Every method raises NOT_FOUND where the tenant is gone, and UNAVAILABLE."""

    def __init__(
        self,
        database: mongo.Database,
        consequences: Consequences,
        now_us: Callable[[], int],
        written: Callable[[], None],
    ) -> None:
        """``written`` is called after a commit that may have written a notice."""
        self._written = written
        self._database = database
        self._consequences = consequences
        self._now_us = now_us

    async def put_communication(self, tenant: Tenant, communication_id: str, registered: Document) -> Put:
        """Replace all that is registered of it by ``registered``."""
        return await self._done(partial(_put_communication, tenant, communication_id, registered, self._now_us()))

    async def switch(
        self,
        tenant: Tenant,
        communication_id: str,
        *,
        disabled: bool,
        reason: str,
        author: str,
        subscription_id: str = "",
    ) -> Document:
        """Disable or enable it, and say so in a notice; where it is so already, nothing changes. NOT_FOUND where
        nothing is known of it.

        With the subscription that Backhaul disables it for, those are told by mail whom the communication names.
        """
        switched: Document = {"disabled": disabled, "reason": reason, "author": author, "at_us": self._now_us()}
        switch = partial(_switch, tenant, communication_id, switched, subscription_id)
        document = await self._done(switch)
        self._written()
        return document

    async def put_batch(self, tenant: Tenant, communication_id: str, batch_id: str, told: BatchTold) -> Put:
        """Register it, or change what is told of it.

        NOT_FOUND where the communication is not registered; CONFLICT where another one has a batch of that id;
        FAILED_PRECONDITION where it is closed and more than its label would change.
        """
        put = await self._done(partial(_put_batch, tenant, communication_id, batch_id, told, self._now_us()))
        if put.document["status"] == "closed":
            await self._consequences.of_batch(put.document["_id"])
        return put

    async def close_batch(self, tenant: Tenant, batch_id: str) -> None:
        """Close it; one that is closed stays as it is. NOT_FOUND; FAILED_PRECONDITION where members are missing."""
        key = batch_key(tenant.registration, batch_id)
        await self._done(partial(_close_batch, tenant, key, self._now_us()))
        await self._consequences.of_batch(key)

    async def _done(self, work: Work[T]) -> T:
        async with mongo.translated():
            return await mongo.in_transaction(self._database, work)


def _put_communication(
    tenant: Tenant,
    communication_id: str,
    registered: Document,
    now_us: int,
    database: mongo.ThreadDatabase,
    session: mongo.Session,
) -> Put:
    require_living(database, session, tenant)
    found = known_communication(database, session, tenant.registration, communication_id)
    before = found or _appeared(tenant.registration, communication_id, now_us)
    if before.get("registered") == registered:
        return Put(before, False)
    after = {**before, "registered": registered, "updated_at_us": now_us}
    database[COMMUNICATIONS_COLLECTION].replace_one({"_id": after["_id"]}, after, upsert=True, session=session)
    return Put(after, "registered" not in before)


def _switch(
    tenant: Tenant,
    communication_id: str,
    switched: Document,
    subscription_id: str,
    database: mongo.ThreadDatabase,
    session: mongo.Session,
) -> Document:
    require_living(database, session, tenant)
    before = known_communication(database, session, tenant.registration, communication_id)
    if before is None:
        raise no_communication()
    if (before["status"] == "disabled") == switched["disabled"]:
        return before
    earlier = before.get("switched", [])
    # Whoever hears of several goes by their times, whichever copy's clock each is of.
    at_us = max(switched["at_us"], earlier[-1]["at_us"] + 1 if earlier else 0)
    after = {
        **before,
        "registered": before.get("registered") or default_registered(),
        "switched": [*earlier, switched | {"at_us": at_us}][-MAX_SWITCHED:],
        "updated_at_us": at_us,
    }
    after["status"] = status_of(after)
    database[COMMUNICATIONS_COLLECTION].replace_one({"_id": after["_id"]}, after, upsert=True, session=session)
    notice = entry(_notice(tenant, after, subscription_id), queue_path_key(tenant.queue_path))
    outbox.write(database, session, NORMALIZER_OUTBOX, [notice])
    return after


def _notice(tenant: Tenant, communication: Document, subscription_id: str) -> Notice:
    """That it was disabled or enabled."""
    switched = communication["switched"][-1]
    type_ = DISABLED if switched["disabled"] else ENABLED
    communication_id, at_us = communication["communication_id"], switched["at_us"]
    return Notice(
        id=notice_id(tenant.registration, type_, f"{at_us} {communication_id}"),
        tenant_id=tenant.id,
        registration=tenant.registration,
        type=type_,
        occurred_at_us=at_us,
        about=About(communication_id=communication_id, reference=subscription_id),
        text=_FOR_SAFETY if subscription_id else _BY_CALL[type_],
        attributes=[Attribute(name="reason", value=switched["reason"])],
        notify=communication["registered"]["notify"] if subscription_id else (),
    )


def _put_batch(
    tenant: Tenant,
    communication_id: str,
    batch_id: str,
    told: BatchTold,
    now_us: int,
    database: mongo.ThreadDatabase,
    session: mongo.Session,
) -> Put:
    require_living(database, session, tenant)
    of = communication_id_of(tenant.registration, communication_id)
    communication = database[COMMUNICATIONS_COLLECTION].find_one(
        {"_id": of, "registration": tenant.registration}, session=session
    )
    if communication is None or "registered" not in communication:
        raise no_communication()
    key = batch_key(tenant.registration, batch_id)
    before = database[BATCHES_COLLECTION].find_one({"_id": key}, session=session)
    if before is None:
        after = _new_batch(tenant, communication, batch_id, told, now_us)
        counted = {**communication, "batches": communication.get("batches", 0) + 1}
        update = {"$set": {"batches": counted["batches"], "status": status_of(counted)}}
        database[COMMUNICATIONS_COLLECTION].update_one({"_id": of}, update, session=session)
        database[BATCHES_COLLECTION].insert_one(after, session=session)
        return Put(after, True)
    if before["communication"] != of:
        raise BackhaulError(
            Code.CONFLICT,
            "Another communication has a batch of this id.",
            field="batch_id",
            fix="Choose another id: a tenant has one batch of each.",
        )
    after = _changed_batch(before, told, now_us)
    if after != before:
        database[BATCHES_COLLECTION].replace_one({"_id": key}, after, session=session)
    return Put(after, False)


def _new_batch(tenant: Tenant, communication: Document, batch_id: str, told: BatchTold, now_us: int) -> Document:
    registered = communication["registered"]
    deadline_at_us = (
        checked_deadline(told.deadline_at_us, now_us)
        if told.deadline_at_us
        else now_us + registered["deadline_s"] * 1_000_000
    )
    return {
        "_id": batch_key(tenant.registration, batch_id),
        "tenant": tenant.id,
        "registration": tenant.registration,
        "communication": communication["_id"],
        "communication_id": communication["communication_id"],
        "batch_id": batch_id,
        "label": told.label,
        "status": "open",
        "completes_on": registered["completes_on"],
        "expected_members": told.expected_members,
        "members": 0,
        "destinations": 0,
        "created_at_us": now_us,
        "deadline_at_us": deadline_at_us,
        "due_at_us": deadline_at_us,
        "version": 0,
    }


def _changed_batch(before: Document, told: BatchTold, now_us: int) -> Document:
    """The document of a batch of which that is told."""
    deadline_at_us = told.deadline_at_us or before["deadline_at_us"]
    after = {**before, "label": told.label}
    if (told.expected_members, deadline_at_us) == (before["expected_members"], before["deadline_at_us"]):
        return after
    if before["status"] != "open":
        raise closed_batch(
            "Only its label can still be changed.", "Leave what is expected and the deadline as they are."
        )
    if deadline_at_us != before["deadline_at_us"]:
        after["deadline_at_us"] = after["due_at_us"] = checked_deadline(deadline_at_us, now_us)
    after["expected_members"] = told.expected_members
    return after | (closing(now_us) if 0 < told.expected_members <= before["members"] else {})


def closed_batch(message: str, fix: str) -> BackhaulError:
    """FAILED_PRECONDITION."""
    return BackhaulError(Code.FAILED_PRECONDITION, f"The batch is closed. {message}", field="batch_id", fix=fix)


def closing(now_us: int) -> Document:
    """What changes in a batch that is closed."""
    return {"status": "closed", "closed_at_us": now_us}


def _close_batch(
    tenant: Tenant, key: bytes, now_us: int, database: mongo.ThreadDatabase, session: mongo.Session
) -> None:
    require_living(database, session, tenant)
    batch = database[BATCHES_COLLECTION].find_one({"_id": key, "registration": tenant.registration}, session=session)
    if batch is None:
        raise no_batch()
    if batch["status"] != "open":
        return
    missing = batch["expected_members"] - batch["members"]
    if missing > 0:
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            f"{missing} of the {batch['expected_members']} members that are expected are missing.",
            field="expected_members",
            fix="Add them, or register the batch once more with fewer.",
        )
    database[BATCHES_COLLECTION].update_one({"_id": key}, {"$set": closing(now_us)}, session=session)


def known_communication(
    database: mongo.ThreadDatabase, session: mongo.Session, registration: str, communication_id: str
) -> Document | None:
    """Its document, or the one that it would have where it is known by its counts alone: those are older than the
    documents of communications. None where nothing is known of it."""
    key = communication_id_of(registration, communication_id)
    found = database[COMMUNICATIONS_COLLECTION].find_one({"_id": key, "registration": registration}, session=session)
    if found is not None:
        return found
    counted = database[COUNTS_COLLECTION].find_one(
        {"_id": ids_of(registration, communication_id), "registration": registration, "created_at_us": {"$gt": 0}},
        {"created_at_us": 1},
        sort=[("created_at_us", 1)],
        session=session,
    )
    return None if counted is None else _appeared(registration, communication_id, counted["created_at_us"])


def _appeared(registration: str, communication_id: str, at_us: int) -> Document:
    return {
        "_id": communication_id_of(registration, communication_id),
        "registration": registration,
        "communication_id": communication_id,
        "status": "active",
        "created_at_us": at_us,
    }
