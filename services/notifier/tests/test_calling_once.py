"""What is made once for all who want it ends with whoever makes it, and takes nobody's cancellation for its own."""

from __future__ import annotations

import asyncio
import time

import pytest
from backhaul_notifier.calling.once import Once


async def test_who_closes_is_cancelled_though_something_is_still_being_made() -> None:
    once: Once[str, str] = Once(10, time.monotonic)
    begun, asked = asyncio.Event(), asyncio.Event()

    async def make() -> tuple[str, float]:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asked.set()
            await asyncio.Event().wait()  # It takes its time.
        return "never", 1.0

    waiting = asyncio.create_task(once.get("key", make))
    await begun.wait()
    closing = asyncio.create_task(once.close())
    await asked.wait()
    closing.cancel()
    for task in (closing, waiting):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not once._making
