"""A terminal as a screen whose keys are heard at once. Whatever ends it, the terminal is as it was before."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Self

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_KEYS = {b"\x1b[A": "up", b"\x1bOA": "up", b"k": "up", b"\x1b[B": "down", b"\x1bOB": "down", b"j": "down"}
_KEYS |= {b"\x1b[5~": "page up", b"\x1b[6~": "page down", b"\x1b[F": "end", b"\x1b[H": "home", b"G": "end"}


class Screen:
    """``with Screen() as screen``: ``wake`` is called from any thread, and ``keys`` returns then."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._woken, self._waking = os.pipe()
        os.set_blocking(self._waking, False)
        os.set_blocking(self._woken, False)
        self._before = termios.tcgetattr(self._input)
        self._resized = signal.getsignal(signal.SIGWINCH)

    def __enter__(self) -> Self:
        signal.signal(signal.SIGWINCH, self._on_resize)
        self._take()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._give_back()
        signal.signal(signal.SIGWINCH, self._resized)

    def wake(self) -> None:
        """There is something new to be shown."""
        try:
            os.write(self._waking, b".")
        except BlockingIOError:
            return  # It is awake already.

    def pressed(self) -> Iterator[str]:
        """Wait until a key is pressed or somebody wakes it; the keys that were pressed, by their names."""
        ready, _, _ = select.select([self._input, self._woken], [], [])
        if self._woken in ready:
            os.read(self._woken, 65_536)
        if self._input not in ready:
            return
        left = os.read(self._input, 1_024)
        if not left:
            yield "q"  # The terminal is gone.
        while left:
            key = next((one for one in _KEYS if left.startswith(one)), left[:1])
            left = left[len(key) :]
            yield _KEYS.get(key) or key.decode("latin-1")

    def show(self, lines: Sequence[str]) -> None:
        """Put ``lines`` in the place of what was shown. They are no wider than the terminal."""
        self._write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[K\x1b[J")

    @staticmethod
    def size() -> tuple[int, int]:
        """Columns and lines."""
        return shutil.get_terminal_size()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The terminal as it was, for another program."""
        self._give_back()
        try:
            yield
        finally:
            self._take()

    def page(self, text: str) -> None:
        """Show ``text`` in the program that PAGER names, until that ends."""
        pager = shlex.split(os.environ.get("PAGER") or "less")
        with self.aside():
            try:
                subprocess.run(pager, input=text.encode(), check=False)  # noqa: S603  # the user's own pager
            except (FileNotFoundError, BrokenPipeError):
                return

    def _take(self) -> None:
        # Keys come one by one and are not shown; Ctrl-C stays what it is.
        tty.setcbreak(self._input)
        self._write(_ENTER)

    def _give_back(self) -> None:
        self._write(_LEAVE)
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    def _on_resize(self, _signal: int, _frame: FrameType | None) -> None:
        self.wake()

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
