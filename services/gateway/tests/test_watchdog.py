"""The bound on a body's time, where the body's end, the timer and a stop of the server come at one moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from backhaul_gateway.ingest.watchdog import Watchdog


class Wait:
    """A task that waits for an event under a watchdog, and afterwards for another one without it."""

    def __init__(self, watchdog: Watchdog, whose: str = "acme") -> None:
        self._watchdog = watchdog
        self._whose = whose
        self.body, self.answer = asyncio.Event(), asyncio.Event()
        self.said = ""
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        task = self._watchdog.watch(self._whose)
        try:
            await self.body.wait()
            self.said = "whole"
        except asyncio.CancelledError:
            if not self._watchdog.expired(task):
                self.said = "cancelled"
                raise
            self.said = "expired"
        finally:
            self._watchdog.release(task)
        await self.answer.wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def started(watchdog: Watchdog) -> Wait:
    wait = Wait(watchdog)
    await until(lambda: len(watchdog) == 1)
    return wait


async def ended(wait: Wait) -> None:
    """Let the task answer. It must not be cancelled any more, nor count as cancelled."""
    assert wait.task.cancelling() == 0
    wait.answer.set()
    await wait.task


async def test_what_takes_too_long_is_ended_by_the_timer_and_may_go_on() -> None:
    watchdog = Watchdog(0.02)
    wait = await started(watchdog)
    await until(lambda: wait.said != "")
    assert wait.said == "expired"
    assert len(watchdog) == 0
    await ended(wait)


async def test_what_ends_in_time_is_left_alone() -> None:
    watchdog = Watchdog(60)
    wait = await started(watchdog)
    wait.body.set()
    watchdog.look()
    await until(lambda: wait.said == "whole")
    watchdog.look()
    await ended(wait)


async def test_an_end_right_before_the_timer_still_counts_as_too_late() -> None:
    watchdog = Watchdog(0)
    wait = await started(watchdog)
    wait.body.set()  # The task is about to run, and has not run yet.
    watchdog.look()
    await until(lambda: wait.said != "")
    assert wait.said == "expired"
    await ended(wait)


async def test_the_timer_cancels_a_task_once() -> None:
    watchdog = Watchdog(0)
    wait = await started(watchdog)
    for _ in range(3):
        watchdog.look()
    assert wait.task.cancelling() == 1
    await until(lambda: wait.said == "expired")
    await ended(wait)


@pytest.mark.parametrize("first", ["timer", "server"])
async def test_a_task_that_the_server_cancels_too_ends(first: str) -> None:
    watchdog = Watchdog(0)
    wait = await started(watchdog)
    steps: list[Callable[[], object]] = [watchdog.look, wait.task.cancel]
    for step in steps if first == "timer" else reversed(steps):
        step()
    await _cancelled(wait.task)
    assert wait.said == "cancelled"
    assert len(watchdog) == 0


async def test_tasks_are_counted_by_whom_they_serve() -> None:
    watchdog = Watchdog(60)
    waits = [Wait(watchdog, whose) for whose in ("acme", "other", "acme")]
    await until(lambda: len(watchdog) == 3)
    assert [watchdog.count(whose) for whose in ("acme", "other", "nobody")] == [2, 1, 0]
    for wait in waits:
        wait.body.set()
        await until(lambda: all(wait.said == "whole" for wait in waits if wait.body.is_set()))
        await ended(wait)
    assert watchdog.count("acme") == 0


async def _cancelled(task: Awaitable[None]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await task
