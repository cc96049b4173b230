"""Long work in the event loop gives the loop to others now and then."""

from __future__ import annotations

import asyncio
import time


class Turn:
    """Long work asks it between its steps, none of which should take as long as ``most_s``. It then rests for ``rest``
    times as long as it has worked."""

    def __init__(self, most_s: float, rest: float = 0.0) -> None:
        self._most_s = most_s
        self._rest = rest
        self._began = time.perf_counter()
        self.away_s = 0.0
        """For how long others had the loop in all."""

    async def over(self) -> None:
        """Let others have the loop if it was kept for longer than ``most_s``."""
        worked_s = time.perf_counter() - self._began
        if worked_s > self._most_s:
            left_at = time.perf_counter()
            await asyncio.sleep(worked_s * self._rest)
            self._began = time.perf_counter()
            self.away_s += self._began - left_at
