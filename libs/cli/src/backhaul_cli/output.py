"""The one place from which a command says anything: tables for people, JSON for programs.

JSON is one document in one line for a thing, and a line for each row of a list. Its fields are those of the HTTP API.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import typer

from backhaul_cli.texts import plain, plain_json, shown

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

T = TypeVar("T")

_AT_ONCE = 100
_PIPED_WIDTH = 100_000
"""What is piped is cut nowhere: the program that reads it has no width."""
_STYLES = {
    **dict.fromkeys(("delivered", "opened", "clicked", "active", "ok", "done", "allowed", "verified", "on"), "green"),
    **dict.fromkeys(("failed", "undelivered", "invalidnumber", "error", "suppressed", "disabled", "stopped"), "red"),
    **dict.fromkeys(("warning", "paused", "held", "waiting", "open", "running", "suspended"), "yellow"),
}


class Column(NamedTuple, Generic[T]):
    """One column of a table. What ``folds`` goes on in the next line where the terminal is too narrow; anything else is
    cut."""

    title: str
    value: Callable[[T], object]
    folds: bool = False
    right: bool = False


class Output:
    """What a command says, for people or ``as_json``."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.unread = False
        """Whoever read the output has stopped. What a command does and ends with does not hang on it."""

    def thing(self, value: object, view: Callable[[], Iterable[RenderableType]]) -> None:
        """One thing: a document, or what ``view`` makes of it, part below part."""
        if self.as_json:
            self._json(value)
        else:
            self._parts(view())

    def rows(self, found: Iterable[T], columns: Sequence[Column[T]], *, of: str, limit: int | None = None) -> None:
        """A list ``of`` something, up to ``limit`` rows; whether there are more is said apart."""
        left = iter(found)
        taken = left if limit is None else islice(left, limit)
        came = False
        # A page at a time: a table is as wide as what it holds, and the rest may take long.
        while some := self._some(taken):
            came = True
            if self.as_json:
                for one in some:
                    self._json(one)
            else:
                self._parts([table(some, columns)])
            if self.unread:
                return
        if not came:
            self.note(f"No {of}.")
        elif limit is not None and next(left, None) is not None:
            self.note(f"There are more {of}: --limit N, or --all.")

    def done(self, steps: Iterable[T], columns: Sequence[Column[T]], *, of: str) -> None:
        """What ``steps`` do, one after the other: also what was done before one of them failed."""
        made: list[T] = []
        try:
            # Whatever is raised, those before are in the list by then.
            made.extend(steps)
        finally:
            if made:
                self.rows(made, columns, of=of)

    def _some(self, rows: Iterator[T]) -> list[T]:
        # One at a time, where somebody may be waiting for each.
        return list(islice(rows, 1 if self.as_json else _AT_ONCE))

    def line(self, text: str) -> None:
        """One line of text."""
        self._write(plain(text) + "\n")

    def bytes(self, piece: bytes) -> None:
        """Part of a file, as it is; on a terminal as it can be shown. It ends the command, as done, where nobody reads
        the rest."""
        if sys.stdout.isatty():
            self._write(
                "\n".join(plain(line.removesuffix("\r")) for line in piece.decode("utf-8", "replace").split("\n"))
            )
            return
        try:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            swallow()
            raise typer.Exit(0) from None

    def note(self, text: str) -> None:
        """What is not part of the answer, for whoever looks on."""
        with suppress(BrokenPipeError):
            print(plain(text), file=sys.stderr)  # noqa: T201  # a command-line program

    def progress(self, text: str) -> None:
        """How far it is, in the place of what was said before; nothing where nobody looks on. Empty at the end."""
        if sys.stderr.isatty():
            print(f"\r{plain(text)}\x1b[K", end="", file=sys.stderr, flush=True)  # noqa: T201  # as above

    def _json(self, value: object) -> None:
        self._write(plain_json(encoded(value)) + "\n")

    def _parts(self, parts: Iterable[RenderableType]) -> None:
        console = _console()
        with console.capture() as said:
            for part in parts:
                console.print(part)
        text = said.get()
        if not console.is_terminal:
            text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
        self._write(text)

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            swallow()
            self.unread = True


def swallow() -> None:
    """Whatever is still to be written to a closed pipe goes nowhere, also when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def encoded(value: object) -> str:
    """A value as JSON, in one line."""
    import msgspec

    return msgspec.json.encode(value, enc_hook=str).decode("utf-8", "replace")


def pretty(value: object) -> str:
    """A value as JSON for people."""
    import msgspec

    return plain_json(msgspec.json.format(encoded(value), indent=2))


def table(rows: Iterable[T], columns: Sequence[Column[T]]) -> RenderableType:
    """Rows below their titles."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(
            column.title.upper(),
            no_wrap=not column.folds,
            overflow="fold" if column.folds else "ellipsis",
            justify="right" if column.right else "left",
        )
    for row in rows:
        made.add_row(*(_cell(column.value(row)) for column in columns))
    return made


def section(rows: Sequence[T], columns: Sequence[Column[T]]) -> Iterator[RenderableType]:
    """A table apart from what is above it; nothing without rows."""
    if rows:
        yield words("")
        yield table(rows, columns)


def facts(*pairs: tuple[str, object]) -> RenderableType:
    """What is known of one thing, each with its name; what is not known is left out."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if (said := shown(value)) != "":
            made.add_row(name, _cell(said))
    return made


def words(text: str, style: str = "") -> RenderableType:
    """A line of text, in which nothing is markup."""
    from rich.text import Text

    return Text(plain(text), style=style)


def _cell(value: object) -> RenderableType:
    text = shown(value)
    return words(text, _STYLES.get(text.lower(), ""))


def _console() -> Console:
    from rich.console import Console

    terminal = sys.stdout.isatty()
    # Nothing of what is printed is rich's markup: it may be a stranger's text.
    return Console(
        file=sys.stdout,
        force_terminal=terminal,
        width=None if terminal else _PIPED_WIDTH,
        markup=False,
        highlight=False,
        emoji=False,
    )
