"""By when an opt-out must be honoured."""

from __future__ import annotations

DAY_US = 86_400_000_000


def due_by(effective_at_us: int) -> int:
    """The end of the tenth business day after ``effective_at_us``, both unix time in microseconds."""
    return effective_at_us + 14 * DAY_US
