"""Sessions of the console in MongoDB, for every copy of the gateway."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from backhaul_common import mongo
from backhaul_common.errors import BackhaulError
from backhaul_common.limits import TokenBucket
from backhaul_common.names import CONSOLE_SESSIONS_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_console import StoreAwayError, Stored
from pymongo import ASCENDING, IndexModel

SESSION = "a session of the console"
"""For what the ring is that seals sessions."""
ANSWERS_S = 3.0
"""A person waits for it."""
UNKNOWN_PER_SECOND = 100.0
UNKNOWN_AT_ONCE = 200
"""How often MongoDB is asked for sessions that this copy has not met: anybody can make cookies up."""
MAX_KNOWN = 16384
"""Sessions that are asked for at any time, the latest."""


class MongoSessionStore:
    """A document a session, which MongoDB deletes once it has expired."""

    def __init__(
        self, database: mongo.Database, store_format: StoreFormat, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._sessions = database[CONSOLE_SESSIONS_COLLECTION]
        self._format = store_format
        self._unknown = TokenBucket(UNKNOWN_PER_SECOND, UNKNOWN_AT_ONCE, clock)
        self._known: OrderedDict[str, None] = OrderedDict()

    async def prepare(self) -> None:
        """Create the indexes. Idempotent."""
        await self._format.ensure()
        ends = IndexModel([("expires_at", ASCENDING)], name="expires_at", expireAfterSeconds=0)
        owner = IndexModel([("owner", ASCENDING)], name="owner")
        await mongo.make_indexes(self._database, {CONSOLE_SESSIONS_COLLECTION: [ends, owner]})

    async def get(self, session_id: str) -> Stored | None:
        """As ``SessionStore``. Strangers who ask for many keep nobody waiting whose session was met before."""
        if session_id not in self._known and self._unknown.take():
            raise StoreAwayError
        async with _answering():
            found = await self._sessions.find_one({"_id": session_id})
        if found is None:
            self._known.pop(session_id, None)
            return None
        self._met(session_id)
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
            "_id": session.id,
            "sealed": session.sealed,
            "owner": session.owner,
            "made_at": datetime.fromtimestamp(session.made_at, UTC),
            "expires_at": datetime.fromtimestamp(session.expires_at, UTC),
        }
        async with _answering():
            await self._sessions.insert_one(document)
        self._met(session.id)

    async def leave(self, session_id: str, until: float) -> bool:
        """As ``SessionStore``."""
        ends = {"left": True, "expires_at": datetime.fromtimestamp(until, UTC)}
        async with _answering():
            done = await self._sessions.update_one(_unless_left(session_id), {"$set": ends})
        return done.matched_count == 1

    async def take(self, session_id: str) -> bool:
        """As ``SessionStore``."""
        async with _answering():
            done = await self._sessions.delete_one(_unless_left(session_id))
        return done.deleted_count == 1

    async def delete(self, session_id: str) -> None:
        """As ``SessionStore``."""
        async with _answering():
            await self._sessions.delete_one({"_id": session_id})

    async def delete_all_of(self, owner: str) -> None:
        """As ``SessionStore``."""
        async with _answering():
            await self._sessions.delete_many({"owner": owner})

    def _met(self, session_id: str) -> None:
        self._known[session_id] = None
        self._known.move_to_end(session_id)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


def _unless_left(session_id: str) -> dict[str, Any]:
    return {"_id": session_id, "left": {"$ne": True}}


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    try:
        async with mongo.operation(ANSWERS_S):
            yield
    except BackhaulError as exc:
        raise StoreAwayError from exc
