"""Times as lists have them: RFC 3339."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d))?", re.ASCII)


def microseconds(text: str) -> int:
    """Unix time in microseconds of a time with its zone, or of the beginning of a day in UTC. ValueError otherwise.

    What is finer than a microsecond is cut off.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError("no time of RFC 3339")
    day, time, fraction, zone = match.groups()
    zone = "+00:00" if zone in (None, "Z", "z") else zone
    try:
        moment = datetime.fromisoformat(f"{day}T{time or '00:00:00'}.{(fraction or '')[:6]:0<6}{zone}")
    except ValueError as exc:
        raise ValueError("no time of RFC 3339") from exc
    return (moment - _EPOCH) // _MICROSECOND


def written(at_us: int) -> str:
    """``2026-01-31T12:00:00.000000Z``, of which ``microseconds`` is ``at_us``."""
    return (_EPOCH + at_us * _MICROSECOND).isoformat(timespec="microseconds").replace("+00:00", "Z")
