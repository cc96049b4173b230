"""Calls that take a file: as many at once as there are places for, each as slow as ``Pace`` bears."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar

from backhaul_common.lines.pace import MAX_SILENCE_S, Pace
from backhaul_common.lines.pieces import Pieces, Request
from backhaul_common.places import Places


class Progress(Protocol):
    """How far a call is. ``errors`` is the next piece of the file of errors."""

    @property
    def errors(self) -> bytes: ...


Told = TypeVar("Told", bound=Progress)


class FileCalls:
    """``what`` names the calls where there are too many: ``of_tenant`` at once for one tenant, ``of_all`` for all."""

    def __init__(
        self,
        what: str,
        *,
        of_tenant: int,
        of_all: int,
        max_silence_s: float = MAX_SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = Places(what, of_tenant=of_tenant, of_all=of_all)
        self._max_silence_s = max_silence_s
        self._clock = clock

    async def run(
        self,
        registration: str,
        first: Request,
        others: AsyncIterator[Request],
        work: Callable[[Pieces], AsyncGenerator[Told, None]],
    ) -> AsyncGenerator[Told, None]:
        """What ``work`` tells while it reads the pieces that ``first`` and ``others`` bring.

        RATE_LIMITED where there are too many already; DEADLINE_EXCEEDED where the caller is slower than ``Pace`` bears;
        what ``work`` raises.
        """
        with self._places.taken(registration):
            pace = Pace(self._clock, self._max_silence_s)
            async with aclosing(work(Pieces(first, others, pace))) as told:
                async for progress in told:
                    with pace.waiting():
                        yield progress
                    pace.moved(len(progress.errors))
