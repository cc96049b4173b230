"""Answers as responses, written in turns so that no callback waits for a reader's."""

from __future__ import annotations

from fastapi import Response

from backhaul_gateway.twins.turns import Steps, T, Turns
from backhaul_gateway.twins.twin import Row, Twin


class Writer:
    """Writes one answer at a time, whoever's it is. Belongs to one event loop."""

    def __init__(self) -> None:
        self._turns = Turns()

    async def written(self, twin: Twin[Row], answer: Row, status: int = 200) -> Response:
        """``answer`` as JSON."""
        return await self.written_by(twin.json(answer), status)

    async def written_by(self, steps: Steps[bytes], status: int = 200) -> Response:
        """The JSON that ``steps`` make."""
        return Response(await self.run(steps), status, media_type="application/json")

    async def run(self, steps: Steps[T]) -> T:
        """What ``steps`` make, likewise."""
        return await self._turns.run(steps)
