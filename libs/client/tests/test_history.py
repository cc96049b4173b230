"""What became of a message, in its order, and times as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from backhaul_client.history import by_kind, steps, told
from backhaul_client.models import Message, decoded
from backhaul_client.moments import is_span, moment_of
from backhaul_client.notificationmodels import Attempt, Delivery
from test_following import event

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def message(*kinds: tuple[str, int | None]) -> Message:
    """One with an event of each kind, so many seconds after ``AT``; None: nobody knows when."""
    timeline: list[Any] = []
    for number, (kind, after) in enumerate(kinds):
        data = b"\n".join(
            line.removeprefix(b"data: ") for line in event("1", f"{number}").split(b"\n") if line.startswith(b"data: ")
        )
        fields = msgspec.json.decode(data)
        at = None if after is None else AT + timedelta(seconds=after)
        timeline.append({**fields, "kind": kind, "occurred_at": at, "source": "callback"})
    texts = [
        "channel",
        "message_id",
        "provider",
        "state",
        "recipient",
        "sender",
        "communication_id",
        "error_code",
        "error_text",
    ]
    nothing = ["fulfilment_state", "error_class", "error_url", "created_at", "last_event_at"]
    engagement = ["opened", "opened_by_machine", "unique_opened", "clicked", "clicked_by_machine", "unique_clicked"]
    whole = {
        **dict.fromkeys([*texts, "error_code", "error_text"], ""),
        **dict.fromkeys(nothing),
        "event_count": len(timeline),
        "engagement": dict.fromkeys(engagement, 0),
        "references": [],
        "vars": [],
        "timeline": timeline,
        "timeline_truncated": False,
    }
    return decoded(msgspec.json.encode(whole), Message)


def attempt(number: int, after: int, status: int, error: str | None = None, redelivery: int = 0) -> Attempt:
    at = AT + timedelta(seconds=after)
    return Attempt(
        number=number, at=at, duration_ms=5, status=status, error=error, text="", answer_text="", request="",
        redelivery=redelivery,
    )  # fmt: skip


def delivery(state: str, *history: Attempt, next_after: int | None = None, attempts: int | None = None) -> Delivery:
    return Delivery(
        id="d", subscription_id="s", webhook_id="w", type="message.sent", event_id="e", revision=0, channel="twilio",
        message_id="SM1", communication_id=None, state=state, attempts=len(history) if attempts is None else attempts,
        created_at=AT, ended_at=AT + timedelta(seconds=90), last_attempt=history[-1] if history else None,
        next_attempt_at=None if next_after is None else AT + timedelta(seconds=next_after), history=history,
    )  # fmt: skip


def test_events_are_grouped_by_kind_in_the_order_of_the_first_of_each() -> None:
    found = by_kind(message(("sent", 0), ("opened", 1), ("sent", 2), ("opened", 3)))
    assert [(group.kind, len(group.events)) for group in found] == [("sent", 2), ("opened", 2)]
    assert [group.sources for group in found] == [("callback",), ("callback",)]


def test_steps_are_in_their_order_with_what_is_to_come_last() -> None:
    waiting = delivery("waiting", attempt(1, 5, 503), next_after=600)
    at_once = delivery("waiting", next_after=1)
    given_up = delivery("failed", attempt(1, 6, 0, "timeout"))
    found = steps(
        message(("sent", 0), ("delivered", 10), ("unknown", None)), [waiting, given_up, delivery("held"), at_once]
    )
    assert [step.what for step in found] == [
        "unknown", "sent", "not told", "not told", "delivered", "given up", "waiting", "waiting", "held",
    ]  # fmt: skip
    assert [step.at for step in found[-3:]] == [at_once.next_attempt_at, waiting.next_attempt_at, None]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (delivery("delivered", attempt(1, 0, 503), attempt(2, 1, 200)), ["not told", "told"]),
        # A policy may want exactly 200.
        (delivery("waiting", attempt(1, 0, 204)), ["not told"]),
        (delivery("failed", attempt(1, 0, 200, "reset")), ["not told"]),
        # Asked for again, whatever came of it before.
        (delivery("waiting", attempt(1, 0, 200), attempts=0), ["answered"]),
        (delivery("delivered", attempt(1, 0, 200), attempt(1, 9, 200, redelivery=1)), ["answered", "told"]),
    ],
)
def test_an_answer_counts_as_what_followed_says(one: Delivery, expected: list[str]) -> None:
    assert [told(one, number) for number in range(len(one.history))] == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("90m", AT - timedelta(minutes=90)),
        (" 2w ", AT - timedelta(weeks=2)),
        ("2026-02-28", datetime(2026, 2, 28, tzinfo=UTC)),
        ("2026-02-28 10:00:00 UTC", datetime(2026, 2, 28, 10, tzinfo=UTC)),
        ("2026-02-28T10:00:00.5+02:00", datetime(2026, 2, 28, 8, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_time_is_said_exactly_or_as_how_long_ago(text: str, found: datetime) -> None:
    assert moment_of(text, AT) == found
    assert is_span(text) == text.strip().endswith(("m", "w"))


@pytest.mark.parametrize(
    "text", ["", "yesterday", "999999w", "2h3m", "-2h", "\u0662h", "2026-02-30", "0001-01-01T00:00+14:00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # no message of its own: whoever asks says what is wrong
        moment_of(text, AT)
