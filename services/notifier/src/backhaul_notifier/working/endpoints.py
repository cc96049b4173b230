"""``endpoints``: which copy works each, and how it stands with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.leases import Lease, Leases
from backhaul_common.names import ENDPOINTS_COLLECTION
from pymongo import UpdateOne

MAX_LAST_FAILURE = 500
"""Characters of ``last_failure``."""


class Held(Lease):
    """An endpoint that this copy works. What is held of its deliveries is another matter: see ``holding``."""

    __slots__ = ()


@dataclass(slots=True)
class Standing:
    """How it stands with an endpoint, as far as whoever works it knows. 0 or empty: it is not so."""

    failing_since_us: int = 0
    last_success_at_us: int = 0
    last_failure_at_us: int = 0
    last_failure: str = ""
    rest_until_us: int = 0
    rests: int = 0
    slow_until_us: int = 0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Standing:
        """That of a document."""
        return cls(**{name: row[name] for name in cls.__slots__ if name in row})

    def changes(self) -> Document:
        """Expressions of a pipeline that write it down."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: {"$literal": value} if value else "$$REMOVE" for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Known:
    """What an endpoint was told: how often something was added, how often something older, and its tasks."""

    told: int
    restarts: int
    tasks: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Known:
        """That of a document."""
        return cls(row.get("told", 0), row.get("restarts", 0), row.get("tasks", ()))


class MongoEndpoints(Leases[Held]):
    """The leases, and what is written beside them."""

    def __init__(self, database: mongo.Database, owner: str) -> None:
        """See ``Leases``."""
        super().__init__(database, ENDPOINTS_COLLECTION, owner, Held)

    async def due(
        self, now_us: int, most: int, *, without: Collection[str] = (), not_of: Collection[str] = ()
    ) -> Sequence[str]:
        """Up to ``most`` that have something to send and are free, those first that are due for longest; none of
        ``without``, or of the tenants ``not_of``. UNAVAILABLE."""
        query = {"active": True, "due_at_us": {"$lte": now_us}, **self._free(now_us)}
        if without:
            query["_id"] = {"$nin": list(without)}
        if not_of:
            query["tenant"] = {"$nin": list(not_of)}
        async with mongo.operation():
            rows = await self._rows.find(query, {"_id": 1}).sort("due_at_us", 1).limit(most).to_list(None)
        return [row["_id"] for row in rows]

    async def due_among(self, ids: Iterable[str], now_us: int) -> Sequence[str]:
        """Of ``ids``, those that have something to send and are free. UNAVAILABLE."""
        query = {"_id": {"$in": list(ids)}, "active": True, "due_at_us": {"$lte": now_us}, **self._free(now_us)}
        async with mongo.operation():
            return [row["_id"] async for row in self._rows.find(query, {"_id": 1})]

    async def known(self, ids: Iterable[str]) -> Mapping[str, Known]:
        """What each of ``ids`` was told. UNAVAILABLE."""
        async with mongo.operation():
            rows = self._rows.find(
                {"_id": {"$in": list(ids)}}, {"told": 1, "restarts": 1, "tasks.which": 1, "tasks.all": 1}
            )
            return {row["_id"]: Known.of(row) async for row in rows}

    async def row(self, id_: str) -> Document | None:
        """Its document. UNAVAILABLE."""
        async with mongo.operation():
            row: Document | None = await self._rows.find_one({"_id": id_})
        return row

    async def note(self, standings: Mapping[str, tuple[Held, Standing]]) -> None:
        """Write down how it stands with those that this copy still holds. UNAVAILABLE."""
        if not standings:
            return
        changes = [UpdateOne(self._mine(held), [{"$set": one.changes()}]) for held, one in standings.values()]
        async with mongo.operation():
            await self._rows.bulk_write(changes, ordered=False)

    async def hand_over(self, held: Held, standing: Standing, told: int, due_at_us: int | None) -> None:
        """Let other copies have it, which look at it from ``due_at_us`` on (None: where nothing waits), unless it was
        told something since ``told``. UNAVAILABLE."""
        untold = {"$eq": [{"$ifNull": ["$told", 0]}, told]}
        due = "$$REMOVE" if due_at_us is None else {"$literal": due_at_us}
        await self.give_back(held, {**standing.changes(), "due_at_us": {"$cond": [untold, due, "$due_at_us"]}})

    def _free(self, now_us: int) -> Document:
        """Whether it can be taken and does not rest; the taking itself goes by MongoDB's clock and the epoch."""
        return {
            "$and": [
                {"$or": [{"rest_until_us": {"$exists": False}}, {"rest_until_us": {"$lte": now_us}}]},
                {"$or": [{"owner": {"$in": [None, "", self._owner]}}, {"$expr": {"$lt": ["$until", "$$NOW"]}}]},
            ]
        }
