"""How a service lives: started whatever its dependencies do, ready when they are there, stopped in order."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any

import uvloop

from backhaul_common.logs import get_logger
from backhaul_common.outages import Repeated, is_outage
from backhaul_common.pauses import pauses

HEALTHY_AFTER_S = 30.0
"""Work that ran this long was healthy: its next failure is a new one, and is tried again at once."""

_FIRST_PAUSE_S = 0.05

Check = Callable[[], Awaitable[None]]


class Readiness:
    """Named checks; the service is ready when all pass. A check raises (anything) when its part is not there."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._instead: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        """Ask ``check`` whenever readiness is asked for. ValueError if ``name`` is taken."""
        if name in self._checks:
            raise ValueError(f"two checks are called {name}")
        self._checks[name] = check

    def instead_of(self, names: Collection[str], check: Check) -> None:
        """Where a check of ``names`` fails, the service is ready all the same as long as ``check`` passes."""
        self._instead.update(dict.fromkeys(names, check))

    async def failing(self, timeout_s: float = 3.0) -> dict[str, str]:
        """What is not there, by name, with the reason; empty when ready."""

        async def reason(name: str) -> str:
            text = await _reason(self._checks[name], timeout_s)
            if text and (instead := self._instead.get(name)) is not None:
                other = await _reason(instead, timeout_s)
                return f"{text} {other}" if other else ""
            return text

        names = list(self._checks)
        reasons = await asyncio.gather(*map(reason, names))
        return {name: text for name, text in zip(names, reasons, strict=True) if text}


async def _reason(check: Check, timeout_s: float) -> str:
    try:
        async with asyncio.timeout(timeout_s):
            await check()
    except TimeoutError:
        return "no answer in time"
    except Exception as exc:  # noqa: BLE001  # a check may fail in any way, and each means "not ready"
        return str(exc) or type(exc).__name__
    return ""


async def keep_running(name: str, work: Callable[[], Awaitable[None]], *, longest_pause_s: float = 5.0) -> None:
    """Run ``work`` again whenever it returns or fails, with growing pauses, until cancelled.

    That a part is away is a warning, said once a minute with the number of times; any other failure is an error with
    its traceback.
    """
    log = get_logger(task=name)
    away = Repeated("task_interrupted", task=name)
    loop = asyncio.get_running_loop()
    waits = pauses(_FIRST_PAUSE_S, longest_pause_s)
    while True:
        began = loop.time()
        healthy = loop.call_later(HEALTHY_AFTER_S, away.over)
        try:
            await work()
        except Exception as exc:  # the task must outlive any failure of one round; each is told of
            if is_outage(exc):
                away.warning(repr(exc))
            else:
                log.error("task_failed", error=repr(exc), exc_info=exc)
        else:
            away.over()
        finally:
            healthy.cancel()
        if loop.time() - began > HEALTHY_AFTER_S:
            waits = pauses(_FIRST_PAUSE_S, longest_pause_s)
        await asyncio.sleep(next(waits))


async def until_done(name: str, attempt: Callable[[], Awaitable[None]], *, longest_pause_s: float = 5.0) -> None:
    """Repeat ``attempt`` with growing pauses until it succeeds once. What fails alike is said once a minute."""
    away = Repeated("not_yet", task=name)
    for pause_s in pauses(longest_s=longest_pause_s):
        try:
            await attempt()
        except Exception as exc:  # noqa: BLE001  # a dependency may be away in any way; each is logged and tried again
            away.warning(repr(exc))
        else:
            away.over()
            return
        await asyncio.sleep(pause_s)


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` and wait until it is gone. Its failure is logged, not raised: others still have to be closed."""
    while not task.done():
        task.cancel()
        # Asked again now and then: until Python 3.12, wait_for (which libraries use) forgets a cancellation that comes
        # at the moment of its result, and a loop around it would go on for ever.
        await asyncio.wait({task}, timeout=0.5)
    if not task.cancelled() and (failure := task.exception()) is not None:
        get_logger().warning("task_failed_at_stop", task=task.get_name(), error=repr(failure))


def spare_the_collector() -> None:
    """To be called once, when a service is built: what is loaded by then stays for good.

    Without this, each full collection walks through all of it, some 50 ms at a time. Requests and batches leave hardly
    any cycles, so looking for them less often costs no memory to speak of.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run ``main`` on uvloop. The event it is given is set by SIGTERM and SIGINT; it then closes and returns."""

    async def wrapped() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    uvloop.run(wrapped())
