"""What became of one message, in its order: what happened to it, and what the tenant's application was told of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from backhaul_client.models import Event, Message
from backhaul_client.notificationmodels import Attempt, Delivery

Told = Literal["told", "not told", "answered"]

_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Group(NamedTuple):
    """The events of one kind, in their order."""

    kind: str
    events: Sequence[Event]

    @property
    def sources(self) -> tuple[str, ...]:
        """Who told them, each once."""
        return tuple(dict.fromkeys(event.source for event in self.events))

    @property
    def error_code(self) -> str:
        """The first that one of them has; empty where none has."""
        return next((event.error_code for event in self.events if event.error_code), "")


class Step(NamedTuple):
    """One thing that happened, or will: ``at`` is None where it is not known when.

    ``what`` is an ``event``'s kind; or what became of an ``attempt`` of a ``delivery`` (``told``, ``not told``, or
    ``answered`` where it is not known what the answer counted as); or of a ``delivery`` what is still to come
    (``waiting``, ``held``), or that it was ``given up``."""

    at: datetime | None
    what: str
    event: Event | None = None
    delivery: Delivery | None = None
    attempt: Attempt | None = None

    @property
    def to_come(self) -> bool:
        """Whether it has not happened yet. Its time may be over: others go first."""
        return self.delivery is not None and self.what in ("waiting", "held")


def by_kind(message: Message) -> list[Group]:
    """Its events by kind, in the order of the first of each."""
    groups: dict[str, list[Event]] = {}
    for event in message.timeline:
        groups.setdefault(event.kind, []).append(event)
    return [Group(kind, events) for kind, events in groups.items()]


def when(event: Event) -> datetime | None:
    """When it happened, as far as that is known; otherwise when it was told."""
    return event.occurred_at or event.received_at


def steps(message: Message, deliveries: Iterable[Delivery]) -> list[Step]:
    """Each event, and each call to the tenant's application, in their order, those to come last. The deliveries are
    those of the message, asked for with their ``history``."""
    found = [Step(when(event), event.kind, event=event) for event in message.timeline]
    for delivery in deliveries:
        found += _calls(delivery)
    return sorted(found, key=_place)


def _place(step: Step) -> tuple[bool, datetime]:
    """What has not happened stands behind what has, also where its time is over."""
    return step.to_come, step.at or (_LATEST if step.to_come else _EARLIEST)


def told(delivery: Delivery, number: int) -> Told:
    """Whether an attempt of its history told the application anything. What a policy takes for success, such as exactly
    200, is seen by what followed: it was delivered, or tried again."""
    attempt, later = delivery.history[number], delivery.history[number + 1 :]
    if attempt.error or not 200 <= attempt.status < 300:
        return "not told"
    if later:
        # Whoever asks for it again begins anew, whatever came of it before.
        return "not told" if later[0].redelivery == attempt.redelivery else "answered"
    if delivery.state == "delivered":
        return "told"
    return "not told" if delivery.attempts else "answered"


def _calls(delivery: Delivery) -> Iterator[Step]:
    for number, attempt in enumerate(delivery.history):
        yield Step(attempt.at, told(delivery, number), delivery=delivery, attempt=attempt)
    if delivery.state in ("waiting", "held"):
        yield Step(delivery.next_attempt_at, delivery.state, delivery=delivery)
    elif delivery.state == "failed":
        yield Step(delivery.ended_at, "given up", delivery=delivery)
