"""One log for all processes: each line with its source in front, in colour where a person looks at it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

_COLOURS = (36, 32, 35, 33, 34, 96, 92, 95, 93, 94)  # ANSI foreground colours that read well on light and dark.
_OWN_NAME = "backhaul"
_OWN_COLOUR = 1  # Bold, for what the stack itself has to say.
# Files give no portable event when they grow, so they are looked at, this many seconds apart.
_FOLLOW_INTERVAL = 0.1


class Console:
    """Prints lines prefixed by their source, flushed at once so that a pipe shows them as they come."""

    def __init__(self, stream: TextIO | None = None, *, width: int = 10) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._width = width
        # https://no-color.org
        self._coloured = self._stream.isatty() and not os.environ.get("NO_COLOR")
        self._assigned: dict[str, int] = {}

    def line(self, source: str, text: str) -> None:
        """One line of a source's log. What is not printable is escaped: a stranger may have sent it."""
        colour = self._assigned.setdefault(source, _COLOURS[len(self._assigned) % len(_COLOURS)])
        self._print(f"{self._prefix(source, colour)} {_visible(text)}")

    def say(self, text: str) -> None:
        """The stack's own words, line by line."""
        for line in text.splitlines() or [""]:
            self._print(f"{self._prefix(_OWN_NAME, _OWN_COLOUR)} {line}")

    def plain(self, text: str) -> None:
        """Without a prefix, for what is meant to be copied."""
        self._print(text)

    def _prefix(self, source: str, colour: int) -> str:
        text = f"{source:<{self._width}} │"
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text

    def _print(self, text: str) -> None:
        try:
            print(text, file=self._stream, flush=True)
        except OSError:
            # The terminal or the pipe's reader has gone. The stack goes on, its logs are in files; from here on the
            # output goes nowhere (https://docs.python.org/3/library/signal.html#note-on-sigpipe).
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


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
