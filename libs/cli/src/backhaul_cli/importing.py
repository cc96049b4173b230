"""Files that are imported: how far they are sent, and what became of their lines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from backhaul_cli.documents import value_of
from backhaul_cli.failing import FailedError
from backhaul_cli.output import Output, facts, words

if TYPE_CHECKING:
    from rich.console import RenderableType

_PIECE = 1 << 16
_WIDTH = 30


class Lines(Protocol):
    """What became of a file, in lines. ``errors`` is a file of the refused ones."""

    @property
    def lines(self) -> int: ...
    @property
    def unchanged(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def errors(self) -> str: ...
    @property
    def errors_complete(self) -> bool: ...


def sent(file: BinaryIO, output: Output) -> Iterator[bytes]:
    """The file in pieces; whoever looks on sees how much of it is sent."""
    size, done = os.fstat(file.fileno()).st_size, 0
    while piece := file.read(_PIECE):
        yield piece
        done += len(piece)
        if size:
            # A file may grow meanwhile.
            share = min(done / size, 1)
            output.progress(f"[{'#' * int(share * _WIDTH):{_WIDTH}}] {share:4.0%} sent")


def lines_of(file: BinaryIO, name: Path) -> bytes:
    """A JSON list of objects as a file of one object a line."""
    import json

    found = value_of(str(name), file.read().decode(), "One object a line is a file whose name ends in .jsonl.")
    if not isinstance(found, list):
        raise FailedError(f"{name} holds no list.", 'It is like [{"member_key": "anna"}].')
    return b"".join(json.dumps(one).encode() + b"\n" for one in found)


def imported(found: Lines, changed: Mapping[str, int], errors: Path | None, output: Output) -> None:
    """Says what became of a file, and writes the refused lines to ``errors``."""
    if errors is not None and found.errors:
        errors.write_text(found.errors)

    def view() -> Iterator[RenderableType]:
        yield facts(
            ("lines", found.lines),
            *changed.items(),
            ("unchanged", found.unchanged),
            ("refused", found.refused),
        )
        if errors is None:
            yield from map(words, found.errors.splitlines())

    output.thing(found, view)
    if not found.errors_complete:
        output.note("These are the first of the refused lines: mend them, and import the file again for the rest.")
