"""Waiting for what a system of other processes does: it sends no event, so it is asked until it says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.02


async def until(
    what: str, probe: Callable[[], Awaitable[T | None]], *, within_s: float = 60.0, pause_s: float = PAUSE_S
) -> T:
    """The first answer of ``probe`` that is neither None nor False; AssertionError naming ``what`` after ``within_s``.

    An exception of ``probe`` ends the waiting: a probe says itself which failures mean "not yet".
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        answer = await probe()
        if answer is not None and answer is not False:
            return answer
        if loop.time() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(pause_s)
