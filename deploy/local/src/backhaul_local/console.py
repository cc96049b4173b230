"""One log for all processes: each line with its source in front, in colour where a person looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import rich.console
from rich.text import Text

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
"""Those that read well on light and dark."""
_OWN_NAME = "backhaul"
# Files give no portable event when they grow, so they are looked at, this many seconds apart.
_FOLLOW_INTERVAL = 0.1


class Console:
    """Prints lines prefixed by their source, flushed at once so that a pipe shows them as they come."""

    def __init__(self, stream: TextIO | None = None, *, width: int = 10) -> None:
        self._console = _Terminal(file=stream)
        self._width = width
        self._assigned: dict[str, str] = {}

    def line(self, source: str, text: str) -> None:
        """One line of a source's log. What is not printable is escaped: a stranger may have sent it."""
        colour = self._assigned.setdefault(source, _COLOURS[len(self._assigned) % len(_COLOURS)])
        self._print(source, _visible(text), colour)

    def say(self, text: str) -> None:
        """The stack's own words, line by line."""
        for line in text.splitlines() or [""]:
            self._print(_OWN_NAME, line, "bold")

    def plain(self, text: str) -> None:
        """Without a prefix, for what is meant to be copied."""
        self._write(Text(text))

    def _print(self, source: str, text: str, style: str) -> None:
        self._write(Text.assemble((f"{source:<{self._width}} │", style), f" {text}"))

    def _write(self, text: Text) -> None:
        try:
            self._console.print(text, soft_wrap=True)  # What is copied, or piped, stays one line.
        except OSError:
            self._console.on_broken_pipe()


class _Terminal(rich.console.Console):
    """rich's, which takes a terminal or a pipe's reader that is gone for the end. The stack goes on, its logs are in
    files; from there on the output goes nowhere."""

    def on_broken_pipe(self) -> None:
        with suppress(SystemExit):
            super().on_broken_pipe()


class LogFollower:
    """Prints what is appended to log files from now on."""

    def __init__(self, console: Console, logs: Mapping[str, Path]) -> None:
        self._console = console
        self._logs = dict(logs)
        self._positions = {source: _size(path) for source, path in logs.items()}
        self._rests = dict.fromkeys(logs, b"")

    async def run(self) -> None:
        """Follow until cancelled; a call of `drain` afterwards prints the last lines."""
        while True:
            self.drain()
            await asyncio.sleep(_FOLLOW_INTERVAL)

    def drain(self) -> None:
        """Print the complete lines that have been added since the last call."""
        for source, path in self._logs.items():
            size = _size(path)
            if size < self._positions[source]:  # The log was rotated: a new file begins.
                self._positions[source], self._rests[source] = 0, b""
            if size == self._positions[source]:
                continue
            with path.open("rb") as log:
                log.seek(self._positions[source])
                data = log.read()
            self._positions[source] += len(data)
            *lines, self._rests[source] = (self._rests[source] + data).split(b"\n")
            for line in lines:
                self._console.line(source, line.decode("utf-8", "replace").rstrip("\r"))


def _visible(text: str) -> str:
    """Escapes for controls, colours, and what turns the direction around: they belong to this terminal's owner only."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
