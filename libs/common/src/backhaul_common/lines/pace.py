"""How slow whoever sends a file may be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from backhaul_common.errors import BackhaulError, Code

T = TypeVar("T")

MAX_SILENCE_S = 60.0
"""So long a call waits in vain for its caller: it keeps a place from others."""

SLOWEST_BYTES_PER_S = 4 << 10
"""What is moved gives back a second of that for each so many bytes. Whoever is faster may take as long as they like, as
with the bodies that the gateway passes on; whoever trickles has the silence that all have, and little more."""


class Pace:
    """How long a call has waited for its caller, against what was moved since.

    Its own work does not count: recording takes the time that it takes. ``clock`` is in seconds, and never goes back.
    """

    def __init__(self, clock: Callable[[], float], max_silence_s: float = MAX_SILENCE_S) -> None:
        self._clock = clock
        self._max_silence_s = max_silence_s
        self._left_s = max_silence_s

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait for the caller."""
        began = self._clock()
        try:
            yield
        finally:
            self._left_s -= self._clock() - began

    def moved(self, size: int) -> None:
        """The caller sent or took so many bytes. A large piece is no leave to be silent for longer than the others."""
        self._left_s = min(self._max_silence_s, self._left_s + size / SLOWEST_BYTES_PER_S)

    async def bounded(self, wait: Callable[[], Awaitable[T]]) -> T:
        """What ``wait`` brings of the caller. DEADLINE_EXCEEDED where it is too slow."""
        if self._left_s <= 0:
            raise self._too_slow()
        try:
            async with asyncio.timeout(self._left_s):
                with self.waiting():
                    return await wait()
        except TimeoutError:
            raise self._too_slow() from None

    def _too_slow(self) -> BackhaulError:
        return BackhaulError(
            Code.DEADLINE_EXCEEDED,
            f"Fewer than {SLOWEST_BYTES_PER_S} bytes a second came, for longer than {self._max_silence_s:g} s.",
            fix="Send the file again, faster, in pieces that each come within seconds. What is recorded stays so, and "
            "changes nothing a second time.",
        )
