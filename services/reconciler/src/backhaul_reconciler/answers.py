"""Reports, differences, days and standings as they are answered over gRPC."""

from __future__ import annotations

from typing import Any

from backhaul_common.vocabulary import Values, Words
from backhaul_proto.event.v1.event_pb2 import EventKind
from backhaul_proto.reconciler.v1 import reconciler_pb2 as pb

from backhaul_reconciler.differences import Found
from backhaul_reconciler.model import Cause, Day, DayState, DifferenceKind, Report, RunState, Standing
from backhaul_reconciler.standings import ChannelStanding, Silence

DIFFERENCE_KINDS = Values(pb.DifferenceKind.DESCRIPTOR, DifferenceKind)
_CAUSES = Values(pb.Cause.DESCRIPTOR, Cause)
_RUN_STATES = Values(pb.RunState.DESCRIPTOR, RunState)
_DAY_STATES = Values(pb.DayState.DESCRIPTOR, DayState)
_STANDINGS = Values(pb.Standing.DESCRIPTOR, Standing)
_SILENCES = Values(pb.Silence.DESCRIPTOR, Silence)
_KINDS = Words(EventKind.DESCRIPTOR)


def report_message(report: Report) -> pb.Report:
    """The message of a report."""
    begun = report.begun
    return pb.Report(
        id=begun.id,
        channel=report.channel,
        cause=_CAUSES.number(begun.cause),
        state=_RUN_STATES.number(report.state),
        text=report.text,
        from_us=begun.from_us,
        to_us=begun.to_us,
        counts=pb.Counts(**report.counts.told()),
        began_at_us=begun.began_at_us,
        ended_at_us=report.ended_at_us,
        dry_run=begun.dry_run,
    )


def difference_message(found: Found) -> pb.Difference:
    """The message of a difference."""
    difference = found.difference
    return pb.Difference(
        channel=found.channel,
        message_id=difference.message_id,
        kind=DIFFERENCE_KINDS.number(difference.kind),
        our_state=_state(difference.our_state),
        our_error_code=difference.our_error_code,
        provider_state=_state(difference.provider_state),
        provider_error_code=difference.provider_error_code,
        first_seen_at_us=found.first_seen_at_us,
        last_seen_at_us=found.last_seen_at_us,
        report_id=found.run,
    )


def day_message(channel: str, day: Day) -> pb.Day:
    """The message of a day's account."""
    return pb.Day(
        channel=channel,
        day=day.day,
        state=_DAY_STATES.number(day.state),
        text=day.text,
        provider_messages=day.provider_messages,
        equal=day.equal,
        backfilled=day.backfilled,
        differing=day.differing,
        open=day.open,
        unknown_to_provider=day.unknown_to_provider,
        compared_at_us=day.compared_at_us,
    )


def channel_message(standing: ChannelStanding) -> pb.Channel:
    """The message of how it stands with a channel."""
    return pb.Channel(
        channel=standing.channel,
        standing=_STANDINGS.number(standing.standing),
        text=standing.text,
        asked_at_us=standing.asked_at_us,
        due_at_us=standing.due_at_us,
        discovered_to_us=standing.discovered_to_us,
        silence=pb.SILENCE_UNSPECIFIED if standing.silence is None else _SILENCES.number(standing.silence),
        silent_since_us=standing.silent_since_us,
        report_id=standing.report_id,
    )


def _state(word: str) -> Any:
    """The number of a state; 0, which says nothing, where there is none, or none that this copy knows."""
    return _KINDS.number(word) or 0
