"""What a list of events is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from backhaul_proto.event.v1.event_pb2 import Event

from backhaul_normalizer import buckets


@dataclass(frozen=True, slots=True)
class Asked:
    """A question for a page of events of one registration; what is empty does not filter.

    ``message`` is the key of a message. ``span`` is that of the arrivals, from inclusive to exclusive; 0 leaves an end
    open. ``before`` is the position of the page before: time and id.
    """

    registration: str
    channel: str = ""
    kind: str = ""
    address: str = ""
    communication_id: str = ""
    error_code: str = ""
    message: str = ""
    span: tuple[int, int] = (0, 0)
    before: tuple[int, bytes] | None = None

    def fits(self, event: Event, communication_id: str) -> bool:
        """Whether it is one of the events that the page may have."""
        return (
            not event.duplicate_of
            and (not self.channel or event.channel == self.channel)
            and (not self.kind or buckets.kind_name(event.kind) == self.kind)
            and (not self.communication_id or communication_id == self.communication_id)
            and (not self.error_code or event.error_code == self.error_code)
        )

    def within(self, received_at_us: int, event_id: bytes) -> bool:
        """Whether an event that arrived then is in the span, and behind the page before."""
        return (
            self.span[0] <= received_at_us
            and (not self.span[1] or received_at_us < self.span[1])
            and (self.before is None or (received_at_us, event_id) < self.before)
        )

    @property
    def until_us(self) -> int:
        """The latest arrival that the page may have; 0 where there is none."""
        ends = [end for end in (self.span[1] - 1, self.before[0] if self.before else -1) if end >= 0]
        return min(ends, default=0)

    @property
    def marks(self) -> list[str]:
        """The marks of buckets that may have such events; that which fewest have comes first."""
        marks = [buckets.communication_mark(self.communication_id)] if self.communication_id else []
        marks += [buckets.kind_mark(self.kind)] if self.kind else []
        marks += [buckets.channel_mark(self.channel)] if self.channel else []
        return marks or [buckets.ALL]
