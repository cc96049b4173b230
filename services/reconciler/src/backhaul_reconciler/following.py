"""A report as it grows, for whoever waits for its run to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from backhaul_common.errors import BackhaulError, Code

from backhaul_reconciler.model import Report, RunState

LOOK_S = 0.5
"""How often a report is looked at. A copy that knows nothing of who waits writes it, after every page."""

SILENCE_S = 10.0
"""How often it is told at least, so that nothing on the way takes a slow provider for a dead connection."""


class Reading(Protocol):
    """Where reports are read."""

    async def get(self, registration: str, report_id: str) -> Report | None:
        """One report; None where there is none of that id. UNAVAILABLE."""
        ...


class Following:
    """``clock`` counts seconds; ``look_s`` and ``silence_s`` are those above."""

    def __init__(
        self,
        reports: Reading,
        clock: Callable[[], float],
        *,
        look_s: float = LOOK_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._reports = reports
        self._clock = clock
        self._look_s = look_s
        self._silence_s = silence_s

    async def run(self, registration: str, report_id: str) -> AsyncGenerator[Report, None]:
        """The report now, whenever it has changed, and last as it is when its run has ended. UNAVAILABLE; NOT_FOUND
        where it is gone, since its tenant is."""
        told: Report | None = None
        told_at = self._clock()
        while True:
            report = await self.require(registration, report_id)
            if report != told or self._clock() - told_at >= self._silence_s:
                told, told_at = report, self._clock()
                yield report
            if report.state is not RunState.RUNNING:
                return
            await asyncio.sleep(self._look_s)

    async def require(self, registration: str, report_id: str) -> Report:
        """One report. NOT_FOUND; UNAVAILABLE."""
        report = await self._reports.get(registration, report_id)
        if report is None:
            raise BackhaulError(
                Code.NOT_FOUND,
                "There is no such report.",
                field="id",
                fix="Pass the id of a report as reports are listed. They are kept for 90 days.",
            )
        return report
