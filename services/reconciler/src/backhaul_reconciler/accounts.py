"""Accounts at providers: each is asked by one copy at a time, under a lease, by budgets that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backhaul_common import mongo
from backhaul_common.leases import Lease, Leases
from backhaul_common.names import RECONCILED_ACCOUNTS_COLLECTION
from pymongo import IndexModel

INDEXES: Mapping[str, Sequence[IndexModel]] = {
    # Each key that a channel had leaves one. Of a channel that is asked it is renewed once a day at least.
    RECONCILED_ACCOUNTS_COLLECTION: [IndexModel("until", expireAfterSeconds=90 * 86_400)]
}


class Held(Lease):
    """An account that this copy holds."""

    __slots__ = ()

    @property
    def left(self) -> Mapping[str, Any] | None:
        """The budgets as they were when it was given back; None where nobody has, since whoever held it died."""
        left = self.row.get("left")
        return left["budgets"] if left and left["epoch"] == self.epoch - 1 else None

    @property
    def left_s(self) -> float:
        """How long before it was taken it was given back, in seconds."""
        left = self.row.get("left")
        return max(0.0, self.began_us / 1_000_000 - left["at"].timestamp()) if left else 0.0

    @property
    def not_before_us(self) -> int:
        """When the provider may be asked again, in unix time in microseconds; 0 where it may be now."""
        return int(self.row.get("not_before_us", 0))


class MongoAccounts(Leases[Held]):
    """``reconciled_accounts``."""

    def __init__(self, database: mongo.Database, owner: str) -> None:
        """See ``Leases``."""
        super().__init__(database, RECONCILED_ACCOUNTS_COLLECTION, owner, Held, makes=True)

    async def hand_over(self, held: Held, not_before_us: int, left: Mapping[str, Any]) -> None:
        """Let another copy have it at once, which goes on with its budgets as they are ``left`` now. What keeps the
        provider from being asked stays. UNAVAILABLE."""
        changes: dict[str, Any] = {"left": {"epoch": held.epoch, "at": "$$NOW", "budgets": {"$literal": left}}}
        if not_before_us:
            changes["not_before_us"] = not_before_us
        await self.give_back(held, changes)
