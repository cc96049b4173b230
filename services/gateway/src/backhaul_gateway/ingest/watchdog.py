"""A bound on how long tasks may wait, at the price of one timer for all of them."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

Task = asyncio.Task[Any]


class Watchdog:
    """Cancels a task that has been watched for ``timeout_s``, or for up to a quarter longer, as it looks only so often.

    Belongs to the event loop that it is used on. ``asyncio.timeout`` would cost each task as much as checking a
    signature.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._watched: dict[Task, tuple[float, str]] = {}
        """Since when, in the loop's time, and for whom. The time is infinite where the task was cancelled here."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, whose: str) -> Task:
        """Begin to watch the running task, for the sake of ``whose``. Returns the task, for the other methods."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101  # only tasks await what is watched
        self._watched[task] = loop.time(), whose
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s / 4, self.look)
        return task

    def release(self, task: Task) -> None:
        """Watch the task no more; it is not cancelled from here on."""
        del self._watched[task]

    def expired(self, task: Task) -> bool:
        """Whether a CancelledError in the watched task means that its time is up. The cancellation is then taken back.

        False when somebody else has cancelled the task as well: it must end then.
        """
        since, _ = self._watched[task]
        return since == inf and task.uncancel() == 0

    def count(self, whose: str) -> int:
        """How many tasks are watched for the sake of ``whose``."""
        return sum(name == whose for _, name in self._watched.values())

    def look(self) -> None:
        """Cancel the tasks whose time is up. A timer calls this, as long as any task is watched."""
        loop = asyncio.get_running_loop()
        latest = loop.time() - self._timeout_s
        for task, (since, whose) in self._watched.items():
            if since <= latest:
                self._watched[task] = inf, whose
                task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(self._timeout_s / 4, self.look) if self._watched else None
