"""One message in three views: what happened by kind; each event and each call in its time; all that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from backhaul_cli.output import Column, facts, pretty, section, words
from backhaul_cli.texts import exact, span

if TYPE_CHECKING:
    from backhaul_client.models import Event, Message
    from backhaul_client.notificationmodels import Delivery
    from rich.console import RenderableType

_EARLIEST = datetime.min.replace(tzinfo=UTC)


def _summary(message: Message) -> RenderableType:
    engagement = message.engagement
    return facts(
        ("message", message.message_id),
        ("channel", message.channel),
        ("state", message.state),
        ("counts as", message.fulfilment_state),
        ("error", " ".join(part for part in (message.error_code, message.error_text) if part)),
        ("see", message.error_url),
        ("recipient", message.recipient),
        ("sender", message.sender),
        ("communication", message.communication_id),
        ("batch", message.batch_id),
        ("member", message.member_key),
        ("opened", engagement.opened or None),
        ("clicked", engagement.clicked or None),
        ("references", message.references),
        ("parameters", {pair.name: pair.value for pair in message.vars}),
        ("since", message.created_at),
        ("last event", message.last_event_at),
    )


class _Group(NamedTuple):
    kind: str
    events: list[Event]


def _compact(message: Message, _: Sequence[Delivery]) -> Iterator[RenderableType]:
    """What happened, a line for each kind, in the order of the first of each."""
    yield _summary(message)
    groups: dict[str, list[Event]] = {}
    for event in message.timeline:
        groups.setdefault(event.kind, []).append(event)
    yield from section(
        [_Group(kind, events) for kind, events in groups.items()],
        [
            Column("event", lambda one: one.kind),
            Column("times", lambda one: len(one.events), right=True),
            Column("first", lambda one: _when(one.events[0])),
            Column("error", lambda one: next((e.error_code for e in one.events if e.error_code), "")),
            Column("told by", lambda one: tuple(dict.fromkeys(e.source for e in one.events)), folds=True),
        ],
    )
    yield from _missing(message)


class _Step(NamedTuple):
    at: datetime | None
    what: str
    detail: str


def _timeline(message: Message, deliveries: Sequence[Delivery]) -> Iterator[RenderableType]:
    """Each event and each call to the tenant's application, in their order, those to come last."""
    yield _summary(message)
    steps = sorted([*_events(message), *_calls(deliveries)], key=lambda step: step.at or _EARLIEST)
    known = [step.at for step in steps if step.at is not None]
    first = min(known, default=None)
    yield from section(
        steps,
        [
            Column("at", lambda one: exact(one.at) if one.at else "not known"),
            Column("after", lambda one: _after(first, one.at), right=True),
            Column("what", lambda one: one.what),
            Column("detail", lambda one: one.detail, folds=True),
        ],
    )
    yield from _missing(message)


def _events(message: Message) -> Iterator[_Step]:
    for event in message.timeline:
        parts = (
            event.provider_status,
            event.error_code,
            event.error_text,
            event.text,
            f"by {event.source}" if event.source else "",
            event.verification,
        )
        yield _Step(event.occurred_at or event.received_at, event.kind, "  ".join(part for part in parts if part))


def _calls(deliveries: Sequence[Delivery]) -> Iterator[_Step]:
    for delivery in deliveries:
        for number, attempt in enumerate(delivery.history):
            outcome = str(attempt.status) if attempt.status else attempt.error or ""
            detail = f"{outcome}  {delivery.type}  try {attempt.number}, {attempt.duration_ms:.0f} ms"
            yield _Step(attempt.at, _told(delivery, number), detail)
        if delivery.state in ("waiting", "held"):
            detail = f"{delivery.type}  subscription {delivery.subscription_id}, {delivery.attempts} tries before"
            yield _Step(
                delivery.next_attempt_at or delivery.created_at, f"\N{HORIZONTAL ELLIPSIS} {delivery.state}", detail
            )
        elif delivery.state == "failed":
            yield _Step(delivery.ended_at, "given up", f"{delivery.type}  subscription {delivery.subscription_id}")


def _told(delivery: Delivery, number: int) -> str:
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


def _raw(message: Message, deliveries: Sequence[Delivery]) -> Iterator[RenderableType]:
    """All that is known, as JSON."""
    for line in pretty({"message": message, "deliveries": deliveries}).splitlines():
        yield words(line)


def _missing(message: Message) -> Iterator[RenderableType]:
    if message.timeline_truncated:
        yield words("There are more events: backhaul events --channel and --message list them.")
    if message.expired_events:
        yield words(f"{message.expired_events} more events are kept no longer.")


def _when(event: Event) -> str:
    moment = event.occurred_at or event.received_at
    return exact(moment) if moment else ""


def _after(first: datetime | None, moment: datetime | None) -> str:
    return "" if first is None or moment is None else f"+{span((moment - first).total_seconds())}"


VIEWS: Mapping[str, Callable[[Message, Sequence[Delivery]], Iterator[RenderableType]]] = {
    "compact": _compact,
    "timeline": _timeline,
    "raw": _raw,
}
