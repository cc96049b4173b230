"""The formats of files, by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.lines import comma_separated, json_lines
from backhaul_common.lines.line import Line
from backhaul_common.vocabulary import Values


class FileFormat(StrEnum):
    """How a file is written."""

    CSV = "csv"
    JSON_LINES = "json_lines"


def format_of(formats: Values[FileFormat], number: int) -> FileFormat:
    """What the field ``format`` of a request names. INVALID_ARGUMENT."""
    file_format = formats.value(number, "format")
    if file_format is None:
        raise BackhaulError(Code.INVALID_ARGUMENT, "format is missing.", field="format", fix="Pass CSV or JSON_LINES.")
    return file_format


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
class Errors:
    """How a file of errors is written: its first line, and the one of a refused line, of a file with these columns."""

    header: Callable[[Sequence[str]], bytes]
    line: Callable[[Sequence[str], Line, Violation], bytes]


ERRORS: Mapping[FileFormat, Errors] = {
    FileFormat.CSV: Errors(comma_separated.error_header, comma_separated.error_line),
    FileFormat.JSON_LINES: Errors(json_lines.error_header, json_lines.error_line),
}
