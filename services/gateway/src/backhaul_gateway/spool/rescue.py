"""A spool's file that is no database any more: what can be read of it goes into another one, which takes its place."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backhaul_gateway.spool.file import NAME, RESCUED, Kept, SpoolFile, kept_of, readable_text, sync_directory

_SAVED_AT_ONCE: Final = 100
_FARTHEST: Final = 1 << 32


def rescued(directory: Path, *, by_subject: bool = False) -> tuple[SpoolFile, int]:
    """A new spool in ``directory``, whose damaged file is set aside, and how many callbacks could be taken from that.

    Nobody may have the damaged one open. It stays where it is until the new one is whole, so that whatever ends this
    may be followed by another try. Raises what making a ``SpoolFile`` raises.
    """
    building = directory / "rescuing"
    shutil.rmtree(building, ignore_errors=True)
    saved = 0
    file = SpoolFile(building)
    try:
        damaged = sqlite3.connect(directory / NAME)
        try:
            damaged.text_factory = readable_text
            rows: list[Kept] = []
            for row in _readable(damaged):
                rows.append(row)
                if len(rows) == _SAVED_AT_ONCE:
                    file.append(rows)
                    saved, rows = saved + len(rows), []
            file.append(rows)
            saved += len(rows)
        finally:
            damaged.close()
    finally:
        file.close()
    sync_directory(building)
    building.rename(directory / RESCUED)
    sync_directory(directory)
    return SpoolFile(directory, by_subject=by_subject), saved


def _readable(damaged: sqlite3.Connection) -> Iterator[Kept]:
    """What can be read of a damaged file. Behind a page that cannot be, rows are looked for in growing steps."""
    position, step = 0, 1
    while step < _FARTHEST:
        try:
            asked = "SELECT * FROM callbacks WHERE seq > ? ORDER BY seq LIMIT 1"
            found = damaged.execute(asked, (position,)).fetchone()
        except sqlite3.Error:
            position, step = position + step, step * 2
            continue
        if found is None:
            return
        position, *fields, crc = found
        step = 1
        row = kept_of(fields)
        if row is not None and row.crc == crc:
            yield row
