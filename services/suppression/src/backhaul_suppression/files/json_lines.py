"""JSON Lines, read and written: an object a line, whose members have the names and the forms of CSV's columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from backhaul_common.errors import Violation
from backhaul_common.lines.cutting import Cut, Cutter
from backhaul_common.lines.json_lines import (
    LONE_SURROGATE,
    LONE_SURROGATE_FIX,
    NO_OBJECT,
    Pairs,
    encodable,
    object_of,
    text_of,
)
from backhaul_common.lines.line import ERROR_COLUMNS, Line

from backhaul_suppression.files.columns import ALLOWED, COLUMNS

_KNOWN = ALLOWED.known


class JsonLines:
    """Reads JSON Lines out of pieces. Keeps one line at most."""

    def __init__(self) -> None:
        self._cutter = Cutter(blank=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that there are; each line says which it has."""
        return COLUMNS

    def feed(self, piece: bytes) -> Iterator[Line]:
        """The lines that ``piece`` completes, blank ones left out. To be read to its end."""
        for cut in self._cutter.feed(piece):
            yield _read(cut)

    def end(self) -> Iterator[Line]:
        """What is left when the file has ended."""
        for cut in self._cutter.end():
            yield _read(cut)


def header(columns: Sequence[str]) -> bytes:
    """The first line of a list: there is none, whatever the ``columns``."""
    del columns
    return b""


def line(columns: Sequence[str], values: Mapping[str, str]) -> bytes:
    """A line of a list."""
    own = {name: values[name] for name in columns if values.get(name)}
    return (json.dumps(own, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8", "replace")


def _read(cut: Cut) -> Line:
    text = text_of(cut)
    if isinstance(text, Line):
        return text
    pairs = object_of(text)
    return Line(cut.number, {}, text, NO_OBJECT) if pairs is None else _line(cut.number, text, pairs)


def _line(number: int, text: str, pairs: Pairs) -> Line:
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in ERROR_COLUMNS or value is None or value == "":
            continue
        if name not in _KNOWN:
            problem = f"The name {name[:80]!r} is not known.", f"Take only these: {', '.join(COLUMNS)}."
        elif name in values:
            problem = "The name is there twice.", "Name it once."
        elif not isinstance(value, str):
            problem = "The value is no text.", "Write it in quotes."
        elif not encodable(value):
            problem = LONE_SURROGATE, LONE_SURROGATE_FIX
        else:
            values[name] = value
            continue
        return Line(number, {}, text, Violation(name[:80] if name in _KNOWN else "", *problem))
    # Of a line that a file of errors could not take apart either, its text is what counts.
    kept = next((value for name, value in pairs if name == "error_text"), None) if not values else None
    return Line(number, values, kept if isinstance(kept, str) and encodable(kept) else text)
