"""What tests of the store share: a database of their own, tenants, and facts ready made."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import (
    SUPPRESSION_CHANGES_COLLECTION,
    SUPPRESSION_COUNTERS_COLLECTION,
    SUPPRESSION_FACTS_COLLECTION,
    SUPPRESSIONS_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_common.tenants import Tenant
from backhaul_suppression.documents import is_row, to_change, to_fact, to_row
from backhaul_suppression.fold import fold
from backhaul_suppression.model import (
    EVERYTHING,
    Address,
    Change,
    Fact,
    Family,
    Kind,
    Origin,
    Row,
    RowKey,
    Scope,
    Source,
    Target,
)
from backhaul_suppression.store import MongoSuppressions

ANNA = "+15005550001"
STOPPED = Target(Kind.STOP, EVERYTHING)


def now_us() -> int:
    return time.time_ns() // 1000


def fact(
    fact_id: str,
    at_us: int,
    *,
    lifts: bool = False,
    targets: Sequence[Target] = (STOPPED,),
    of: str = "acme",
    address: str = ANNA,
    family: Family = Family.PHONE,
    **more: Any,
) -> Fact:
    return Fact(
        id=fact_id,
        tenant_id=of,
        address=Address(f"{of}.1", family, address),
        lifts=lifts,
        targets=tuple(targets),
        effective_at_us=at_us,
        recorded_at_us=more.pop("recorded_at_us", at_us + 7),
        origin=more.pop("origin", Origin.RECIPIENT),
        source=more.pop("source", Source.EVENT),
        event_id=more.pop("event_id", fact_id),
        **more,
    )


def row_id(kind: Kind = Kind.STOP, *, of: str = "acme", address: str = ANNA, scope: Scope = EVERYTHING) -> str:
    return RowKey(Address(f"{of}.1", Family.PHONE, address), kind, scope).id


@dataclass
class AtOnce:
    """A barrier that nobody stands behind; it remembers what it was asked."""

    asked: list[int] = field(default_factory=list)

    async def passed(self, seq: int) -> None:
        self.asked.append(seq)
        await asyncio.sleep(0)


@dataclass
class Rig:
    """A database, and what a test needs around it."""

    client: mongo.Client
    database: mongo.Database

    def store(self) -> MongoSuppressions:
        """One more copy's."""
        return MongoSuppressions(self.client, self.database, now_us)

    async def register(self, *tenants: Tenant) -> None:
        for one in tenants:
            await self.database[TENANTS_COLLECTION].replace_one({"_id": one.id}, one.to_document(), upsert=True)

    async def documents(self, collection: str, **query: Any) -> list[Document]:
        return await self.database[collection].find(query).sort("_id").to_list(None)

    async def rows(self) -> dict[str, Row]:
        """All rows by id, their positions left out: those depend on the order in which facts were heard."""
        return {one["_id"]: without_position(to_row(one)) for one in await self.row_documents()}

    async def row_documents(self) -> list[Document]:
        """Those of rows; others only keep what must be known if there ever will be one."""
        return [one for one in await self.documents(SUPPRESSIONS_COLLECTION) if is_row(one)]

    async def changes(self) -> list[Change]:
        return [to_change(one) for one in await self.documents(SUPPRESSION_CHANGES_COLLECTION)]

    async def facts(self) -> list[Fact]:
        return [to_fact(one) for one in await self.documents(SUPPRESSION_FACTS_COLLECTION)]

    async def check_if_any(self) -> None:
        """``check``, if anything was committed."""
        if await self.documents(SUPPRESSION_COUNTERS_COLLECTION):
            await self.check()

    async def check(self) -> None:
        """All that must hold of what is stored, whatever was committed."""
        facts, rows, changes = await self.facts(), await self.rows(), await self.changes()
        assert rows == folded(facts)
        assert [change.seq for change in changes] == list(range(1, len(changes) + 1))
        counters = {one["_id"]: one for one in await self.documents(SUPPRESSION_COUNTERS_COLLECTION)}
        assert counters["all"]["seq"] == len(changes)
        positions: dict[str, int] = {}
        latest: dict[str, Row] = {}
        for change in changes:
            registration = change.fact.address.registration
            assert change.row.key.address.registration == registration
            positions[registration] = positions.get(registration, 0) + 1
            assert change.position == change.row.position == positions[registration]
            latest[change.row.key.id] = change.row
        assert {one: counters[one]["position"] for one in positions} == positions
        stored = {one["_id"]: to_row(one) for one in await self.row_documents()}
        # What follows from the changes alone, as the copies know it.
        assert {one for one, row in latest.items() if row.active} == {one for one, row in stored.items() if row.active}
        assert {one: latest[one] for one in stored} == stored


def without_position(row: Row) -> Row:
    return replace(row, position=0)


def folded(facts: Sequence[Fact]) -> dict[str, Row]:
    """The rows that follow from ``facts``, by the rule itself."""
    about: dict[RowKey, list[Fact]] = defaultdict(list)
    for one in facts:
        for target in one.targets:
            about[RowKey(one.address, target.kind, target.scope)].append(one)
    made = {key.id: fold(key, some) for key, some in about.items()}
    return {one: row for one, row in made.items() if row is not None}
