"""How lists are read and written, by the names of their formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backhaul_common.errors import Violation
from backhaul_common.lines.formats import ERRORS, FileFormat, Reader
from backhaul_common.lines.line import Line

from backhaul_suppression.files import comma_separated, json_lines


@dataclass(frozen=True, slots=True)
class Written:
    """How a format is written.

    ``header`` and ``line`` are a list's, of the columns that they are given; ``error_header`` and ``error_line`` those
    of a file of errors, whose lines had these columns.
    """

    reader: Callable[[], Reader]
    header: Callable[[Sequence[str]], bytes]
    line: Callable[[Sequence[str], Mapping[str, str]], bytes]
    error_header: Callable[[Sequence[str]], bytes]
    error_line: Callable[[Sequence[str], Line, Violation], bytes]


FORMATS: Mapping[FileFormat, Written] = {
    FileFormat.CSV: Written(
        comma_separated.reader,
        comma_separated.header,
        comma_separated.line,
        ERRORS[FileFormat.CSV].header,
        ERRORS[FileFormat.CSV].line,
    ),
    FileFormat.JSON_LINES: Written(
        json_lines.JsonLines,
        json_lines.header,
        json_lines.line,
        ERRORS[FileFormat.JSON_LINES].header,
        ERRORS[FileFormat.JSON_LINES].line,
    ),
}
