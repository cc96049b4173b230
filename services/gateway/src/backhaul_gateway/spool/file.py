"""The spool's file: one SQLite database, whose every commit has reached the disk when it returns.

All of it blocks, and belongs to one thread at a time. A transaction that the power cut short is none: SQLite's log has
checksums, and what lies behind the last whole one is passed over. Its pages have none, so that each row brings its own.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

NAME: Final = "callbacks.sqlite"
RESCUED: Final = "rescued"
"""The folder of a file that takes the place of a damaged one."""
_FORMAT: Final = 1
_SHRINKS_FROM_BYTES: Final = 16 << 20
"""An empty file that is larger gives its pages back to the disk."""

TROUBLE: Final = (sqlite3.Error, OSError, UnicodeDecodeError)
"""What whoever works with a file may meet. The last one is what sqlite3 makes of a damaged schema that it quotes."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS callbacks (
    seq INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    callback_id TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    kept_at_us INTEGER NOT NULL,
    encoded BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT
"""


class SpoolTakenError(Exception):
    """Another process has the directory, or its file is of a later version. The message says which, and what to do."""


class Kept(NamedTuple):
    """One callback: its subject in CALLBACKS, a serialised Callback, and the traceparent of its request."""

    subject: str
    callback_id: str
    traceparent: str
    kept_at_us: int
    encoded: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.encoded) + len(self.subject) + 200

    @property
    def crc(self) -> int:
        """Of all that is kept of it."""
        head = f"{self.subject}\0{self.callback_id}\0{self.traceparent}\0{self.kept_at_us}\0"
        return crc32(self.encoded, crc32(head.encode()))


class Found(NamedTuple):
    """What a part of the file holds: rows by their positions, and the positions of those that are damaged."""

    rows: Mapping[int, Kept]
    damaged: Sequence[int]


class SpoolFile:
    """See the module."""

    def __init__(self, directory: Path, *, by_subject: bool = False) -> None:
        """Take ``directory``, which is made if need be, and may hold a spool. ``by_subject`` says whether it will be
        asked for what is of one subject. Raises SpoolTakenError, and what TROUBLE has."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SpoolTakenError(
                    f"Another process has the spool in {directory}: give each gateway a directory of its own."
                ) from None
            _take_over_rescued(directory)
            path = directory / NAME
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            # Rows go from one thread to the other one after the end of what the first did with them.
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.text_factory = readable_text
            try:
                self._prepare(directory)
                if by_subject:
                    self._database.execute("CREATE INDEX IF NOT EXISTS by_subject ON callbacks (subject)")
            except BaseException:
                self._database.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def _prepare(self, directory: Path) -> None:
        found = self._database.execute("PRAGMA user_version").fetchone()[0]
        if found > _FORMAT:
            raise SpoolTakenError(
                f"The spool in {directory} is of format {found}, and this version knows {_FORMAT}: start a version "
                "that knows it until the spool is empty, or take another directory."
            )
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(_SCHEMA)
        self._database.execute(f"PRAGMA user_version = {_FORMAT}")

    def close(self) -> None:
        """Give the directory back."""
        self._database.close()
        os.close(self._lock)

    def held(self) -> list[tuple[str, int, int, int]]:
        """For each subject: callbacks, their bytes, and when the first was kept, in unix microseconds."""
        return self._database.execute(
            "SELECT subject, count(*), sum(length(encoded) + length(subject) + 200), min(kept_at_us)"
            " FROM callbacks GROUP BY subject"
        ).fetchall()

    def append(self, rows: Iterable[Kept]) -> None:
        """Keep ``rows``, in their order; all of them or none. Raises what TROUBLE has, as all that follows does."""
        with self._transaction():
            self._database.executemany(
                "INSERT INTO callbacks (subject, callback_id, traceparent, kept_at_us, encoded, crc)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                ((*row, row.crc) for row in rows),
            )

    def after(self, seq: int, rows: int, most_bytes: int, subject: str = "") -> Found:
        """At most ``rows`` of those behind the position ``seq``, of one ``subject`` if one is named, and those that
        make ``most_bytes`` full."""
        found: dict[int, Kept] = {}
        damaged: list[int] = []
        size = 0
        asked = "SELECT * FROM callbacks WHERE seq > :seq ORDER BY seq LIMIT :rows"
        if subject:
            asked = "SELECT * FROM callbacks WHERE subject = :subject AND seq > :seq ORDER BY seq LIMIT :rows"
        for position, *fields, crc in self._database.execute(asked, {"seq": seq, "rows": rows, "subject": subject}):
            row = kept_of(fields)
            if row is None or row.crc != crc:
                damaged.append(position)
                continue
            found[position] = row
            size += row.size
            if size >= most_bytes:
                break
        return Found(found, damaged)

    def remove(self, positions: Iterable[int]) -> None:
        """Forget those rows. What is asked for once more than it should be does no harm, so no disk is waited for."""
        self._database.execute("PRAGMA synchronous = NORMAL")
        try:
            with self._transaction():
                self._database.executemany("DELETE FROM callbacks WHERE seq = ?", ((one,) for one in positions))
        finally:
            self._database.execute("PRAGMA synchronous = FULL")

    def shrink(self) -> None:
        """To be called when it is empty."""
        pages, size = (self._database.execute(f"PRAGMA {one}").fetchone()[0] for one in ("page_count", "page_size"))
        if pages * size > _SHRINKS_FROM_BYTES:
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")


def kept_of(fields: Sequence[object]) -> Kept | None:
    """The row; None where a damaged page has made something else of it."""
    match fields:
        case [str(subject), str(callback_id), str(traceparent), int(kept_at_us), bytes(encoded)]:
            return Kept(subject, callback_id, traceparent, kept_at_us, encoded)
    return None


def is_damage(error: Exception) -> bool:
    """Whether ``error`` says that what lies there is no database any more, not that it cannot be written now."""
    if isinstance(error, sqlite3.DatabaseError):
        return not isinstance(error, sqlite3.OperationalError)
    return isinstance(error, UnicodeDecodeError)


def sync_directory(directory: Path) -> None:
    """Return when what was renamed in ``directory`` is so on the disk."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _take_over_rescued(directory: Path) -> None:
    """Put what ``rescue`` has made of a damaged file in its place, and that aside. Whatever ends this, the next one
    goes on with it."""
    rescued = directory / RESCUED
    if (rescued / NAME).exists():
        if damaged := [*directory.glob(f"{NAME}*")]:
            aside = directory / f"damaged-{time.time_ns() // 1000}"
            aside.mkdir(mode=0o700)
            for path in damaged:
                path.rename(aside / path.name)
        (rescued / NAME).rename(directory / NAME)
        sync_directory(directory)
    if rescued.exists():
        shutil.rmtree(rescued)


def readable_text(raw: bytes) -> str:
    """Of a column, whatever has become of it."""
    return raw.decode(errors="replace")
