"""The number of the format that a database is stored in; a service refuses one that it does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pymongo.errors import DuplicateKeyError

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.mongo import Database, operation
from backhaul_common.names import META_COLLECTION, STORE_COLLECTIONS
from backhaul_common.pauses import pauses

STORE_FORMAT = 6
"""Grows with every change of what is stored that the version before could not read, or would damage.

1 had no number. In 2 a tenant has a registration, and what is stored of a tenant names it. In 3 the trust
of whoever told a message's further name has one more grade. In 4 events that happen to a message once have ids of
their message and kind. In 5 a message says when it was sent and between which two, by which replies find it.
In 6 events lie in buckets, and messages refer to them.
"""

_ID = "format"


class StoreFormat:
    """The format of one database, looked up before anything else is read or written there.

    An empty database is given this version's number. The number is written before any collection of Backhaul's is
    made, and by one insert: of services that start on an empty database at the same time, one writes it and the others
    find it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known = False
        self._known_at_last = asyncio.Event()
        self._log = get_logger(component="store_format")

    async def ensure(self) -> None:
        """Return when the database is of this version's format.

        FAILED_PRECONDITION when it is of another; UNAVAILABLE when MongoDB is away. Asks once: a format that was found
        right stays so.
        """
        if self._known:
            return
        async with operation():
            await self._look()
        self._known = True
        self._known_at_last.set()

    async def then(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do ``work`` when the database is of this version's format, however long that takes. See ``run``."""
        await self._known_at_last.wait()
        await work()

    async def run(self) -> None:
        """Ask until the format is right; then return. Each reason why it is not is logged once."""
        said = ""
        for pause_s in pauses():
            try:
                await self.ensure()
            except Exception as exc:  # noqa: BLE001  # a database may be away in any way; each is logged and tried again
                if str(exc) != said:
                    said = str(exc)
                    refused = isinstance(exc, BackhaulError) and not exc.meaning.retryable
                    (self._log.error if refused else self._log.warning)("store_not_usable", reason=said)
            else:
                return
            # It may become right by itself: MongoDB comes back, or somebody drops the database.
            await asyncio.sleep(pause_s)

    async def _look(self) -> None:
        found = await self._number()
        if found is None:
            # In this order: whoever made the collections of a new database wrote the number before.
            present = STORE_COLLECTIONS.intersection(await self._database.list_collection_names())
            found = await self._number()
            if found is None and present:
                raise self._refusal("has no format number, so an older version of Backhaul wrote it")
            if found is None:
                try:
                    await self._database[META_COLLECTION].insert_one({"_id": _ID, "number": STORE_FORMAT})
                except DuplicateKeyError:
                    found = await self._number()
                else:
                    found = STORE_FORMAT
        if found != STORE_FORMAT:
            raise self._refusal(f"has the format number {found!r}")

    async def _number(self) -> object:
        document = await self._database[META_COLLECTION].find_one({"_id": _ID})
        return document.get("number", "") if document is not None else None

    def _refusal(self, what: str) -> BackhaulError:
        return BackhaulError(
            Code.FAILED_PRECONDITION,
            f"The database {self._database.name!r} {what}; this version reads and writes format {STORE_FORMAT} only. "
            "Nothing was changed in it.",
            field="BACKHAUL_MONGO_DATABASE",
            fix="Name a database that does not exist yet, or run the version that wrote this one. Of the stack of "
            "`make up`, `make clean` removes the data.",
        )
