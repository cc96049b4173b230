"""Folders for the data of servers that nothing outlives: in memory, where there is room for them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108  # Linux's file system in memory; folders in it are made as tempfile makes them.
MIN_ROOM_BYTES = 6 << 30
"""Several servers fill about half of it at once; containers that are given little memory have less here."""

_PREFIX = "backhaul-scratch-"
_YOUNG_S = 60.0


@contextmanager
def scratch(memory: Path = MEMORY, *, min_room_bytes: int = MIN_ROOM_BYTES) -> Iterator[Path]:
    """An empty folder, removed at the end.

    In memory, nobody waits for a disk: a mongod commits in half of the time. What a process wrote survives kill -9
    there as well; only the machine must not go off. A set TMPDIR wins.
    """
    place = memory if not os.environ.get("TMPDIR") and _room_bytes(memory) >= min_room_bytes else None
    if place is not None:
        remove_abandoned(place)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place, ignore_cleanup_errors=True) as folder:
        # The system lets go of it when this process ends, in whatever way.
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(lock)


def remove_abandoned(place: Path) -> None:
    """Remove the folders there of processes that were killed: they would keep their memory until the next boot."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # Somebody else's, in use, or removed meanwhile.
            # Whoever makes one locks it at once, but not in the same moment.
            if time.time() - folder.stat().st_mtime < _YOUNG_S:
                continue
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _room_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0
    except OSError:
        return 0
