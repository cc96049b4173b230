"""Long work in the event loop gives the loop to others now and then."""

from __future__ import annotations

import asyncio
import time


class Turn:
    """Long work asks it between its steps, none of which should take as long as ``most_s``."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._began = time.perf_counter()

    async def over(self) -> None:
        """Let others have the loop if it was kept for longer than ``most_s``."""
        if time.perf_counter() - self._began > self._most_s:
            await asyncio.sleep(0)
            self._began = time.perf_counter()
