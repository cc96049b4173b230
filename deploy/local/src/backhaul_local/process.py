"""One child process: started so that it ends with its parent, watched for its end, stopped in bounded time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("_launch.py")
_LOG_LIMIT_BYTES = 20 * 1024 * 1024
_TAIL_BYTES = 4_000


class Child:
    """A running process whose output goes to a file.

    The output is written to the file by the process itself, not through a pipe: a busy or dead parent then neither
    slows the process down nor loses its last lines.

    Start children from a thread that lives as long as they should (the main thread, where event loops and pytest
    run): Linux ties the "parent died" signal to the thread that forked.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None, log_path: Path) -> None:
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        _rotate(log_path)
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the stack's own commands, no shell, nobody's input.
                _with_parent_death_signal(argv),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C in the terminal then reaches the parent only, which stops its children
                # in the right order.
                process_group=0,
            )
        self._exit: Future[int] = Future()
        # Running futures cannot be cancelled: a caller that gives up waiting must not take the result from others.
        self._exit.set_running_or_notify_cancel()
        threading.Thread(target=self._reap, name=f"reap-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._exit.result() if self._exit.done() else None

    def wait(self, timeout: float | None = None) -> int | None:
        """Block until the process has ended, at most `timeout` seconds; return its exit code, or None."""
        wait_for_futures([self._exit], timeout=timeout)
        return self.returncode

    async def wait_async(self) -> int:
        return await asyncio.wrap_future(self._exit)

    def send(self, signum: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has already ended."""
        self._process.send_signal(signum)

    def kill(self) -> None:
        """kill -9, and wait until the process is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self, grace: float) -> bool:
        """Ask the process to end, kill it after `grace` seconds; return whether it ended by itself."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # A paused process would get to see the request only when it runs again.
        if self.wait(grace) is not None:
            return True
        self.kill()
        return False

    def _reap(self) -> None:
        self._exit.set_result(self._process.wait())


def tail(log_path: Path, *, limit: int = _TAIL_BYTES) -> str:
    """The last lines of a log, at most `limit` bytes; empty when there is none."""
    try:
        with log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - limit))
            data = log.read(limit)
    except FileNotFoundError:
        return ""
    text = data.decode("utf-8", "replace")
    # Where the cut fell into a line, its rest says nothing.
    return text.partition("\n")[2] if size > limit else text


def describe_exit(returncode: int) -> str:
    """ "exit code 1", or "signal SIGKILL" for the negative codes of `subprocess`."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"signal {signal.Signals(-returncode).name}"
    except ValueError:
        return f"signal {-returncode}"


def _with_parent_death_signal(argv: Sequence[str]) -> list[str]:
    if sys.platform != "linux":  # Elsewhere there is no such signal: what kill -9 of the parent leaves stays.
        return list(argv)
    # -I and -S: no site-packages and no PYTHON* variables, so that the launcher takes some ten milliseconds.
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *argv]


def _rotate(log_path: Path) -> None:
    """Keep one predecessor of a log that has grown large; called between two runs only."""
    try:
        size = log_path.stat().st_size
    except FileNotFoundError:
        return
    if size > _LOG_LIMIT_BYTES:
        log_path.replace(log_path.with_name(log_path.name + ".1"))
