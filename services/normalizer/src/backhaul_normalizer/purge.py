"""All that is stored of a tenant: how much it is, and its end."""

from __future__ import annotations

import asyncio
import time

from backhaul_common import mongo
from backhaul_common.errors import BackhaulError
from backhaul_common.lifecycle import cancel
from backhaul_common.logs import get_logger
from backhaul_common.mongo import Document
from backhaul_common.names import (
    COMMUNICATIONS_COLLECTION,
    DEAD_LETTERS_COLLECTION,
    EVENTS_COLLECTION,
    MESSAGES_COLLECTION,
)

_FIRST_HEARD_OF = {
    EVENTS_COLLECTION: "received_at_us",
    MESSAGES_COLLECTION: "created_at_us",
    COMMUNICATIONS_COLLECTION: "created_at_us",
    DEAD_LETTERS_COLLECTION: "first_seen_at_us",
}

LINGER_S = 15.0
"""Longer than MongoDB lets a transaction live."""


class TenantData:
    """Counts and deletes a tenant's documents."""

    def __init__(self, database: mongo.Database, *, linger_s: float = LINGER_S) -> None:
        self._database = database
        self._linger_s = linger_s
        self._lingering: set[asyncio.Task[None]] = set()
        self._log = get_logger(component="purge")

    async def usage(self, registration: str) -> dict[str, int]:
        """How many documents of ``registration`` each collection holds."""
        async with mongo.translated():
            numbers = await asyncio.gather(
                *(self._database[name].count_documents({"registration": registration}) for name in _FIRST_HEARD_OF)
            )
        return dict(zip(_FIRST_HEARD_OF, numbers, strict=True))

    async def purge(self, registration: str) -> int:
        """Delete every document of ``registration``; how many there were.

        Another copy of the service may be about to commit what it took before it heard of the deletion. A while later,
        when that is over, what is older than the deletion is deleted once more; not what somebody brought who has the
        tenant's id by then.
        """
        began_us = time.time_ns() // 1000
        deleted = await self._delete(registration, {})
        task = asyncio.create_task(self._again(registration, began_us), name="purge_again")
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)
        return deleted

    async def lingered(self) -> None:
        """Returns when nothing is to be deleted once more."""
        if self._lingering:
            await asyncio.wait(self._lingering)

    async def close(self) -> None:
        """Give up what is still to be deleted once more."""
        for task in list(self._lingering):
            await cancel(task)

    async def _again(self, registration: str, before_us: int) -> None:
        await asyncio.sleep(self._linger_s)
        try:
            deleted = await self._delete(registration, {"$lt": before_us})
        except BackhaulError as exc:
            self._log.warning("not_purged_again", registration=registration, error=str(exc))
        else:
            if deleted:
                self._log.info("purged_again", registration=registration, documents=deleted)

    async def _delete(self, registration: str, when: Document) -> int:
        deleted = 0
        async with mongo.translated():
            for name, time_field in _FIRST_HEARD_OF.items():
                found = {"registration": registration, **({time_field: when} if when else {})}
                deleted += (await self._database[name].delete_many(found)).deleted_count
        return deleted
