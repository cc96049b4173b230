"""What servers and services have in common: start until ready, stop, kill -9, restart."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backhaul_local.errors import LocalStackError, StartError
from backhaul_local.ports import Hold, PortClaim, ensure_free
from backhaul_local.process import Child, describe_exit, tail

# Foreign programs give no event when they are ready, so readiness is asked for, this many seconds apart.
_PROBE_INTERVAL = 0.03

_FREEZE_S = 5.0


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

    def __init__(self, name: str, log_path: Path, *, start_timeout: float = 30.0, stop_timeout: float = 10.0) -> None:
        self.name = name
        self.log_path = log_path
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._child: Child | None = None
        self._hold: Hold | None = None

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
        if self._hold is None:
            # For as long as this member may be started again.
            self._hold = Hold(claim.port for claim in claims)
            weakref.finalize(self, self._hold.release)
        command = self.command()
        self._child = Child(command.argv, env=command.env, cwd=command.cwd, log_path=self.log_path)

    async def wait_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # the deadline's text is the point.
        """Return once the process is ready; raises `StartError` when it dies, or after `timeout` seconds."""
        await asyncio.to_thread(self.wait_ready_blocking, timeout)

    def wait_ready_blocking(self, timeout: float | None = None) -> None:
        child = self._require_child()
        limit = self._start_timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        while True:
            # Waits for the one event that there is, the end of the process, and asks the process in between.
            returncode = child.wait(_PROBE_INTERVAL)
            if returncode is not None:
                problem = f"ended while starting ({describe_exit(returncode)})."
                raise StartError(self.name, problem, self.log_path, self.log_tail())
            missing = self.probe()
            if missing is None:
                return
            if time.monotonic() > deadline:
                problem = f"was not ready within {limit:g} s: {missing}"
                raise StartError(self.name, problem, self.log_path, self.log_tail())

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

    def restart_blocking(self) -> None:
        self.stop_blocking()
        self.start_blocking()

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

    def log_tail(self) -> str:
        return tail(self.log_path)

    def _require_child(self) -> Child:
        if self._child is None:
            raise LocalStackError(f"{self.name} has not been started.")
        return self._child
