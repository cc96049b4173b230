"""In which hour something counts. Hours and days are whole ones of UTC since 1970."""

from __future__ import annotations

from backhaul_normalizer.model import DAY_US

HOUR_US = 3_600_000_000
DAY_HOURS = 24

MAX_BEFORE_US, MAX_AFTER_US = 400 * DAY_US, DAY_US
"""How long before its arrival an event may have happened, by its provider's word, and how long after it, to count when
it did. Otherwise whoever sends it could have a document made for each day that ever was."""


def hour_of(occurred_at_us: int, received_at_us: int) -> int:
    """The hour in which an event counts: when it happened; when it arrived, if that is not to be believed."""
    if -MAX_BEFORE_US <= occurred_at_us - received_at_us <= MAX_AFTER_US:
        return occurred_at_us // HOUR_US
    return received_at_us // HOUR_US
