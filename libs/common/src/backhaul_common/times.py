"""Times as they are written: RFC 3339, in UTC, with microseconds."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # UTC, which is written as a Z


def time_of(at_us: int) -> str | None:
    """RFC 3339 with microseconds; None where no time is known, or none that a calendar has."""
    if not at_us:
        return None
    seconds, microseconds = divmod(at_us, 1_000_000)
    try:
        return f"{_second(seconds)}.{microseconds:06d}Z"
    except OverflowError:
        return None


@lru_cache(maxsize=1024)
def _second(at_s: int) -> str:
    """What is written together happened in few of them."""
    return (_EPOCH + timedelta(seconds=at_s)).isoformat(timespec="seconds")
