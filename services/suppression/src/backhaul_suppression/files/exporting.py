"""Export: rows become lines of a list, as they are read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from backhaul_common.lines.formats import FileFormat

from backhaul_suppression.files import times
from backhaul_suppression.files.columns import COLUMNS, STANDING
from backhaul_suppression.files.formats import FORMATS
from backhaul_suppression.model import Fact, Row
from backhaul_suppression.ports import Reads, RowsQuery


class Export:
    """Writes lists.

    Rows are read some at a time, and each is written as it is then. So a row that stands from the beginning to the end
    is there once; one that begins or ends meanwhile may be there or not. Whoever needs what stands at one moment asks
    ``Watch`` for its position first, and behind it for what has changed since.
    """

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def run(self, registration: str, file_format: FileFormat, query: RowsQuery) -> AsyncGenerator[bytes, None]:
        """The file in pieces, none of them empty but the first of JSON Lines, which has no header. UNAVAILABLE."""
        written = FORMATS[file_format]
        columns = COLUMNS if query.active else (*COLUMNS, STANDING)
        yield written.header(columns)
        async for rows in self._reads.exported(registration, query):
            if rows:
                facts = await self._reads.facts(registration, {row.fact_id for row in rows})
                yield b"".join(written.line(columns, values_of(row, facts.get(row.fact_id))) for row in rows)


def values_of(row: Row, fact: Fact | None) -> Mapping[str, str]:
    """What a line says of a row, and of the fact that it follows from."""
    key = row.key
    evidence = fact.evidence if fact is not None else None
    return {
        "address": key.address.text,
        "family": key.address.family,
        "kind": key.kind,
        "scope_kind": key.scope.kind,
        "scope": key.scope.id,
        "effective_at": times.written(row.since_us),
        "source": row.source,
        "reference": evidence.reference if evidence is not None else "",
        "note": fact.note if fact is not None else "",
        STANDING: "active" if row.active else "lifted",
    }
