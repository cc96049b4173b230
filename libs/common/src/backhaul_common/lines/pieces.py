"""A file that comes in the requests of a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lines.pace import Pace

MAX_PIECE_BYTES = 1 << 20


class Request(Protocol):
    """Brings a piece, and says whether it is the last one."""

    data: bytes
    last: bool


class Pieces:
    """A file in pieces, ``first`` before ``others``. ``whole`` tells whether its end was told of: to a server, a call
    that is given up looks like one whose requests are over."""

    def __init__(self, first: Request, others: AsyncIterator[Request], pace: Pace) -> None:
        self._first = first
        self._others = others
        self._pace = pace
        self.whole = False

    async def read(self) -> AsyncIterator[bytes]:
        """The pieces. DEADLINE_EXCEEDED where they come too slowly, INVALID_ARGUMENT for one that is too large."""
        request = self._first
        while True:
            yield _data(request)
            if request.last:
                self.whole = True
                return
            try:
                request = await self._pace.bounded(self._others.__anext__)
            except StopAsyncIteration:
                return
            self._pace.moved(len(request.data))


def _data(request: Request) -> bytes:
    if len(request.data) > MAX_PIECE_BYTES:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"A piece has {MAX_PIECE_BYTES} bytes at most.",
            field="data",
            fix="Send the file in more pieces; they may be cut anywhere.",
        )
    return request.data
