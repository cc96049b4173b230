"""Which notices tenants want, of those that cost too much to write where nobody does.

The notifier says so, in the transaction in which a subscription changes. Whoever would write such a notice asks after
the commit that brought it about: what is committed after the subscription is thus told.
"""

from __future__ import annotations

from collections.abc import Collection

from pymongo import ASCENDING, IndexModel

from backhaul_common.mongo import Database, Session, ThreadDatabase, operation
from backhaul_common.names import NOTICES_WANTED_COLLECTION

MEMBER_PROCESSED = "member.processed"

ASKED_FOR = frozenset({MEMBER_PROCESSED})
"""The types that are written only where they are wanted."""

INDEXES = [IndexModel([("registration", ASCENDING)])]


def write(database: ThreadDatabase, session: Session, registration: str, types: Collection[str]) -> None:
    """These notices are what the registration's subscriptions want from now on, of ``ASKED_FOR``; also those that are
    paused, as what they are not told waits.

    The transaction must have proved that the registration lives: see ``fence.living``.
    """
    row = {"registration": registration, "types": sorted(ASKED_FOR.intersection(types))}
    database[NOTICES_WANTED_COLLECTION].replace_one({"_id": registration}, row, upsert=True, session=session)


async def wanting(database: Database, registrations: Collection[str], notice_type: str) -> set[str]:
    """Those of the registrations that want notices of the type. UNAVAILABLE."""
    query = {"_id": {"$in": list(registrations)}, "types": notice_type}
    async with operation():
        rows = await database[NOTICES_WANTED_COLLECTION].find(query, {"_id": 1}).to_list(None)
    return {row["_id"] for row in rows}
