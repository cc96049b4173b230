"""Sealed files in MongoDB, the reading side. Every query starts with the registration, or with a chain's."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from backhaul_common import mongo, pages
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import AUDIT_CONTENTS_COLLECTION, AUDIT_FILES_COLLECTION
from backhaul_digests.model import ChainKey
from pymongo import ASCENDING, DESCENDING

from backhaul_audit.books import holding
from backhaul_audit.documents import SEALED, to_sealed
from backhaul_audit.model import SealedFile
from backhaul_audit.ports import FilesQuery, Held, Holding

MAX_READ_S = 4.0
"""A page ends on the server after this."""

MAX_PROOF_S = 10.0
"""For how long a tenant's files are looked through for an event: some 100 million events."""

CLOCKS_US = 3_600_000_000
"""How far clocks of copies may differ: events arrive by one's, and files are sealed by another's."""

_CONTENTS_AT_ONCE = 8
_ID = re.compile(r"[0-9a-f]{32}")


class MongoFiles:
    """``Files``."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database

    async def page(self, registration: str, query: FilesQuery) -> tuple[Sequence[SealedFile], str]:
        """See ``Files``. DEADLINE_EXCEEDED after ``MAX_READ_S``."""
        only: dict[str, Any] = {"state": SEALED}
        if query.span[0]:
            only["last_at_us"] = {"$gte": query.span[0]}
        if query.span[1]:
            only["first_at_us"] = {"$lt": query.span[1]}
        asked = pages.Query(
            AUDIT_FILES_COLLECTION,
            "sealed_at_us",
            registration,
            filters={"channel": query.channel, "chain": query.chain and query.chain.value},
            size=query.size,
            token=query.token,
            only=only,
            # No file is older than its events, so none before need be looked at.
            span=(max(1, query.span[0] - CLOCKS_US), 0) if query.span[0] else (0, 0),
        )
        try:
            rows, token = await pages.page(self._database, asked, within_s=MAX_READ_S)
        except pages.TooLongError as exc:
            raise BackhaulError(
                Code.DEADLINE_EXCEEDED,
                f"Not enough was found within {MAX_READ_S:g} s: few files fit the filters, of many to look at.",
                field="channel",
                fix="Filter by a channel, which is indexed, or ask for fewer.",
            ) from exc
        return [to_sealed(row) for row in rows], token

    async def get(self, registration: str, file_id: str) -> SealedFile | None:
        """See ``Files``."""
        query = {"_id": file_id, "registration": registration, "state": SEALED}
        async with mongo.operation():
            row = await self._database[AUDIT_FILES_COLLECTION].find_one(query)
        return to_sealed(row) if row is not None else None

    async def holding(self, registration: str, event_id: str) -> Holding:
        """See ``Files``. All the tenant's files are looked through, the latest first: DEADLINE_EXCEEDED after
        ``MAX_PROOF_S``."""
        if not _ID.fullmatch(event_id):
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "An event's id is 32 lower-case hex digits.",
                field="event_id",
                fix="Pass the id of an event as it is listed.",
            )
        ends = time.monotonic() + MAX_PROOF_S
        places: dict[str, Any] = {}
        unknown = 0
        async with mongo.operation(MAX_PROOF_S):
            cursor = self._database[AUDIT_CONTENTS_COLLECTION].find(
                {"registration": registration},
                {"ids": 1, "revisions": 1},
                sort=[("last_at_us", DESCENDING)],
                batch_size=_CONTENTS_AT_ONCE,
            )
            async for row in cursor:
                if found := holding(row, event_id):
                    places[row["_id"]] = found
                unknown += not row["ids"]
                if time.monotonic() > ends:
                    raise BackhaulError(
                        Code.DEADLINE_EXCEEDED,
                        f"The tenant's files could not be looked through within {MAX_PROOF_S:g} s.",
                        field="event_id",
                        fix="Look the event up in the files of the day on which it arrived.",
                    )
            query = {"_id": {"$in": list(places)}, "registration": registration, "state": SEALED}
            rows = await self._database[AUDIT_FILES_COLLECTION].find(query).to_list(None)
        held = [
            Held(to_sealed(row), event.revision, place) for row in rows for event, place in places[row["_id"]].items()
        ]
        return Holding(sorted(held, key=lambda one: one.revision), unknown)

    async def plain_channels(self, registration: str) -> Sequence[str]:
        """See ``Files``. One look at an index for each."""
        found: set[str] = set()
        async with mongo.operation():
            # Files of before there was encryption say nothing of it.
            for encrypted in (False, None):
                query = {"registration": registration, "encrypted": encrypted, "deleted_at_us": 0}
                after = ""
                while row := await self._database[AUDIT_FILES_COLLECTION].find_one(
                    {**query, "channel": {"$gt": after}}, {"channel": 1}, sort=[("channel", ASCENDING)]
                ):
                    after = row["channel"]
                    found.add(after)
        return sorted(found)

    async def since(self, of: ChainKey, number: int, most: int) -> Sequence[SealedFile]:
        """See ``Files``."""
        query = {"registration": of.registration, "chain": of.chain.value, "number": {"$gt": number}}
        async with mongo.operation():
            found = self._database[AUDIT_FILES_COLLECTION].find(query, sort=[("number", ASCENDING)], limit=most)
            return [to_sealed(row) for row in await found.to_list(None)]
