"""What all endpoints of a process are worked with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backhaul_common import mongo
from backhaul_common.outages import Repeated

from backhaul_notifier.holding.holding import Holding
from backhaul_notifier.ports import Communications, Subscriptions
from backhaul_notifier.working.attempts import Attempts
from backhaul_notifier.working.counts import Counts
from backhaul_notifier.working.endpoints import MongoEndpoints
from backhaul_notifier.working.results import Results
from backhaul_notifier.working.shares import Shares
from backhaul_notifier.working.weight import Memory


@dataclass(slots=True)
class Parts:
    """What every endpoint of a process is worked with. ``now_us`` is the time by MongoDB's clock, ``days`` for how long
    a registration keeps what has ended, ``chance`` a number from 0 up to 1, ``pause_after_us`` for how long an endpoint
    fails before its subscription is paused. ``crowded``: others have no place."""

    database: mongo.Database
    endpoints: MongoEndpoints
    attempts: Attempts
    subscriptions: Subscriptions
    communications: Communications
    holding: Holding
    results: Results
    shares: Shares
    memory: Memory
    counts: Counts
    now_us: Callable[[], int]
    days: Callable[[str], float]
    chance: Callable[[], float]
    pause_after_us: int
    hold_s: float
    away: Repeated
    crowded: bool = False
