"""The time by MongoDB's clock, which is the one clock that all copies have."""

from __future__ import annotations

import time
from collections.abc import Callable

from backhaul_common import mongo


class ServerClock:
    """The time in unix time in microseconds; between two looks at MongoDB's as even as the process' own. This machine's
    until the first."""

    def __init__(self, database: mongo.Database, even: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._even = even
        self._ahead_us = time.time_ns() // 1000 - int(even() * 1_000_000)

    def now_us(self) -> int:
        """The time."""
        return int(self._even() * 1_000_000) + self._ahead_us

    async def set(self) -> None:
        """Ask MongoDB. UNAVAILABLE."""
        async with mongo.operation():
            row = await self._database.command("hello")
        self._ahead_us = int(row["localTime"].timestamp() * 1_000_000) - int(self._even() * 1_000_000)
