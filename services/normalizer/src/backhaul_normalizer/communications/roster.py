"""MongoDB: members of batches, some at a time, each time in one transaction with the batch that they are counted in.

The batch's document is written before its members, so that of two who add to one batch, or add and close, one begins
anew before it has written much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import Violation
from backhaul_common.names import BATCHES_COLLECTION, COMMUNICATIONS_COLLECTION, MEMBERS_COLLECTION
from backhaul_common.tenants import Tenant

from backhaul_normalizer.communications.documents import batch_key
from backhaul_normalizer.communications.membership import MemberAt, RefusedError, Told, completed
from backhaul_normalizer.communications.registering import closed_batch, closing, no_batch, require_living
from backhaul_normalizer.writing import Commands

Outcome: TypeAlias = Literal["added", "changed", "unchanged"] | Violation

_AT_ONCE = 250
"""Changed members in one command: what each may have at most stays within what MongoDB takes at once."""

_BEYOND = Violation(
    "expected_members",
    "The batch has as many members as are expected.",
    "Leave the member out, or register the batch once more with more.",
)


class Added(NamedTuple):
    """What became of each member that was told, in that order; the ``_id`` of those whose messages are to be linked;
    and whether the batch is closed."""

    outcomes: list[Outcome]
    touched: list[bytes]
    closed: bool


class MongoRoster:
    """Keeps members."""

    def __init__(self, database: mongo.Database, now_us: Callable[[], int]) -> None:
        self._database = database
        self._now_us = now_us

    async def place(self, tenant: Tenant, batch_id: str) -> MemberAt:
        """Where members of the batch are added, as it is now. NOT_FOUND; UNAVAILABLE."""
        async with mongo.operation():
            query = {"_id": batch_key(tenant.registration, batch_id), "registration": tenant.registration}
            batch = await self._database[BATCHES_COLLECTION].find_one(query)
            if batch is None:
                raise no_batch()
            communication = await self._database[COMMUNICATIONS_COLLECTION].find_one({"_id": batch["communication"]})
        return MemberAt(batch, communication["registered"]["channel"] if communication is not None else "")

    async def add(self, tenant: Tenant, at: MemberAt, told: Sequence[Told], call: str, *, last: bool) -> Added:
        """Add ``told``, all or nothing but for those that are refused. After the ``last`` the batch is closed where as
        many members are there as are expected. ``call`` is an id of the call that brings them: until ``linked``, they
        are known to be still to link.

        FAILED_PRECONDITION where it is closed and something would change; NOT_FOUND where the tenant or the batch is
        gone; UNAVAILABLE.
        """
        async with mongo.translated():
            work = partial(_add, tenant, at, told, call, last, self._now_us())
            return await mongo.in_transaction(self._database, work)

    async def linked(self, batch: bytes, call: str) -> None:
        """All members that ``call`` brought are linked to the messages that were there. UNAVAILABLE."""
        batches = self._database[BATCHES_COLLECTION]
        async with mongo.operation():
            await batches.update_one({"_id": batch}, {"$unset": {f"to_link.{call}": ""}})
            await batches.update_one({"_id": batch, "to_link": {}}, {"$unset": {"to_link": ""}})


def _add(
    tenant: Tenant,
    at: MemberAt,
    told: Sequence[Told],
    call: str,
    last: bool,  # given by partial, which is to leave the last two arguments
    now_us: int,
    database: mongo.ThreadDatabase,
    session: mongo.Session,
) -> Added:
    require_living(database, session, tenant)
    key = at.batch["_id"]
    batch = database[BATCHES_COLLECTION].find_one({"_id": key, "registration": tenant.registration}, session=session)
    if batch is None:
        raise no_batch()
    change = _Change(at._replace(batch=batch), _stored(database, session, told))
    outcomes = [change.take(one) for one in told]
    # What another call left to be linked may be what is told here once more, since that call died.
    again = change.known if batch.get("to_link", {}).keys() - {call} else []
    if batch["status"] != "open":
        if any(one != "unchanged" for one in outcomes):
            raise closed_batch(
                "Members can neither be added to it nor changed.", "Register another batch, and add them to that."
            )
        return Added(outcomes, again, closed=True)
    update = change.of_batch()
    if update:
        update[f"to_link.{call}"] = now_us
    expected = batch["expected_members"]
    closes = last and 0 < expected <= batch["members"] + len(change.new)
    if closes:
        update |= closing(now_us)
    commands = Commands(database, session)
    if update:
        commands.update(BATCHES_COLLECTION, [{"q": {"_id": key}, "u": {"$set": update}}])
        # By it a fold sees that members were stored that it has not seen.
        grown = {"q": {"_id": batch["communication"]}, "u": {"$inc": {"members_version": 1}}}
        commands.update(COMMUNICATIONS_COLLECTION, [grown])
    commands.insert(MEMBERS_COLLECTION, list(change.new.values()))
    changes = change.updates()
    for start in range(0, len(changes), _AT_ONCE):
        commands.update(MEMBERS_COLLECTION, changes[start : start + _AT_ONCE])
    return Added(outcomes, list({*change.new, *change.changed, *again}), closes)


def _stored(database: mongo.ThreadDatabase, session: mongo.Session, told: Sequence[Told]) -> dict[bytes, Document]:
    ids = list({one.id for one in told})
    if not ids:
        return {}
    return {row["_id"]: row for row in database[MEMBERS_COLLECTION].find({"_id": {"$in": ids}}, session=session)}


class _Change:
    """What becomes of a batch's members, of which ``stored`` are there."""

    def __init__(self, at: MemberAt, stored: dict[bytes, Document]) -> None:
        self._at = at
        self._stored = stored
        self.new: dict[bytes, Document] = {}
        self.changed: dict[bytes, Document] = {}

    @property
    def known(self) -> list[bytes]:
        """The ``_id`` of those that are told and were there before."""
        return list(self._stored)

    def take(self, told: Told) -> Outcome:
        """Have ``told`` be so."""
        key = told.id
        new = self.new.get(key)
        known = new or self.changed.get(key) or self._stored.get(key)
        if known is None:
            batch = self._at.batch
            if isinstance(told.new, Violation):
                return told.new
            if batch["status"] == "open" and 0 < batch["expected_members"] <= batch["members"] + len(self.new):
                return _BEYOND
            self.new[key] = told.new
            return "added"
        try:
            after = completed(known, told)
        except RefusedError as exc:
            return exc.violation
        if after is known:
            return "unchanged"
        (self.changed if new is None else self.new)[key] = after
        return "changed"

    def of_batch(self) -> Document:
        """What changes in the batch; nothing where no member does."""
        if not self.new and not self.changed:
            return {}
        batch = self._at.batch
        version = batch["version"] + 1
        destinations = sum(len(one["destinations"]) for one in self.new.values())
        destinations += sum(
            len(one["destinations"]) - len(self._stored[key]["destinations"]) for key, one in self.changed.items()
        )
        return {
            "members": batch["members"] + len(self.new),
            "destinations": batch["destinations"] + destinations,
            "version": version,
        }

    def updates(self) -> list[Document]:
        """The entries of an update command for the members that are there."""
        return [
            {
                "q": {"_id": key},
                "u": {"$set": {name: value for name, value in after.items() if value != self._stored[key][name]}},
            }
            for key, after in self.changed.items()
        ]
