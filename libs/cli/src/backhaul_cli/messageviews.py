"""One message in three views: what happened by kind; each event and each call in its time; all that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from backhaul_client.history import Step, by_kind, steps, when

from backhaul_cli.output import Column, facts, pretty, section, words
from backhaul_cli.texts import exact, span

if TYPE_CHECKING:
    from backhaul_client.models import Message
    from backhaul_client.notificationmodels import Delivery
    from rich.console import RenderableType

_TO_COME = ("waiting", "held")


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


def _compact(message: Message, _: Sequence[Delivery]) -> Iterator[RenderableType]:
    """What happened, a line for each kind, in the order of the first of each."""
    yield _summary(message)
    yield from section(
        by_kind(message),
        [
            Column("event", lambda one: one.kind),
            Column("times", lambda one: len(one.events), right=True),
            Column("first", lambda one: exact(at) if (at := when(one.events[0])) else ""),
            Column("error", lambda one: one.error_code),
            Column("told by", lambda one: one.sources, folds=True),
        ],
    )
    yield from _missing(message)


def _timeline(message: Message, deliveries: Sequence[Delivery]) -> Iterator[RenderableType]:
    """Each event and each call to the tenant's application, in their order, those to come last."""
    yield _summary(message)
    found = steps(message, deliveries)
    first = next((step.at for step in found if step.at is not None), None)
    yield from section(
        found,
        [
            Column("at", _at),
            Column("after", lambda one: _after(first, one.at), right=True),
            Column("what", lambda one: f"\N{HORIZONTAL ELLIPSIS} {one.what}" if one.what in _TO_COME else one.what),
            Column("detail", _detail, folds=True),
        ],
    )
    yield from _missing(message)


def _at(step: Step) -> str:
    if step.at:
        return exact(step.at)
    if not step.to_come or step.delivery is None:
        return "not known"
    return "when resumed" if step.delivery.when_resumed else "when enabled"


def _detail(step: Step) -> str:
    event, delivery, attempt = step.event, step.delivery, step.attempt
    if event is not None:
        parts = (
            event.provider_status,
            event.error_code,
            event.error_text,
            event.text,
            f"by {event.source}" if event.source else "",
            event.verification,
        )
        return "  ".join(part for part in parts if part)
    if delivery is None:
        return ""
    if attempt is not None:
        outcome = str(attempt.status) if attempt.status else attempt.error or ""
        return f"{outcome}  {delivery.type}  try {attempt.number}, {attempt.duration_ms:.0f} ms"
    tries = f", {delivery.attempts} tries before" if step.what in _TO_COME else ""
    return f"{delivery.type}  subscription {delivery.subscription_id}{tries}"


def _raw(message: Message, deliveries: Sequence[Delivery]) -> Iterator[RenderableType]:
    """All that is known, as JSON."""
    for line in pretty({"message": message, "deliveries": deliveries}).splitlines():
        yield words(line)


def _missing(message: Message) -> Iterator[RenderableType]:
    if message.timeline_truncated:
        yield words("There are more events: backhaul events --channel and --message list them.")
    if message.expired_events:
        yield words(f"{message.expired_events} more events are kept no longer.")


def _after(first: datetime | None, moment: datetime | None) -> str:
    return "" if first is None or moment is None else f"+{span((moment - first).total_seconds())}"


VIEWS: Mapping[str, Callable[[Message, Sequence[Delivery]], Iterator[RenderableType]]] = {
    "compact": _compact,
    "timeline": _timeline,
    "raw": _raw,
}
