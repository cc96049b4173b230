"""Work that takes long, done in the event loop in short turns, so that callbacks never wait for a reader's answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]
"""Work that stops for a moment wherever it yields. No step should take longer than a millisecond or two."""

TURN_S = 0.001
"""How long one turn takes. Callbacks that arrive meanwhile wait for its end, and for no other turn."""


class Turns:
    """Gives one turn at a time, to whoever has waited longest.

    A thread would not do: encoding holds the interpreter's lock, and the loop would wait five milliseconds for it
    each time that it wakes.
    """

    def __init__(self, turn_s: float = TURN_S) -> None:
        self._turn_s = turn_s
        self._turn = asyncio.Lock()

    async def run(self, steps: Steps[T]) -> T:
        """What ``steps`` returns, when all of them are done. Belongs to one event loop."""
        while True:
            async with self._turn:
                ends = time.perf_counter() + self._turn_s
                try:
                    next(steps)
                    while time.perf_counter() < ends:
                        next(steps)
                except StopIteration as exc:
                    value: T = exc.value
                    return value
                # Still holding the turn: the loop looks at its sockets before anybody's next one begins.
                await asyncio.sleep(0)


def finished(steps: Steps[T]) -> T:
    """What ``steps`` returns, without a stop: for what is known to be little."""
    while True:
        try:
            next(steps)
        except StopIteration as exc:
            value: T = exc.value
            return value
