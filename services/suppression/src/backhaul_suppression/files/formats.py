"""The formats of lists, by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from backhaul_common.errors import Violation

from backhaul_suppression.files import comma_separated, json_lines
from backhaul_suppression.files.line import Line


class FileFormat(StrEnum):
    """How a list is written."""

    CSV = "csv"
    JSON_LINES = "json_lines"


class Reader(Protocol):
    """Reads lines out of pieces that are cut anywhere. INVALID_ARGUMENT for a file of which no line can be read."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Which a line may have, as far as that is known."""
        ...

    def feed(self, piece: bytes) -> Iterator[Line]:
        """The lines that ``piece`` completes. To be read to its end."""
        ...

    def end(self) -> Iterator[Line]:
        """What is left when the file has ended."""
        ...


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
        comma_separated.CommaSeparated,
        comma_separated.header,
        comma_separated.line,
        comma_separated.error_header,
        comma_separated.error_line,
    ),
    FileFormat.JSON_LINES: Written(
        json_lines.JsonLines,
        json_lines.header,
        json_lines.line,
        json_lines.header,
        json_lines.error_line,
    ),
}
