"""People and programs who use the command line ``backhaul``: at a terminal of 80 columns, or through a pipe."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from simulators.people import Tenant

WIDTH = 80
HOSTILE = "STOP \x1b]0;owned\x07\x1b[2J\x9b31m \u202egnp.exe [red]x[/red]\r\nbackhaul: all is well"
"""What somebody may write who wants more than to be read."""
_GUARD_S = 60.0
_COMMAND = (sys.executable, "-m", "backhaul_cli")
# A terminal is one's own, so that its Ctrl-C is heard: whoever reads it must have claimed it.
_CLAIMING = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
_OWN = re.compile(r"\x1b\[[0-9;]*m|\r[^\r\n\x1b]*\x1b\[K|\r(?=\n)")
"""Its styles, how far it is in a line that is then cleared, and what a terminal makes of the end of a line."""


def _hear_interrupts() -> None:
    # What a shell runs in the background ignores them, and so would whatever these tests start there.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Said(NamedTuple):
    """What a command wrote, and what it ended with. At a terminal errors are among the rest."""

    out: str
    err: str
    code: int

    @property
    def rows(self) -> list[Any]:
        """The documents of ``--json``, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def plain(self) -> str:
        """Without the command line's own sequences; no other may be in it."""
        return _OWN.sub("", self.out)


class CommandLine:
    """The command line in an environment of its own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BACKHAUL_", "COLUMNS"))}
        self._environment = {**kept, "TERM": "xterm-256color", **environment}

    async def start(self, *arguments: str, **more: Any) -> Process:
        """A command that runs, with pipes."""
        pipes = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, **more}
        return await asyncio.create_subprocess_exec(
            *_COMMAND, *arguments, env=self._environment, preexec_fn=_hear_interrupts, **pipes
        )

    async def pipe(self, *arguments: str, given: str = "") -> Said:
        """What a program reads of a command, which reads ``given``."""
        process = await self.start(*arguments)
        async with asyncio.timeout(_GUARD_S):
            out, err = await process.communicate(given.encode())
        return Said(out.decode(), err.decode(), process.returncode or 0)

    async def type(self, *arguments: str) -> Said:
        """What a person sees of a command."""
        async with self.terminal(*arguments) as terminal:
            code = await terminal.end()
        return Said(terminal.shown, "", code)

    @asynccontextmanager
    async def terminal(self, *arguments: str) -> AsyncIterator[Terminal]:
        """A command at a terminal."""
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _CLAIMING,
            *_COMMAND,
            *arguments,
            env=self._environment,
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
            preexec_fn=_hear_interrupts,
        )
        os.close(its)
        terminal = Terminal(ours, process)
        try:
            yield terminal
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            terminal.close()


class Terminal:
    """Somebody at a keyboard, before a screen."""

    def __init__(self, ours: int, process: Process) -> None:
        self._ours = ours
        self._process = process
        self._screen = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours, self._look)

    @property
    def shown(self) -> str:
        """All that was on the screen so far."""
        return self._screen.decode()

    def press(self, keys: str) -> None:
        """Press keys; Ctrl-C is ``\\x03``."""
        os.write(self._ours, keys.encode())

    async def shows(self, text: str) -> None:
        """Return when ``text`` was on the screen."""

        async def there() -> bool:
            return text in self.shown

        await until(f"{text!r} at the terminal", there, within_s=_GUARD_S)

    async def end(self) -> int:
        """The exit code, when the command has ended by itself."""
        async with asyncio.timeout(_GUARD_S):
            code = await self._process.wait()
        self._look()
        return code

    def close(self) -> None:
        """Put it away."""
        self._loop.remove_reader(self._ours)
        os.close(self._ours)

    def _look(self) -> None:
        os.set_blocking(self._ours, False)
        try:
            while more := os.read(self._ours, 65_536):
                self._screen += more
        except BlockingIOError:
            return
        except OSError:
            # Nobody has the other end any more.
            self._loop.remove_reader(self._ours)


def line_of(tenant: Tenant, folder: Path, **more: str) -> CommandLine:
    """A tenant's, by the environment."""
    environment = {"BACKHAUL_URL": tenant.base_url, "BACKHAUL_API_KEY": tenant.api_key, **more}
    return CommandLine({"XDG_CONFIG_HOME": str(folder), **environment})


def fits(said: Said, width: int = WIDTH) -> list[str]:
    """The lines of a screen: none wider than the terminal, and none with a control of whoever wrote to us."""
    lines = said.plain.split("\n")
    assert all(len(line) <= width for line in lines), said.plain
    assert all(line.isprintable() for line in lines), repr(said.plain)
    return [line.rstrip() for line in lines]
