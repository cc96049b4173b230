"""The log of changes in MongoDB."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from backhaul_common import changestore, fence, mongo, pages
from backhaul_common.changelog import Begun
from backhaul_common.changestore import MongoChanges
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.mongo import Session, ThreadDatabase
from backhaul_common.names import CHANGES_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import MongoTenantData
from pymongo import ASCENDING, DESCENDING, IndexModel

from backhaul_gateway.admission.refusals import DELETING

PAGE_S = 5.0
"""How long a page is looked for."""

_NEWEST = [("_id", DESCENDING)]
_MS_AT = 20
"""Hex digits of an id behind its milliseconds."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are asked for. What is empty, or 0, filters nothing; times are in microseconds. Of a
    ``registration``, what was changed of it by anybody."""

    registration: str = ""
    tenant_id: str = ""
    author: str = ""
    action: str = ""
    application: str = ""
    from_us: int = 0
    to_us: int = 0
    size: int = 50
    token: str = ""

    def condition(self) -> Document:
        """What MongoDB is asked. INVALID_ARGUMENT names ``page_token``."""
        same = {
            "of": self.registration,
            "tenant_id": self.tenant_id,
            "author": self.author,
            "action": self.action,
            "application": self.application,
        }
        conditions: list[Document] = [{name: value for name, value in same.items() if value}]
        if self.from_us:
            conditions.append({"_id": {"$gte": _first_id(self.from_us)}})
        if self.to_us:
            conditions.append({"_id": {"$lt": _first_id(self.to_us)}})
        if self.token:
            conditions.append({"_id": {"$lt": pages.position_in(self.token)[1]}})
        return {"$and": conditions}


class MongoChangeStore(MongoChanges):
    """The log as the gateway writes and reads it. What a tenant itself changes has its ``registration``, and goes with
    it."""

    def __init__(self, database: mongo.Database, store_format: StoreFormat, *, days: int) -> None:
        """See ``MongoChanges``."""
        super().__init__(database, store_format, days=days)
        self._own = MongoTenantData(database, store_format, collections=[CHANGES_COLLECTION], counted=[])

    async def prepare(self) -> None:
        """Create the indexes. Idempotent."""
        await self._format.ensure()
        by = [
            IndexModel([(name, ASCENDING), ("_id", DESCENDING)], name=f"{name}_newest")
            for name in ("of", "tenant_id", "author")
        ]
        part = IndexModel([("application", ASCENDING), ("_id", DESCENDING)], name="application_newest", sparse=True)
        own = IndexModel([("registration", ASCENDING)], name="registration", sparse=True)
        ends = IndexModel([("ends_at", ASCENDING)], name="ends_at", expireAfterSeconds=0)
        await mongo.make_indexes(self._database, {CHANGES_COLLECTION: [*by, part, own, ends]})

    async def _insert(self, begun: Begun, entry: Document) -> None:
        if not begun.own:
            await super()._insert(begun, entry)
            return
        own = {**entry, "registration": begun.registration}

        def insert(database: ThreadDatabase, session: Session) -> None:
            # However late this comes about, what the tenant's deletion has deleted stays so.
            lives = fence.living(database, session, [begun.tenant_id]).get(begun.tenant_id)
            if lives is None or lives.registration != begun.registration:
                raise BackhaulError(Code.FORBIDDEN, DELETING, field="Authorization", fix="Stop calling.")
            database[CHANGES_COLLECTION].insert_one(own, session=session)

        async with mongo.translated():
            await mongo.in_transaction(self._database, insert, within_s=changestore.BEGIN_S)

    async def page(self, wanted: Wanted) -> tuple[list[Document], str]:
        """Entries, newest first, and the token of the next page, empty on the last. INVALID_ARGUMENT names
        ``page_token``; DEADLINE_EXCEEDED; UNAVAILABLE."""
        await self._format.ensure()
        try:
            rows, more = await pages.first(
                self._database, CHANGES_COLLECTION, wanted.condition(), _NEWEST, wanted.size, within_s=PAGE_S
            )
        except pages.TooLongError as exc:
            raise BackhaulError(
                Code.DEADLINE_EXCEEDED,
                "Too many changes were looked at for so few that are asked for.",
                fix="Ask for a shorter span of time, or by tenant or author.",
            ) from exc
        if not more:
            return rows, ""
        last = rows[-1]
        return rows, pages.token_of(_microseconds(last["at"]), last["_id"])

    async def purge(self, tenant_id: str, registration: str) -> None:
        """Delete what the tenant itself has changed. Idempotent; FAILED_PRECONDITION while the tenant lives,
        UNAVAILABLE where more is left."""
        await self._own.purge(tenant_id, registration)


def _first_id(at_us: int) -> str:
    """The least id of that time or later."""
    return f"{-(-at_us // 1000):012x}" + "0" * _MS_AT


def _microseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000) * 1000
