"""What the end of a tenant's retention deletes: some of it at a time, each in a transaction of its own.

A batch that changes any of it at the same moment meets it there, and one of the two begins anew. The tenant is read in
the same transaction, as every commit reads its fence: whatever this process heard of it last, nothing is deleted that
its settings do not say now, and nothing is written for a registration that is being purged.
"""

from __future__ import annotations

from typing import NamedTuple

from backhaul_common import mongo
from backhaul_common.names import (
    ENTRIES_COLLECTION,
    EVENTS_COLLECTION,
    RETENTION_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_common.tenants import Retention

from backhaul_normalizer.buckets import ALL, id_at
from backhaul_normalizer.model import DAY_US
from backhaul_normalizer.writing import Commands

MAX_BUCKETS = 64
"""Buckets in one transaction: some 2,000 events."""


class Owner(NamedTuple):
    """One life of a tenant."""

    tenant: str
    registration: str


class Slice(NamedTuple):
    """How much was ended by one transaction, and whether there may be more."""

    ended: int
    more: bool


NOTHING = Slice(0, more=False)


def end_events(owner: Owner, now_us: int, database: mongo.ThreadDatabase, session: mongo.Session) -> Slice:
    """Delete the oldest whole buckets that are due, with the entries of their events.

    They are due when their last event arrived, and they were written, before the cutoff: what was held or refused for
    long, and is processed now, is kept as if it came now. What messages know of their events stays, since it is what a
    redelivery is known by.
    """
    days = _retention(owner, database, session).event_retention_days
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
    return Slice(len(events), more=len(found) == MAX_BUCKETS)


def _retention(owner: Owner, database: mongo.ThreadDatabase, session: mongo.Session) -> Retention:
    """The tenant's settings as the transaction sees them. Nothing ends of one that is being deleted, or is another."""
    query = {"_id": owner.tenant, "registration": owner.registration, "status": {"$ne": "deleting"}}
    row = database[TENANTS_COLLECTION].find_one(query, {"retention": 1}, session=session)
    return Retention.model_validate(row.get("retention", {})) if row is not None else Retention()
