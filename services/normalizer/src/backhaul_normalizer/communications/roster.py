"""MongoDB: members of batches, some at a time, each time in one transaction with the batch that they are counted in.

The batch's document is written before its members, so that of two who add to one batch, or add and close, one begins
anew before it has written much.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
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

_READ_AT_ONCE = 100
"""Members that are there in one answer of MongoDB: each may be 64 KiB, as long as a line."""

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
    change = _Change(batch, told)
    for known in _stored(database, session, told):
        change.take_known(known)
    change.take_new()
    outcomes = change.outcomes
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
    changes = change.updates
    for start in range(0, len(changes), _AT_ONCE):
        commands.update(MEMBERS_COLLECTION, changes[start : start + _AT_ONCE])
    return Added(outcomes, list({*change.new, *change.changed, *again}), closes)


def _stored(database: mongo.ThreadDatabase, session: mongo.Session, told: Sequence[Told]) -> Iterator[Document]:
    ids = list({one.id for one in told})
    if ids:
        found = database[MEMBERS_COLLECTION].find({"_id": {"$in": ids}}, session=session)
        yield from found.batch_size(_READ_AT_ONCE)


class _Change:
    """What becomes of a batch's members when they are told of: of those that are there first, one by one, of which only
    what changes is kept; then of the others."""

    def __init__(self, batch: Document, told: Sequence[Told]) -> None:
        self._batch = batch
        self._told = told
        self._places: defaultdict[bytes, list[int]] = defaultdict(list)
        """Where in ``told`` members are told of that were not there, as far as that is known."""
        for place, one in enumerate(told):
            self._places[one.id].append(place)
        self._destinations = 0
        """How many more members have that were there."""
        self.outcomes: list[Outcome] = ["unchanged"] * len(told)
        self.known: list[bytes] = []
        """The ``_id`` of those that were there."""
        self.changed: list[bytes] = []
        self.updates: list[Document] = []
        """The entries of an update command for those that are ``changed``."""
        self.new: dict[bytes, Document] = {}

    def take_known(self, known: Document) -> None:
        """Have what is told of a member that is there be so."""
        key, after = known["_id"], known
        self.known.append(key)
        for place in self._places.pop(key):
            after, self.outcomes[place] = _after(after, self._told[place])
        if after is not known:
            self.changed.append(key)
            changes = {name: value for name, value in after.items() if value != known[name]}
            self.updates.append({"q": {"_id": key}, "u": {"$set": changes}})
            self._destinations += len(after["destinations"]) - len(known["destinations"])

    def take_new(self) -> None:
        """Have what is told of all others be so, in the order in which it is told."""
        for place, one in enumerate(self._told):
            if one.id in self._places:
                self.outcomes[place] = self._new(one)

    def _new(self, told: Told) -> Outcome:
        known, batch = self.new.get(told.id), self._batch
        if known is not None:
            self.new[told.id], outcome = _after(known, told)
            return outcome
        if isinstance(told.new, Violation):
            return told.new
        if batch["status"] == "open" and 0 < batch["expected_members"] <= batch["members"] + len(self.new):
            return _BEYOND
        self.new[told.id] = told.new
        return "added"

    def of_batch(self) -> Document:
        """What changes in the batch; nothing where no member does."""
        if not self.new and not self.changed:
            return {}
        batch = self._batch
        return {
            "members": batch["members"] + len(self.new),
            "destinations": batch["destinations"]
            + self._destinations
            + sum(len(one["destinations"]) for one in self.new.values()),
            "version": batch["version"] + 1,
        }


def _after(known: Document, told: Told) -> tuple[Document, Outcome]:
    """A member when it is told of, ``known`` itself where nothing changes, and what became of it."""
    try:
        after = completed(known, told)
    except RefusedError as exc:
        return known, exc.violation
    return after, "unchanged" if after is known else "changed"
