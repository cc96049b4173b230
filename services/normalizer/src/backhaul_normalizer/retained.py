"""Since when a tenant's events are all there, as far as its retention goes."""

from __future__ import annotations

from collections.abc import Callable

from backhaul_common import mongo
from backhaul_common.names import RETENTION_COLLECTION
from backhaul_common.tenants import Tenant

from backhaul_normalizer.model import DAY_US


class Retained:
    """Answers from memory: no read waits for it. What another copy has ended is known here when this one looks next."""

    def __init__(self, database: mongo.Database, now_us: Callable[[], int]) -> None:
        self._database = database
        self._now_us = now_us
        self._ended: dict[str, int] = {}

    async def load(self) -> None:
        """Learn what was ended so far. UNAVAILABLE."""
        ended: dict[str, int] = {}
        async with mongo.operation(mongo.PATIENT_S):
            async for row in self._database[RETENTION_COLLECTION].find({}, {"registration": 1, "events_before_us": 1}):
                ended[row["registration"]] = row.get("events_before_us", 0)
        self._ended = ended

    def since_us(self, tenant: Tenant) -> int:
        """Of what arrived before that, some events may be gone; 0 where none can be.

        Days that were fewer once, or are set no longer, count as well: what went then does not come back.
        """
        days = tenant.retention.event_retention_days
        due_us = self._now_us() - days * DAY_US if days is not None else 0
        return max(0, due_us, self._ended.get(tenant.registration, 0))
