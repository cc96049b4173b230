"""JSON Lines, read and written: an object a line, whose members have the names and the forms of CSV's columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from backhaul_common.errors import Violation

from backhaul_suppression.files.cutting import Cut, Cutter
from backhaul_suppression.files.line import COLUMNS, ERROR_COLUMNS, KNOWN, NOT_UTF8, TOO_LONG, Line, shown

_NO_OBJECT = Violation("", "The line is not one JSON object.", 'Write one such as {"address": "+15005550006"} a line.')
_NOT_TAKEN_APART = (_NO_OBJECT, NOT_UTF8, TOO_LONG)


class JsonLines:
    """Reads JSON Lines out of pieces. Keeps one line at most."""

    def __init__(self) -> None:
        self._cutter = Cutter()

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that there are; each line says which it has."""
        return COLUMNS

    def feed(self, piece: bytes) -> Iterator[Line]:
        """The lines that ``piece`` completes, blank ones left out. To be read to its end."""
        for cut in self._cutter.feed(piece):
            yield from _read(cut)

    def end(self) -> Iterator[Line]:
        """What is left when the file has ended."""
        for cut in self._cutter.end():
            yield from _read(cut)


def header(columns: Sequence[str]) -> bytes:
    """The first line of a list, and of a file of errors: there is none, whatever the ``columns``."""
    del columns
    return b""


def line(columns: Sequence[str], values: Mapping[str, str]) -> bytes:
    """A line of a list."""
    return _members([(name, values[name]) for name in columns if values.get(name)])


def error_line(columns: Sequence[str], refused: Line, problem: Violation) -> bytes:
    """A line of a file of errors: the line's own members, whatever the ``columns``, behind what is wrong with them."""
    del columns
    said: list[tuple[str, object]] = [
        ("error_line", str(refused.number)),
        ("error_field", problem.field),
        ("error_message", problem.message),
        ("error_fix", problem.fix),
    ]
    own = None if refused.problem in _NOT_TAKEN_APART else _object(refused.text)
    if own is not None:
        # What is nested can be read deeper than it can be written.
        with suppress(RecursionError):
            return _members([*said, *((name, value) for name, value in own if name not in ERROR_COLUMNS)])
    return _members([*said, ("error_text", refused.text)])


def _members(pairs: Sequence[tuple[str, object]]) -> bytes:
    """An object's line; names that are there twice stay so."""
    try:
        return _line_of(pairs, ascii_only=False).encode()
    except UnicodeEncodeError:
        return _line_of(pairs, ascii_only=True).encode()


def _line_of(pairs: Sequence[tuple[str, object]], *, ascii_only: bool) -> str:
    encode = json.JSONEncoder(ensure_ascii=ascii_only, separators=(",", ":"), default=dict).encode
    return f"{{{','.join(encode({name: value})[1:-1] for name, value in pairs)}}}\n"


def _object(text: str) -> _Pairs | None:
    """The members of the object that ``text`` is; None where it is none."""
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return None
    return pairs if isinstance(pairs, _Pairs) else None


def _read(cut: Cut) -> Iterator[Line]:
    if cut.too_long:
        yield Line(cut.number, {}, shown(cut.raw), TOO_LONG)
        return
    raw = cut.raw.strip()
    if not raw:
        return
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        yield Line(cut.number, {}, shown(raw), NOT_UTF8)
        return
    pairs = _object(text)
    yield Line(cut.number, {}, text, _NO_OBJECT) if pairs is None else _line(cut.number, text, pairs)


class _Pairs:
    """An object's members as they are written, names that are there twice included."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Iterator[tuple[str, object]]:
        return iter(self._pairs)


def _line(number: int, text: str, pairs: _Pairs) -> Line:
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in ERROR_COLUMNS or value is None or value == "":
            continue
        if name not in KNOWN:
            problem = f"The name {name[:80]!r} is not known.", f"Take only these: {', '.join(COLUMNS)}."
        elif name in values:
            problem = "The name is there twice.", "Name it once."
        elif not isinstance(value, str):
            problem = "The value is no text.", "Write it in quotes."
        elif not _encodable(value):
            problem = "The value holds half a character (a lone surrogate).", "Write both halves, or the character."
        else:
            values[name] = value
            continue
        return Line(number, {}, text, Violation(name[:80] if name in KNOWN else "", *problem))
    # Of a line that a file of errors could not take apart either, its text is what counts.
    kept = next((value for name, value in pairs if name == "error_text"), None) if not values else None
    return Line(number, values, kept if isinstance(kept, str) and _encodable(kept) else text)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
