"""What the end of a tenant's retention deletes: some of it at a time, each in a transaction of its own.

A batch that changes any of it at the same moment meets it there, and one of the two begins anew. The tenant is read in
the same transaction, as every commit reads its fence: whatever this process heard of it last, nothing is deleted that
its settings do not say now, and nothing is written for a registration that is being purged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from backhaul_channels import EventKind
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import (
    ENTRIES_COLLECTION,
    EVENTS_COLLECTION,
    JOINS_COLLECTION,
    MEMBERS_COLLECTION,
    MESSAGES_COLLECTION,
    RETENTION_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_common.tenants import Retention

from backhaul_normalizer.buckets import ALL, id_at
from backhaul_normalizer.communications.documents import member_of
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.model import DAY_US, Fact
from backhaul_normalizer.writing import Commands

MAX_BUCKETS = 64
"""Buckets in one transaction: some 2,000 events."""

MAX_MESSAGES = 500
"""Messages, or replies, that one transaction looks at."""

Position: TypeAlias = tuple[int, bytes]
"""Behind what is looked at next, in the order of its time and id."""

START: Position = (0, b"")

_ADDRESSES = ("recipient", "address", "sender", "pair")
"""What says between whom a message was."""


class Owner(NamedTuple):
    """One life of a tenant."""

    tenant: str
    registration: str


class Slice(NamedTuple):
    """How much was ended by one transaction, and from where on there may be more; None where there is no more."""

    ended: int
    following: Position | None


NOTHING = Slice(0, None)


def end_events(owner: Owner, now_us: int, _: Position, database: mongo.ThreadDatabase, session: mongo.Session) -> Slice:
    """Delete the oldest whole buckets that are due, with the entries of their events.

    They are due when their last event arrived, and they were written, before the cutoff: what was held or refused for
    long, and is processed now, is kept as if it came now. What messages know of their events stays, since it is what a
    redelivery is known by.
    """
    days = retention_of(owner, database, session).event_retention_days
    if days is None:
        return NOTHING
    before_us = now_us - days * DAY_US
    due = {
        "registration": owner.registration,
        "marks": ALL,
        "at_us": {"$lt": before_us},
        "_id": {"$lt": id_at(max(0, before_us))},
    }
    order = [("at_us", 1), ("_id", 1)]
    found = list(
        database[EVENTS_COLLECTION].find(due, {"events.id": 1}, sort=order, limit=MAX_BUCKETS, session=session)
    )
    if not found:
        return NOTHING
    events = [one["id"] for bucket in found for one in bucket["events"] if one]
    commands = Commands(database, session)
    commands.delete(ENTRIES_COLLECTION, events)
    commands.delete(EVENTS_COLLECTION, [bucket["_id"] for bucket in found])
    noted = {"$max": {"events_before_us": before_us}, "$setOnInsert": {"registration": owner.registration}}
    commands.update(RETENTION_COLLECTION, [{"q": {"_id": owner.registration}, "u": noted, "upsert": True}])
    return Slice(len(events), START if len(found) == MAX_BUCKETS else None)


def end_messages(
    owner: Owner, now_us: int, behind: Position, database: mongo.ThreadDatabase, session: mongo.Session
) -> Slice:
    """Delete messages that were first and last heard of before the cutoff, with the names that lead to them.

    One of which any event is left stays, and one that a reply was given to which is left: the reply's counts go by it.
    So does one of a member who is left: of whatever message a destination has next, its batch's counts go by the last.
    What a provider says of a time to come is not believed, or the message would stay until then.
    """
    days = retention_of(owner, database, session).message_retention_days
    if days is None:
        return NOTHING
    before_us = now_us - days * DAY_US
    query = _between(owner, "created_at_us", behind, before_us)
    wanted = dict.fromkeys(("created_at_us", "last_event_at_us", "channel", "aliases", "buckets", "dest"), 1)
    found = _page(database, session, MESSAGES_COLLECTION, query, "created_at_us", wanted)
    due = [row for row in found if not before_us <= row["last_event_at_us"] <= now_us + DAY_US]
    due = _without_member(_without_events(due, database, session), database, session)
    ids = [row["_id"] for row in due]
    if ids:
        names = [
            bytes.fromhex(message_key(owner.registration, row["channel"], alias))
            for row in due
            for alias, _ in row.get("aliases", ())
        ]
        commands = Commands(database, session)
        commands.delete(MESSAGES_COLLECTION, ids)
        # Its own name may have a join that leads nowhere, left by whoever used it.
        commands.delete(JOINS_COLLECTION, [*ids, *names], only={"message": {"$in": [*ids, b""]}})
    return Slice(len(ids), _behind(found, "created_at_us"))


def end_addresses(
    owner: Owner, now_us: int, _: Position, database: mongo.ThreadDatabase, session: mongo.Session
) -> Slice:
    """Take from messages, and from entries of replies, that are older than the cutoff what says between whom they were.

    How far that has come is kept, so that nothing is looked at twice; ``come_late`` takes it back where something old
    comes.
    """
    days = retention_of(owner, database, session).address_retention_days
    if days is None:
        return NOTHING
    before_us = now_us - days * DAY_US
    commands = Commands(database, session)
    kept = database[RETENTION_COLLECTION].find_one({"_id": owner.registration}, session=session) or {}
    ended = 0
    noted: dict[str, Position] = {}
    for field, collection, time_field, only, update in _WITH_ADDRESSES:
        at_us, row_id = kept.get(field, START)
        query = _between(owner, time_field, (at_us, row_id), before_us) | only
        found = _page(database, session, collection, query, time_field, {time_field: 1})
        if found:
            ids = {"$in": [row["_id"] for row in found]}
            commands.update(collection, [{"q": {"_id": ids}, "u": update, "multi": True}])
            noted[field] = (found[-1][time_field], found[-1]["_id"])
            ended += len(found)
    if not noted:
        return NOTHING
    update = {"$set": noted, "$setOnInsert": {"registration": owner.registration}}
    commands.update(RETENTION_COLLECTION, [{"q": {"_id": owner.registration}, "u": update, "upsert": True}])
    return Slice(ended, START)


_WITH_ADDRESSES: Sequence[tuple[str, str, str, Document, Document]] = (
    (
        "messages_behind",
        MESSAGES_COLLECTION,
        "created_at_us",
        {},
        # Marked, so that what is told of it later does not bring them back.
        {"$unset": dict.fromkeys((*_ADDRESSES, "erased_before_us"), ""), "$set": {"address_expired": True}},
    ),
    ("replies_behind", ENTRIES_COLLECTION, "received_at_us", {"kind": "inbound"}, {"$unset": {"address": ""}}),
)
"""The position that is kept, what it is in, and what is done there."""


def come_late(
    facts: Iterable[Fact],
    new_messages: Sequence[Document],
    now_us: int,
    database: mongo.ThreadDatabase,
    session: mongo.Session,
) -> list[Document]:
    """The update command's entries that have the addresses of what is written looked at, though it is older than what
    was looked at last: what was held, or was a dead letter, comes as late as that.

    They always write where addresses may be due: ``end_addresses`` that goes past at the same moment, and cannot see
    what is written here, meets it there.
    """
    old = [fact for fact in facts if fact.origin.received_at_us < now_us - DAY_US]  # Nothing ends within a day.
    if not old:
        return []
    made = {message["_id"] for message in new_messages}
    oldest: dict[tuple[str, str], int] = {}
    for fact in old:
        if fact.message in made or fact.event.kind is EventKind.INBOUND:
            owner, at_us = (fact.origin.tenant, fact.origin.registration), fact.origin.received_at_us
            oldest[owner] = min(at_us, oldest.get(owner, at_us))
    if not oldest:
        return []
    query = {"_id": {"$in": [tenant for tenant, _ in oldest]}, "retention.address_retention_days": {"$gt": 0}}
    wanted = {"registration": 1, "retention.address_retention_days": 1}
    updates: list[Document] = []
    for row in database[TENANTS_COLLECTION].find(query, wanted, session=session):
        registration = row["registration"]
        at_us = oldest.get((row["_id"], registration), now_us)
        # A day more: the clock of whoever ends them may be ahead.
        if at_us >= now_us - (row["retention"]["address_retention_days"] - 1) * DAY_US:
            continue
        updates += (
            {"q": {"_id": registration, field: {"$gt": (at_us, b"")}}, "u": {"$set": {field: (at_us, b"")}}}
            for field, *_ in _WITH_ADDRESSES
        )
        counted = {"$inc": {"late": 1}, "$setOnInsert": {"registration": registration}}
        updates.append({"q": {"_id": registration}, "u": counted, "upsert": True})
    return updates


def _without_events(rows: Sequence[Document], database: mongo.ThreadDatabase, session: mongo.Session) -> list[Document]:
    """Those of these messages of which no event is left, nor a reply to them."""
    if not rows:
        return []
    buckets = {"_id": {"$in": [bucket for row in rows for bucket in row["buckets"]]}}
    there = {row["_id"] for row in database[EVENTS_COLLECTION].find(buckets, {"_id": 1}, session=session)}
    ids = [row["_id"] for row in rows]
    entries = database[ENTRIES_COLLECTION]
    there |= {row["message"] for row in entries.find({"message": {"$in": ids}}, {"message": 1}, session=session)}
    replies = {"kind": "inbound", "waits_for": {"$in": [row_id.hex() for row_id in ids]}}
    for row in entries.find(replies, {"waits_for": 1}, session=session):
        there |= {bytes.fromhex(key) for key in row["waits_for"]}
    return [row for row in rows if row["_id"] not in there and there.isdisjoint(row["buckets"])]


def _without_member(rows: Sequence[Document], database: mongo.ThreadDatabase, session: mongo.Session) -> list[Document]:
    """Those of these messages that are for nobody's destination, or for that of a member who is gone."""
    members = {row["_id"]: member_of(row["dest"])[0] for row in rows if "dest" in row}
    if not members:
        return list(rows)
    query = {"_id": {"$in": list(set(members.values()))}}
    there = {bytes(row["_id"]) for row in database[MEMBERS_COLLECTION].find(query, {"_id": 1}, session=session)}
    return [row for row in rows if members.get(row["_id"]) not in there]


def _between(owner: Owner, time_field: str, behind: Position, before_us: int) -> Document:
    at_us, row_id = behind
    return {
        "registration": owner.registration,
        time_field: {"$gte": at_us, "$lt": before_us},
        "$or": [{time_field: {"$gt": at_us}}, {"_id": {"$gt": row_id}}],
    }


def _page(
    database: mongo.ThreadDatabase,
    session: mongo.Session,
    collection: str,
    query: Document,
    time_field: str,
    wanted: Document,
) -> list[Document]:
    order = [(time_field, 1), ("_id", 1)]
    return list(database[collection].find(query, wanted, sort=order, limit=MAX_MESSAGES, session=session))


def _behind(found: Sequence[Document], time_field: str) -> Position | None:
    return (found[-1][time_field], found[-1]["_id"]) if len(found) == MAX_MESSAGES else None


def retention_of(owner: Owner, database: mongo.ThreadDatabase, session: mongo.Session) -> Retention:
    """The tenant's settings as the transaction sees them. Nothing ends of one that is being deleted, or is another."""
    query = {"_id": owner.tenant, "registration": owner.registration, "status": {"$ne": "deleting"}}
    row = database[TENANTS_COLLECTION].find_one(query, {"retention": 1}, session=session)
    return Retention.model_validate(row.get("retention", {})) if row is not None else Retention()
