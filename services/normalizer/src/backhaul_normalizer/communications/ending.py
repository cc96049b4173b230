"""What the end of a tenant's retention takes of the members of complete batches: see ``expiry``.

Batches are gone through in the order in which they became complete, and their members by ``_id``. How far that has come
is kept, so that nothing is looked at twice: no batch is complete as of an earlier day than today. The batch, its counts
and what it was at completion stay.
"""

from __future__ import annotations

from typing import NamedTuple

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import BATCHES_COLLECTION, MEMBERS_COLLECTION, RETENTION_COLLECTION

from backhaul_normalizer.communications.documents import KEY_BYTES, MEMBER_ID_BYTES
from backhaul_normalizer.expiry import NOTHING, START, Owner, Position, Slice, retention_of
from backhaul_normalizer.model import DAY_US
from backhaul_normalizer.writing import Commands

MAX_MEMBERS = 500
"""Members that one transaction ends."""

MAX_BATCHES = 50
"""Batches that one transaction looks at."""

# MongoDB takes the longer of two for the greater one, so bounds are as long as members' ids.
_BEFORE_MEMBERS = bytes(MEMBER_ID_BYTES - KEY_BYTES)
_BEHIND_MEMBERS = b"\xff" * (MEMBER_ID_BYTES - KEY_BYTES)

WITHOUT_ADDRESSES: Document = {
    "$set": {
        "attributes": [],
        "destinations.$[].recipient": "",
        "destinations.$[].address": "",
        # Marked, so that no message finds it any more, and those that did stay with it.
        "address_expired": True,
    },
    # The first one is of the sender's own key, all others are of addresses.
    "$push": {"found_by": {"$each": [], "$slice": 1}},
    "$inc": {"version": 1},
}


def end_members(
    owner: Owner, now_us: int, _: Position, database: mongo.ThreadDatabase, session: mongo.Session
) -> Slice:
    """Delete members of batches that became complete before messages are kept."""
    days = retention_of(owner, database, session).message_retention_days
    if days is None:
        return NOTHING
    due = _due(owner, now_us - days * DAY_US, "members_behind", database, session)
    commands = Commands(database, session)
    commands.delete(MEMBERS_COLLECTION, due.members)
    return due.noted(commands)


def end_member_addresses(
    owner: Owner, now_us: int, _: Position, database: mongo.ThreadDatabase, session: mongo.Session
) -> Slice:
    """Take from members of batches that became complete before addresses are kept what says who they are: recipients
    and attributes."""
    days = retention_of(owner, database, session).address_retention_days
    if days is None:
        return NOTHING
    due = _due(owner, now_us - days * DAY_US, "member_addresses_behind", database, session)
    commands = Commands(database, session)
    if due.members:
        query = {"_id": {"$in": due.members}}
        commands.update(MEMBERS_COLLECTION, [{"q": query, "u": WITHOUT_ADDRESSES, "multi": True}])
    return due.noted(commands)


class _Due(NamedTuple):
    """Members that are due, and the position behind them, which is kept as ``field``."""

    registration: str
    field: str
    members: list[bytes]
    before: Position
    behind: Position
    more: bool

    def noted(self, commands: Commands) -> Slice:
        """Keep how far it is."""
        if self.behind != self.before:
            update = {"$set": {self.field: self.behind}, "$setOnInsert": {"registration": self.registration}}
            commands.update(RETENTION_COLLECTION, [{"q": {"_id": self.registration}, "u": update, "upsert": True}])
        return Slice(len(self.members), START if self.more else None)


def _due(owner: Owner, before_us: int, field: str, database: mongo.ThreadDatabase, session: mongo.Session) -> _Due:
    kept = database[RETENTION_COLLECTION].find_one({"_id": owner.registration}, session=session) or {}
    at_us, member = before = behind = (*kept.get(field, START),)
    query = {
        "registration": owner.registration,
        "completed_at_us": {"$gte": at_us, "$lt": before_us},
        # The batch whose members were ended last may have more.
        "$or": [{"completed_at_us": {"$gt": at_us}}, {"_id": {"$gte": member[:KEY_BYTES]}}],
    }
    order = [("completed_at_us", 1), ("_id", 1)]
    batches = list(
        database[BATCHES_COLLECTION].find(query, {"completed_at_us": 1}, sort=order, limit=MAX_BATCHES, session=session)
    )
    members: list[bytes] = []
    for batch in batches:
        left = MAX_MEMBERS - len(members)
        if not left:
            break
        key = bytes(batch["_id"])
        after = member if member.startswith(key) else key + _BEFORE_MEMBERS
        of_batch = {"$gt": after, "$lte": key + _BEHIND_MEMBERS}
        rows = database[MEMBERS_COLLECTION].find(
            {"_id": of_batch}, {"_id": 1}, sort=[("_id", 1)], limit=left, session=session
        )
        found = [bytes(row["_id"]) for row in rows]
        members += found
        behind = (batch["completed_at_us"], found[-1] if len(found) == left else key + _BEHIND_MEMBERS)
    more = len(members) == MAX_MEMBERS or len(batches) == MAX_BATCHES
    return _Due(owner.registration, field, members, before, behind, more)
