"""What working endpoints is counted by, and what is looked for now and then to be shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from backhaul_common import metrics as catalogue
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.metering import Metrics
from backhaul_common.names import DELIVERIES_COLLECTION, ENDPOINTS_COLLECTION
from backhaul_common.outages import Repeated, is_outage

from backhaul_notifier.door.outcome import Failure
from backhaul_notifier.model import Attempted, Subscription
from backhaul_notifier.schedules import LOST, UNRESOLVED, Outcome

WATCH_S: Final = 30.0
"""How often it is looked how much waits, and how it stands with all endpoints."""

MAX_WAITING: Final = 100_000
"""Deliveries that are counted."""

STANDINGS: Final = ("good", "failing", "resting", "stopped")
DOINGS: Final = ("working", "hanging", "resting")

_WORDS: Final = frozenset({*map(str, Failure), UNRESOLVED, LOST})
_GROUPS: Final = ("token_", "mail_")
_STATUSES: Final = 600


class Counts:
    """Made once in a process. What is no counter is set by whoever knows it."""

    def __init__(self, metrics: Metrics) -> None:
        self.ended = metrics.counter(catalogue.NOTIFIER_ENDED)
        self.held: Mapping[str, float] = dict.fromkeys(DOINGS, 0)
        self.calls = 0
        self.standings: Mapping[str, float] = dict.fromkeys(STANDINGS, 0)
        self.waiting = 0
        self.late_s = 0.0
        self.attempts = metrics.counter(catalogue.NOTIFIER_ATTEMPTS)
        self._attempt_s = metrics.histogram(catalogue.NOTIFIER_ATTEMPT_SECONDS)
        self._delay_s = metrics.histogram(catalogue.NOTIFIER_DELAY_SECONDS)
        metrics.gauges(catalogue.NOTIFIER_ENDPOINTS_HELD, lambda: self.held)
        metrics.gauges(catalogue.NOTIFIER_ENDPOINTS, lambda: self.standings)
        metrics.gauge(catalogue.NOTIFIER_CALLS, lambda: self.calls)
        metrics.gauge(catalogue.NOTIFIER_WAITING, lambda: self.waiting)
        metrics.gauge(catalogue.NOTIFIER_LATE_SECONDS, lambda: self.late_s)

    def sent(self, due_at_us: int, now_us: int) -> None:
        """What was due at ``due_at_us`` is sent."""
        self._delay_s.record(max(0.0, (now_us - due_at_us) / 1_000_000))

    def attempted(self, subscription: Subscription, attempted: Attempted) -> None:
        """An attempt has ended."""
        destination = subscription.definition.WhichOneof("destination") or "http"
        self.attempts.add(subscription.tenant, destination, word_of(attempted.outcome))
        if attempted.outcome.error != LOST:
            self._attempt_s.record(attempted.us / 1_000_000)


def word_of(outcome: Outcome) -> str:
    """One of few words, whatever an endpoint answers."""
    if outcome.ours:
        return "ours"
    if outcome.error:
        group = next((one for one in _GROUPS if outcome.error.startswith(one)), "")
        return outcome.error if outcome.error in _WORDS else group.rstrip("_") or "other"
    return f"{outcome.status // 100}xx" if HTTPStatus.CONTINUE <= outcome.status < _STATUSES else "other"


class Watching:
    """Looks at all endpoints and what waits, and sets what ``counts`` shows. ``now_us`` is the time."""

    def __init__(self, database: mongo.Database, counts: Counts, now_us: Callable[[], int]) -> None:
        self._database = database
        self._counts = counts
        self._now_us = now_us
        self._away = Repeated("endpoints_not_watched", component="working")

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
                self._away.over()
            except Exception as exc:
                if not is_outage(exc):
                    raise
                self._away.warning(repr(exc))
            await asyncio.sleep(WATCH_S)

    async def look(self) -> None:
        """Once. UNAVAILABLE."""
        now_us, counts = self._now_us(), self._counts
        rests = {"$gt": [{"$ifNull": ["$rest_until_us", 0]}, now_us]}
        free = {"$or": [{"$eq": [{"$ifNull": ["$owner", ""]}, ""]}, {"$lt": ["$until", "$$NOW"]}]}
        standing: Document = {
            "$switch": {
                "branches": [
                    {"case": {"$ne": ["$active", True]}, "then": "stopped"},
                    {"case": rests, "then": "resting"},
                    {"case": {"$gt": [{"$ifNull": ["$failing_since_us", 0]}, 0]}, "then": "failing"},
                ],
                "default": "good",
            }
        }
        due_us = {"$cond": [{"$and": [free, {"$not": [rests]}, "$active"]}, "$due_at_us", None]}
        group = {"$group": {"_id": standing, "number": {"$sum": 1}, "due_us": {"$min": due_us}}}
        async with mongo.operation():
            rows = await self._database[ENDPOINTS_COLLECTION].aggregate([group]).to_list(None)
            counts.waiting = await self._database[DELIVERIES_COLLECTION].count_documents(
                {"state": "waiting"}, limit=MAX_WAITING, hint=[("subscription", 1), ("order", 1)]
            )
        counts.standings = dict.fromkeys(STANDINGS, 0) | {row["_id"]: row["number"] for row in rows}
        first_us = min((row["due_us"] for row in rows if row["due_us"] is not None), default=now_us)
        counts.late_s = max(0.0, (now_us - first_us) / 1_000_000)
