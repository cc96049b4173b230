"""What is told to whoever asks for more than can be read in time: how to narrow it. Each is DEADLINE_EXCEEDED."""

from __future__ import annotations

from datetime import UTC, datetime

from backhaul_common.errors import BackhaulError, Code

from backhaul_normalizer.timelines import MAX_READ_S


def too_long() -> BackhaulError:
    """Of rows that few filters fit."""
    return BackhaulError(
        Code.DEADLINE_EXCEEDED,
        f"Not enough was found within {MAX_READ_S:g} s: few rows fit the filters, of many to look at.",
        field="from",
        fix="Narrow the span with from and to, or filter by recipient, communication, error_code, or message_id with "
        "its channel, which are indexed.",
    )


def too_many_days() -> BackhaulError:
    """Of the days of a communication."""
    return BackhaulError(
        Code.DEADLINE_EXCEEDED,
        f"It has so many days that they cannot be summed up within {MAX_READ_S:g} s.",
        field="communication_id",
        fix="Ask for its statistics, span by span.",
    )


def too_many_to_sort(most: int) -> BackhaulError:
    """Of the events of a recipient or a message, of which ``most`` are sorted."""
    return BackhaulError(
        Code.DEADLINE_EXCEEDED,
        f"More than {most} events of this recipient or message would have to be sorted.",
        field="from",
        fix="Narrow the span with from and to.",
    )


def too_many_counts() -> BackhaulError:
    """Of the counts of a span."""
    return BackhaulError(
        Code.DEADLINE_EXCEEDED,
        f"The span holds more than can be summed up within {MAX_READ_S:g} s.",
        field="from",
        fix="Narrow the span with from and to, name one communication, or do not group by it.",
    )


def too_many_errors(span: tuple[int, int]) -> BackhaulError:
    """Of the errors of a span, in microseconds; 0 is an open end."""
    first, last = (_moment(at_us) for at_us in span)
    return BackhaulError(
        Code.DEADLINE_EXCEEDED,
        f"The errors from {first or 'the beginning'} to {last or 'now'} are more than can be counted within "
        f"{MAX_READ_S:g} s.",
        field="from",
        fix="Narrow the span with from and to, or count one error_code.",
    )


def _moment(at_us: int) -> str:
    if not at_us:
        return ""
    try:
        return f"{datetime.fromtimestamp(at_us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return f"{at_us} µs"  # Beyond the calendar.
