"""The fence of a tenant's deletion: what a commit reads inside its own transaction before it writes for a tenant.

Marking a tenant ``deleting`` moves its fence. Every commit, and every retry of one, reads the fence in its transaction
and leaves out what belongs to a registration that is gone or going. However long a process slept, what it commits
afterwards is judged by what is true then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from backhaul_common.mongo import Database, Session, ThreadDatabase, operation
from backhaul_common.names import TENANTS_COLLECTION


@dataclass(frozen=True, slots=True)
class Living:
    """A tenant that is there and not being deleted. ``path`` is its queue path as subjects spell it."""

    registration: str
    path: str


def living(database: ThreadDatabase, session: Session, tenant_ids: Collection[str]) -> Mapping[str, Living]:
    """Those of the tenants that live, by id, as the transaction of ``session`` sees them."""
    rows = database[TENANTS_COLLECTION].find(
        {"_id": {"$in": list(tenant_ids)}, "status": {"$ne": "deleting"}},
        {"registration": 1, "queue_path_key": 1},
        session=session,
    )
    return {row["_id"]: Living(row["registration"], row["queue_path_key"]) for row in rows}


async def owners(database: Database, paths: Collection[str]) -> Mapping[str, str]:
    """The registrations of the living tenants that have these queue paths now, by path. UNAVAILABLE.

    For what cannot be part of a transaction, such as a publish: it is true at one moment, and binds nobody.
    """
    query = {"queue_path_key": {"$in": list(paths)}, "status": {"$ne": "deleting"}}
    async with operation():
        rows = await database[TENANTS_COLLECTION].find(query, {"registration": 1, "queue_path_key": 1}).to_list(None)
    return {row["queue_path_key"]: row["registration"] for row in rows}


async def lives(database: Database, tenant_id: str, registration: str) -> bool:
    """Whether the registration is there and not being deleted. Where it is not, it never will be again. UNAVAILABLE."""
    query = {"_id": tenant_id, "registration": registration, "status": {"$ne": "deleting"}}
    async with operation():
        return await database[TENANTS_COLLECTION].find_one(query, {"_id": 1}) is not None
