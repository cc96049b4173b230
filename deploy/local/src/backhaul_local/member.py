"""What servers and services have in common: start until ready, stop, kill -9, restart."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from backhaul_local.errors import EndedError, LateError, LocalStackError, SettingError, StartError
from backhaul_local.ports import Hold, PortClaim, ensure_free
from backhaul_local.process import Child, describe_exit, tail

# Foreign programs give no event when they are ready, so readiness is asked for, this many seconds apart; less often the
# longer it takes, by this share of that time: asking takes from a busy machine what the program waits for.
_PROBE_INTERVAL, _PROBE_SHARE = 0.03, 0.02

_FREEZE_S = 5.0

START_TIMEOUT_S = 90.0
"""What ends while it starts is told at once: only what a busy machine delays waits for so long."""

START_TIMEOUT = "BACKHAUL_LOCAL_START_TIMEOUT_S"
"""The setting that says otherwise."""


def start_timeout_s(environ: Mapping[str, str], given: str | None = None, *, default: float = START_TIMEOUT_S) -> float:
    """Seconds that each process may take until it is ready: as ``given`` by a flag, or by the environment.

    Raises `SettingError`.
    """
    source, text = ("--start-timeout", given) if given is not None else (START_TIMEOUT, environ.get(START_TIMEOUT, ""))
    try:
        seconds = float(text) if text or given is not None else default
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < inf:
        raise SettingError(f"{source}: {text!r} is not a number of seconds above 0.")
    return seconds


@dataclass(frozen=True)
class Command:
    """What to run: program and arguments, the whole environment, the working directory."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path | None = None


class Member(ABC):
    """A process of the stack.

    Every verb exists twice: as a coroutine, and with the suffix `_blocking` for code without an event loop (fixtures
    of a whole test session outlive every loop). Both fork in the calling thread; see `Child` for why that matters.
    """

    def __init__(
        self,
        name: str,
        log_path: Path,
        *,
        hold: Hold | None = None,
        start_timeout: float = START_TIMEOUT_S,
        stop_timeout: float = 10.0,
    ) -> None:
        """``hold`` has the ports that were chosen for it, if any were."""
        self.name = name
        self.log_path = log_path
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._child: Child | None = None
        # For as long as this member may be started, or started again.
        self._hold = hold or Hold()

    @abstractmethod
    def claims(self) -> Sequence[PortClaim]:
        """The ports that the process will listen on. Fixed from the first call on, so that a restart reuses them."""

    @abstractmethod
    def command(self) -> Command:
        """What to run; may write configuration files."""

    @abstractmethod
    def probe(self) -> str | None:
        """Ask the running process once whether it is ready: None when it is, otherwise what is missing.

        Called from a worker thread; may block for about a second.
        """

    @property
    def pid(self) -> int:
        """The process id; raises `LocalStackError` when the process was never started."""
        return self._require_child().pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    @property
    def returncode(self) -> int | None:
        return None if self._child is None else self._child.returncode

    def launch(self) -> None:
        """Start the process without waiting for anything; raises `PortInUseError` when a port is taken."""
        if self.running:
            raise LocalStackError(f"{self.name} is already running as process {self.pid}.")
        claims = self.claims()
        ensure_free(claims)
        self._hold.keep(claim.port for claim in claims)
        command = self.command()
        self._child = Child(command.argv, env=command.env, cwd=command.cwd, log_path=self.log_path)

    async def wait_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # the deadline's text is the point.
        """Return once the process is ready; raises `StartError` when it dies, `LateError` after `timeout` s."""
        await asyncio.to_thread(self.wait_ready_blocking, timeout)

    def wait_ready_blocking(self, timeout: float | None = None) -> None:
        child = self._require_child()
        limit = self._start_timeout if timeout is None else timeout
        began = time.monotonic()
        while True:
            # Waits for the one event that there is, the end of the process, and asks the process in between.
            waited = time.monotonic() - began
            returncode = child.wait(max(_PROBE_INTERVAL, waited * _PROBE_SHARE))
            if returncode is not None:
                problem = f"ended while starting ({describe_exit(returncode)})."
                raise StartError(self.name, problem, self.log_path, self.log_tail())
            missing = self.probe()
            if missing is None:
                return
            if time.monotonic() > began + limit:
                problem = f"was not ready within {limit:g} s: {missing}"
                raise LateError(self.name, problem, self.log_path, self.log_tail())

    async def start(self) -> None:
        """Launch and wait until ready; raises `PortInUseError` or `StartError`, and leaves nothing running then."""
        self.launch()
        try:
            await self.wait_ready()
        except BaseException:  # Cancellation too: a process that nobody waits for any more must not stay.
            self.kill_blocking()
            raise

    def start_blocking(self) -> None:
        self.launch()
        try:
            self.wait_ready_blocking()
        except BaseException:  # As above, with KeyboardInterrupt in the place of cancellation.
            self.kill_blocking()
            raise

    async def stop(self) -> bool:
        """End the process in an orderly way, by force after a bounded time; returns whether no force was needed."""
        return await asyncio.to_thread(self.stop_blocking)

    def stop_blocking(self) -> bool:
        return self._child is None or self._child.stop(self._stop_timeout)

    async def kill(self) -> None:
        """kill -9; returns when the process is gone."""
        await asyncio.to_thread(self.kill_blocking)

    def kill_blocking(self) -> None:
        if self._child is not None:
            self._child.kill()

    async def restart(self) -> None:
        """Stop if running, then start on the same ports with the same data."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): its connections stay open and nothing answers from the return on."""
        child = self._require_child()
        child.send(signal.SIGSTOP)
        ends = time.monotonic() + _FREEZE_S
        # A thread that runs on another core may do something more before the signal gets to it.
        while os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is None:
            if child.returncode is not None or time.monotonic() > ends:
                raise LocalStackError(f"{self.name} could not be frozen.")
            time.sleep(0.001)

    def resume(self) -> None:
        self._require_child().send(signal.SIGCONT)

    async def wait_exit(self) -> int:
        """Wait until the process has ended, for whatever reason; return its exit code, negative for a signal."""
        return await self._require_child().wait_async()

    def ended(self) -> EndedError:
        """What to raise where the process should run and has ended."""
        child = self._require_child()
        return EndedError(self.name, f"has ended ({describe_exit(child.wait() or 0)}).", self.log_path, self.log_tail())

    def log_tail(self) -> str:
        return tail(self.log_path)

    def _require_child(self) -> Child:
        if self._child is None:
            raise LocalStackError(f"{self.name} has not been started.")
        return self._child
