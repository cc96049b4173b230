"""Sessions of the console in MongoDB, for every copy of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from backhaul_common import mongo
from backhaul_common.errors import BackhaulError
from backhaul_common.names import CONSOLE_SESSIONS_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_console import StoreAwayError, Stored
from pymongo import ASCENDING, IndexModel

ANSWERS_S = 3.0
"""A person waits for it."""


class MongoSessionStore:
    """A document a session, which MongoDB deletes once it has expired."""

    def __init__(self, database: mongo.Database, store_format: StoreFormat) -> None:
        self._database = database
        self._sessions = database[CONSOLE_SESSIONS_COLLECTION]
        self._format = store_format

    async def prepare(self) -> None:
        """Create the indexes. Idempotent."""
        await self._format.ensure()
        ends = IndexModel([("expires_at", ASCENDING)], name="expires_at", expireAfterSeconds=0)
        owner = IndexModel([("owner", ASCENDING)], name="owner")
        await mongo.make_indexes(self._database, {CONSOLE_SESSIONS_COLLECTION: [ends, owner]})

    async def get(self, session_id: str) -> Stored | None:
        """As ``SessionStore``."""
        async with _answering():
            found = await self._sessions.find_one({"_id": session_id})
        if found is None:
            return None
        return Stored(
            id=found["_id"],
            sealed=bytes(found["sealed"]),
            owner=found["owner"],
            made_at=found["made_at"].timestamp(),
            expires_at=found["expires_at"].timestamp(),
        )

    async def put(self, session: Stored) -> None:
        """As ``SessionStore``."""
        document = {
            "sealed": session.sealed,
            "owner": session.owner,
            "made_at": datetime.fromtimestamp(session.made_at, UTC),
            "expires_at": datetime.fromtimestamp(session.expires_at, UTC),
        }
        async with _answering():
            await self._sessions.replace_one({"_id": session.id}, document, upsert=True)

    async def delete(self, session_id: str) -> None:
        """As ``SessionStore``."""
        async with _answering():
            await self._sessions.delete_one({"_id": session_id})

    async def delete_all_of(self, owner: str) -> None:
        """As ``SessionStore``."""
        async with _answering():
            await self._sessions.delete_many({"owner": owner})


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    try:
        async with mongo.operation(ANSWERS_S):
            yield
    except BackhaulError as exc:
        raise StoreAwayError from exc
