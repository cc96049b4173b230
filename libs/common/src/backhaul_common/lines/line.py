"""One line of a file, in either format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from backhaul_common.errors import Violation

ERROR_COLUMNS = ("error_line", "error_field", "error_message", "error_fix", "error_text")
"""What a file of errors says beside its lines: ``error_text`` is the whole of a line that could not be taken apart.
Whoever reads overlooks all of it, so that mended lines can be sent as they are."""

MAX_LINE_BYTES = 64 << 10
"""A line, with the line breaks in its quotes and the one behind it. Nobody needs a quarter of it."""

MAX_COLUMNS = 64
"""Columns of a file, unless it says otherwise."""

KEPT_CHARACTERS = 500
"""How much of a line that is too long is shown."""

UNREADABLE = "\ufffd"
"""Stands in a file of errors for what could not be read. What names something and has it in it is refused again."""


class Line(NamedTuple):
    """A line as it was read.

    ``number`` is where it begins in the file, from 1. ``values`` are by column, without empty ones. ``text`` is the
    line itself. ``problem`` says why nothing may be made of it; then ``values`` are empty.
    """

    number: int
    values: Mapping[str, str]
    text: str
    problem: Violation | None = None


def shown(raw: bytes) -> str:
    """``raw`` as text, cut where it is too long to be a line, and without the line break behind it."""
    if len(raw) > MAX_LINE_BYTES:
        return raw[:KEPT_CHARACTERS].decode("utf-8", "replace") + UNREADABLE
    return raw.rstrip(b"\r\n").decode("utf-8", "replace")


TOO_LONG = Violation(
    "",
    f"The line has more than {MAX_LINE_BYTES} bytes.",
    "Shorten the line, or look for a line break that is missing. Only its beginning is shown here.",
)

CUT_OFF = Violation(
    "", "The file ends in the middle of the line.", "Send the file to its end, or with a line break behind the line."
)

NOT_UTF8 = Violation(
    "", "The line is not UTF-8.", f"Write it in UTF-8; {UNREADABLE} stands for what could not be read."
)
