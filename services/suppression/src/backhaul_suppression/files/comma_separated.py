"""CSV, as lists are read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backhaul_common.lines.comma_separated import CommaSeparated, written

from backhaul_suppression.files.columns import ALLOWED


def reader() -> CommaSeparated:
    """Reads a list out of pieces."""
    return CommaSeparated(ALLOWED)


def header(columns: Sequence[str]) -> bytes:
    """The first line of a list."""
    return written(columns)


def line(columns: Sequence[str], values: Mapping[str, str]) -> bytes:
    """A line of a list."""
    return written([values.get(name, "") for name in columns])
