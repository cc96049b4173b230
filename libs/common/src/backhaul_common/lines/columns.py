"""Which columns a file may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lines.line import ERROR_COLUMNS, MAX_COLUMNS


@dataclass(frozen=True, slots=True)
class Columns:
    """``names`` are told of where a header is not understood, and the first one must be there. ``silent`` are taken
    too, and not told of. ``others``: every other name is a column as well, as it is written; where not, it is refused,
    since a column that is overlooked may be an important one, misspelled. ``most`` is how many a file has at most.
    """

    names: tuple[str, ...]
    silent: tuple[str, ...] = ()
    others: bool = False
    most: int = MAX_COLUMNS

    @property
    def known(self) -> frozenset[str]:
        """Names that are read in any case of letters."""
        return frozenset({*self.names, *self.silent, *ERROR_COLUMNS})

    def of_header(self, fields: Sequence[str]) -> tuple[str, ...]:
        """The columns that a header names. INVALID_ARGUMENT, of the field ``data``."""
        if len(fields) > self.most:
            raise self._wrong(f"The header names more than {self.most} columns.")
        known = self.known
        given = [field.strip() for field in fields]
        names = tuple(lowered if (lowered := name.lower()) in known else name for name in given)
        unknown = [name.lower() for name in names if name not in known]
        if not self.others and unknown:
            raise self._wrong(f"The header names a column that is not known: {unknown[0][:80]!r}.")
        if "" in names:
            raise header_error("A column of the header has no name.", "Name each column.")
        if len(set(names)) < len(names):
            raise header_error("The header names a column twice.", "Name each once.")
        if self.names[0] not in names:
            raise self._wrong(f"The header does not name the column {self.names[0]}.")
        return names

    @property
    def begin(self) -> str:
        """What a file without a header should do."""
        return f"Begin it with a line of column names: {', '.join(self.names)}{', or others' if self.others else ''}."

    def _wrong(self, message: str) -> BackhaulError:
        told = ", ".join(self.names)
        if self.others:
            return header_error(message, f"Separate the names by commas. These have a meaning: {told}.")
        return header_error(
            message, f"Separate the names by commas, and take only these: {told}. Take out other columns."
        )


def header_error(message: str, fix: str) -> BackhaulError:
    """What ends the reading of a file of which no line can be understood."""
    return BackhaulError(Code.INVALID_ARGUMENT, message, field="data", fix=fix)
