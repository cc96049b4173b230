"""JSON Lines: an object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]  # Is there, and in no stub.

from backhaul_common.errors import Violation
from backhaul_common.lines.cutting import Cut
from backhaul_common.lines.line import ERROR_COLUMNS, NOT_UTF8, TOO_LONG, Line, shown

NO_OBJECT = Violation("", "The line is not one JSON object.", "Write one object a line, and no line break within it.")
LONE_SURROGATE = "It holds half a character (a lone surrogate)."
LONE_SURROGATE_FIX = "Write both halves, or the character."

_NOT_TAKEN_APART = (NO_OBJECT, NOT_UTF8, TOO_LONG)
_BLANK = re.compile(r"[ \t\r\n]*")
_value_at = json.JSONDecoder().raw_decode


def text_of(cut: Cut) -> str | Line:
    """The line's text; a refused line where it is none."""
    if cut.too_long:
        return Line(cut.number, {}, shown(cut.raw), TOO_LONG)
    raw = cut.raw.strip()
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Line(cut.number, {}, shown(raw), NOT_UTF8)


class Pairs:
    """An object's members as they are written, names that are there twice included."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Iterator[tuple[str, object]]:
        return iter(self._pairs)


def object_of(text: str, number: Callable[[str], object] | None = None) -> Pairs | None:
    """The members of the object that ``text`` is, in which every object is ``Pairs``; None where it is none. ``number``
    makes something of a number as it is written, an int or a float where there is none."""
    try:
        pairs = json.loads(text, object_pairs_hook=Pairs, parse_int=number, parse_float=number)
    except (ValueError, RecursionError):
        return None
    return pairs if isinstance(pairs, Pairs) else None


def encodable(text: str) -> bool:
    """Whether it holds no lone surrogate, which JSON can tell of and nothing can store."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def error_header(columns: Sequence[str]) -> bytes:
    """The first line of a file of errors: there is none, whatever the ``columns``."""
    del columns
    return b""


def error_line(columns: Sequence[str], refused: Line, problem: Violation) -> bytes:
    """A line of a file of errors: the line's own members as they were written, whatever the ``columns``, behind what is
    wrong with them."""
    del columns
    said = {
        "error_line": str(refused.number),
        "error_field": problem.field,
        "error_message": problem.message,
        "error_fix": problem.fix,
    }
    own = None if refused.problem in _NOT_TAKEN_APART else _members(refused.text)
    if own is None:
        own = []
        said["error_text"] = refused.text
    told = json.dumps(said, ensure_ascii=False, separators=(",", ":"))[1:-1]
    return f"{{{','.join([told, *own])}}}\n".encode("utf-8", "replace")


def _members(text: str) -> list[str] | None:
    """Name and value of each member of the object that ``text`` is, as they stand there, but for those of a file of
    errors; None where it is no object."""
    if "\n" in text or "\r" in text:
        # An earlier file of errors quoted more than a line.
        return None
    try:
        return [text[begin:end] for name, begin, end in _spans(text) if name not in ERROR_COLUMNS]
    except (ValueError, RecursionError):
        return None


def _spans(text: str) -> Iterator[tuple[str, int, int]]:
    at = _after(text, 0, "{")
    ended = text.startswith("}", at)
    while not ended:
        begin = at
        name, at = scanstring(text, _after(text, at, '"', blank=False))
        _, end = _value_at(text, _after(text, _skip(text, at), ":"))
        yield name, begin, end
        at = _skip(text, end)
        ended = text.startswith("}", at)
        at = at if ended else _after(text, at, ",")
    if _after(text, at, "}") != len(text):
        raise ValueError("something behind the object")


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _after(text: str, at: int, expected: str, *, blank: bool = True) -> int:
    if not text.startswith(expected, at):
        raise ValueError(f"no {expected} at {at}")
    return _skip(text, at + 1) if blank else at + 1
