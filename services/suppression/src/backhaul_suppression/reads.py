"""MongoDB, the reading side. Every query starts with the registration, and each has an index for its order."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from backhaul_common import mongo, pages
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import (
    SUPPRESSION_CHANGES_COLLECTION,
    SUPPRESSION_FACTS_COLLECTION,
    SUPPRESSIONS_COLLECTION,
)
from pymongo import ASCENDING, DESCENDING

from backhaul_suppression.documents import is_row, to_change, to_fact, to_row
from backhaul_suppression.model import Address, Change, Fact, Family, Kind, Row, RowKey
from backhaul_suppression.ports import RowsQuery

MAX_ROWS_OF_ADDRESS = 1000
"""Rows of one address that are answered. Only scopes can be so many: senders, services and groups."""

MAX_READ_S = 4.0
"""A page ends on the server after this. Filters by origin look at every row of the kinds that are asked for."""

EXPORTED = 500
"""Rows that an export reads at once. The event loop stands still while they become lines: a few milliseconds."""

_CHANGE_TOKEN = re.compile(r"[1-9]\d{0,17}")


class MongoReads:
    """``Reads``."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database

    async def fact(self, registration: str, fact_id: str) -> Fact | None:
        """See ``Reads``."""
        async with mongo.operation():
            found = await self._database[SUPPRESSION_FACTS_COLLECTION].find_one(
                {"_id": fact_id, "registration": registration}
            )
        return to_fact(found) if found is not None else None

    async def facts(self, registration: str, fact_ids: Collection[str]) -> Mapping[str, Fact]:
        """See ``Reads``."""
        condition = {"_id": {"$in": list(fact_ids)}, "registration": registration}
        async with mongo.operation():
            documents = await self._database[SUPPRESSION_FACTS_COLLECTION].find(condition).to_list(None)
        return {document["_id"]: to_fact(document) for document in documents}

    async def row(self, key: RowKey) -> Row | None:
        """See ``Reads``."""
        condition = {"_id": key.id, "registration": key.address.registration}
        async with mongo.operation():
            found = await self._database[SUPPRESSIONS_COLLECTION].find_one(condition)
        return to_row(found) if found is not None and is_row(found) else None

    async def rows_of(self, address: Address) -> Sequence[Row]:
        """See ``Reads``. ``MAX_ROWS_OF_ADDRESS`` at most."""
        async with mongo.operation():
            found = self._database[SUPPRESSIONS_COLLECTION].find(_of(address), limit=MAX_ROWS_OF_ADDRESS)
            documents = await found.to_list(None)
        rows = [to_row(document) for document in documents if is_row(document)]
        return sorted(rows, key=lambda row: (_KINDS.index(row.key.kind), row.key.scope))

    async def history_of(self, address: Address, size: int, token: str) -> tuple[Sequence[Change], str]:
        """See ``Reads``."""
        condition = _of(address)
        if token:
            if not _CHANGE_TOKEN.fullmatch(token):
                raise BackhaulError(
                    Code.INVALID_ARGUMENT,
                    "The page token is not one that an earlier page gave.",
                    field="page_token",
                    fix="Pass next_page_token of the page before, unchanged, or none to begin.",
                )
            condition["_id"] = {"$lt": int(token)}
        rows = pages.Query(SUPPRESSION_CHANGES_COLLECTION, "_id", address.registration, size=size).rows()
        documents, more = await self._first(SUPPRESSION_CHANGES_COLLECTION, condition, [("_id", DESCENDING)], rows)
        return [to_change(one) for one in documents], str(documents[-1]["_id"]) if more else ""

    async def rows(self, registration: str, query: RowsQuery) -> tuple[Sequence[Row], str]:
        """See ``Reads``. DEADLINE_EXCEEDED after ``MAX_READ_S``."""
        filters: dict[str, Any] = {"origin": query.origin and query.origin.value}
        if query.scope is not None:
            filters |= {"scope_kind": query.scope.kind.value, "scope": query.scope.id}
        only = {
            "family": {"$in": [query.family.value] if query.family is not None else [one.value for one in Family]},
            "kind": {"$in": [query.kind.value] if query.kind is not None else [one.value for one in Kind]},
            "active": {"$in": [query.active] if query.active is not None else [True, False]},
        }
        asked = pages.Query(
            SUPPRESSIONS_COLLECTION,
            "recorded_at_us",
            registration,
            filters=filters,
            span=query.span,
            size=query.size,
            token=query.token,
            only=only,
        )
        try:
            documents, token = await pages.page(self._database, asked, within_s=MAX_READ_S)
        except pages.TooLongError as exc:
            raise _too_long() from exc
        return [to_row(document) for document in documents], token

    async def changes_after(self, registration: str, position: int, limit: int) -> Sequence[Change]:
        """See ``Reads``."""
        documents, _ = await self._first(
            SUPPRESSION_CHANGES_COLLECTION,
            {"registration": registration, "position": {"$gt": position}},
            [("position", ASCENDING)],
            limit,
        )
        return [to_change(document) for document in documents]

    async def last_position(self, registration: str) -> int:
        """See ``Reads``."""
        newest = [("position", DESCENDING)]
        async with mongo.operation():
            found = await self._database[SUPPRESSION_CHANGES_COLLECTION].find_one(
                {"registration": registration}, {"position": 1}, sort=newest
            )
        return int(found["position"]) if found is not None else 0

    async def exported(self, registration: str, query: RowsQuery) -> AsyncIterator[Sequence[Row]]:
        """See ``Reads``."""
        families = [query.family] if query.family is not None else list(Family)
        for family in families:
            condition: Document = {"registration": registration, "family": family.value}
            order = [("address", ASCENDING), ("_id", ASCENDING)]
            behind: Document = {}
            while True:
                async with mongo.operation():
                    found = self._database[SUPPRESSIONS_COLLECTION].find({**condition, **behind}, sort=order)
                    documents = await found.limit(EXPORTED).to_list(None)
                if not documents:
                    break
                # What does not fit is left out here: the database would look for the next that fits for any time.
                yield [to_row(document) for document in documents if _fits(document, query)]
                address, row_id = documents[-1]["address"], documents[-1]["_id"]
                later: list[Document] = [{"address": {"$gt": address}}, {"_id": {"$gt": row_id}}]
                behind = {"address": {"$gte": address}, "$or": later}

    async def _first(
        self, collection: str, condition: Document, order: Sequence[tuple[str, int]], size: int
    ) -> tuple[list[Document], bool]:
        try:
            return await pages.first(self._database, collection, condition, order, size, within_s=MAX_READ_S)
        except pages.TooLongError as exc:
            raise _too_long() from exc


_KINDS = list(Kind)


def _of(address: Address) -> Document:
    return {"registration": address.registration, "family": address.family.value, "address": address.text}


def _fits(document: Mapping[str, Any], query: RowsQuery) -> bool:
    return (
        is_row(document)
        and query.kind in {None, document["kind"]}
        and query.origin in {None, document["origin"]}
        and query.active in {None, document["active"]}
        and (query.scope is None or (query.scope.kind, query.scope.id) == (document["scope_kind"], document["scope"]))
    )


def _too_long() -> BackhaulError:
    return BackhaulError(
        Code.DEADLINE_EXCEEDED,
        f"Not enough was found within {MAX_READ_S:g} s: few rows fit the filters, of many to look at.",
        field="from",
        fix="Narrow the span with from and to, or filter by family and kind, which are indexed.",
    )
