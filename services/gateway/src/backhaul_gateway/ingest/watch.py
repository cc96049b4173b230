"""Looks at the callback log every few seconds: who holds how much of it, whether it stores, and what may be deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from backhaul_common.errors import BackhaulError
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import CALLBACK_LOG_FILL, CALLBACK_LOG_STORING, Metric

from backhaul_gateway.admission.room import CallbackRoom, LogState
from backhaul_gateway.ports import WatchedLog

LOOK_S = 2.0
IDLE_S = 30.0
"""When no callback was stored for so long, the gateway stores a message of its own to see whether the log stores."""

WARN_AT, CALM_AT = 0.70, 0.60
NEARLY_FULL, ROOMY = 0.85, 0.70
"""Parts of the log, or of a tenant's share of it. From ``NEARLY_FULL`` on, messages that are processed are deleted, the
oldest first, until ``ROOMY`` is left."""

_AWAY_S = 0.5
_MAX_SAMPLES = 8
_MAX_PURGES = 16
_SHARE_STEPS = 8


class Storing(Protocol):
    """When the log last stored callbacks, and when it last failed to; in the loop's time, 0 for never."""

    stored_at: float
    failed_at: float


class LogWatch:
    """See the module. ``storing`` says whether the log stores; it is true until something shows otherwise."""

    def __init__(
        self,
        log: WatchedLog,
        room: CallbackRoom,
        publisher: Storing,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        look_s: float = LOOK_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self._callbacks = log
        self._room = room
        self._publisher = publisher
        self._clock = clock
        self._look_s = look_s
        self._idle_s = idle_s
        self.storing = True
        self._proved_at = clock()
        self._next_trial_at = 0.0
        self._filling = False
        # For each queue path, the position before which its processed messages are deleted already.
        self._purged: dict[str, int] = {}
        self._log = get_logger(component="callback_log")
        metrics.gauge(CALLBACK_LOG_FILL, lambda: room.fill)
        metrics.gauge(CALLBACK_LOG_STORING, lambda: float(self.storing))

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            pause_s = self._look_s
            try:
                await self.look()
            except BackhaulError:
                # The log is away. Look again soon, since a tenant may fill it as soon as it is back.
                pause_s = min(pause_s, _AWAY_S)
            await self.prove()
            await asyncio.sleep(pause_s)

    async def look(self) -> None:
        """Measure the log once, and make room in it where there is little. UNAVAILABLE when the log is away."""
        state = await self._measure()
        if state.limit:
            await self._make_room(state)
            await self._make_room_in_shares()
        self._tell()

    async def prove(self) -> None:
        """Find out whether the log stores. The last callbacks show it; where there are none, a trial does."""
        now = self._clock()
        stored_at = self._publisher.stored_at
        failing = self._publisher.failed_at >= stored_at and self._publisher.failed_at > self._proved_at
        if stored_at > self._proved_at and not failing:
            self._proved_at = stored_at
            self._set_storing("")
        elif (failing or not self.storing or now - self._proved_at > self._idle_s) and now >= self._next_trial_at:
            self._next_trial_at = now + self._look_s
            error = ""
            try:
                await self._callbacks.try_to_store()
            except BackhaulError as exc:
                error = str(exc.__cause__ or exc)
            else:
                self._proved_at = now
            self._set_storing(error)

    async def _measure(self) -> LogState:
        self._room.begin_look()
        state = await self._callbacks.state()
        if 2 * state.bytes > state.limit > 0:
            # While the log is less than half full, no share of it can be full, so sizes need not be known.
            for subject in self._room.unknown(state, _MAX_SAMPLES):
                if size := await self._callbacks.size_of_last(subject):
                    self._room.learn(subject, size)
        self._room.looked(state)
        return state

    async def _make_room(self, state: LogState) -> None:
        """If the log is nearly full, delete the oldest messages that are processed."""
        if state.bytes <= NEARLY_FULL * state.limit:
            return
        end = await self._callbacks.processed_up_to() + 1
        # What is held is acknowledged too. Looked at anew, this state has all of it that lies before ``end``.
        before = state = await self._measure()
        begin = 0
        for _ in range(_MAX_PURGES):
            excess = state.bytes - ROOMY * state.limit
            begin = max(begin, state.first_seq)
            if excess <= 0 or end <= begin or not state.messages:
                break
            begin = min(begin + max(1, round(excess * state.messages / state.bytes)), end)
            await self._callbacks.purge_before(begin, spare_held=state.has_held)
            state = await self._measure()
        if state.messages < before.messages:
            self._log.info("callback_log_made_room", messages=before.messages - state.messages, fill=self._fill())

    async def _make_room_in_shares(self) -> None:
        """For each tenant whose share is nearly full, delete the oldest of its messages that are processed."""
        pressed = [path for path in self._room.paths if self._room.is_pressed(path, NEARLY_FULL)]
        end = await self._callbacks.processed_up_to() + 1 if pressed else 0
        self._purged = {path: seq for path, seq in self._purged.items() if path in pressed}
        for path in pressed:
            state = await self._measure()
            begin = max(state.first_seq, self._purged.get(path, 0))
            for step in range(1, _SHARE_STEPS + 1):
                if end <= begin or not self._room.is_pressed(path, ROOMY):
                    break
                seq = begin + (end - begin) * step // _SHARE_STEPS
                await self._callbacks.purge_before(seq, path)
                self._purged[path] = seq
                await self._measure()

    def _tell(self) -> None:
        for path in self._room.relieved():
            self._log.info("callback_log_share_has_room", queue_path=path)
        if not self._filling and self._room.fill >= WARN_AT:
            self._filling = True
            self._log.warning("callback_log_filling", fill=self._fill())
        elif self._filling and self._room.fill < CALM_AT:
            self._filling = False
            self._log.info("callback_log_has_room", fill=self._fill())

    def _set_storing(self, error: str) -> None:
        if self.storing is bool(error):
            self.storing = not error
            if error:
                self._log.warning("callback_log_not_storing", error=error)
            else:
                self._log.info("callback_log_storing")

    def _fill(self) -> float:
        return round(self._room.fill, 3)


class Reachable:
    """A metric that says whether a server answers. ``ask`` is called every few seconds, and raises when it does not."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[None]],
        metric: Metric,
        metrics: Metrics,
        *,
        pause_s: float = 2.0,
        timeout_s: float = 2.5,
    ) -> None:
        self._ask = ask
        self._pause_s = pause_s
        self._timeout_s = timeout_s
        self._answers = False
        metrics.gauge(metric, lambda: float(self._answers))

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._ask()
            except (BackhaulError, TimeoutError):
                self._answers = False
            else:
                self._answers = True
            await asyncio.sleep(self._pause_s)
