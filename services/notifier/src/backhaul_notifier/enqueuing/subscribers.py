"""The subscriptions in memory as whoever enqueues asks for them, and at which version of all they are known."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import NOTIFIER_POSITIONS_COLLECTION
from backhaul_common.revisioned import Directory

from backhaul_notifier.model import Subscription
from backhaul_notifier.subscriptions.writing import VERSION_ID


class Subscribers:
    """The subscriptions of each registration, without those that are deleted."""

    def __init__(self, database: mongo.Database, directory: Directory[Subscription]) -> None:
        self._positions = database[NOTIFIER_POSITIONS_COLLECTION]
        self._directory = directory
        self._by_registration: dict[str, dict[str, Subscription]] = {}
        self._registrations: dict[str, str] = {}
        self._refreshing = asyncio.Lock()
        self.version = -1
        """Everything that was written up to this version is known here, and perhaps more; -1: nothing was read yet."""
        directory.listen(self._changed)

    def of(self, registration: str) -> Collection[Subscription]:
        """Those of ``registration``."""
        found: Mapping[str, Subscription] | None = self._by_registration.get(registration)
        return found.values() if found is not None else ()

    @property
    def several(self) -> bool:
        """Whether more than one registration has any."""
        return len(self._by_registration) > 1

    async def refresh(self, seen: int) -> None:
        """Read what has changed, unless that was done since ``version`` was ``seen``. UNAVAILABLE."""
        async with self._refreshing:
            if self.version != seen:
                return
            async with mongo.operation():
                row = await self._positions.find_one({"_id": VERSION_ID}, {"version": 1})
            # In this order: what is written meanwhile may be read, and is not thought to be.
            await self._directory.refresh()
            self.version = version_of(row)

    def _changed(self, id_: str, subscription: Subscription | None) -> None:
        if (former := self._registrations.pop(id_, None)) is not None:
            of_former = self._by_registration[former]
            del of_former[id_]
            if not of_former:
                del self._by_registration[former]
        if subscription is not None and not subscription.deleted:
            self._registrations[id_] = subscription.registration
            self._by_registration.setdefault(subscription.registration, {})[id_] = subscription


def version_of(row: Document | None) -> int:
    """The version that the document says; 0 where no subscription was ever written."""
    return int(row["version"]) if row is not None else 0
