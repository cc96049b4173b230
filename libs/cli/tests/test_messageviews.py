"""What a terminal of 80 columns shows of a message, as it stands there."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from textwrap import dedent
from typing import Any

import msgspec
import pytest
from backhaul_cli.messageviews import VIEWS
from backhaul_cli.output import Output
from backhaul_client.history import steps
from backhaul_client.models import Event, Message
from backhaul_client.notificationmodels import Attempt, Delivery

SENT = datetime(2026, 11, 28, 9, 19, 40, 654_000, tzinfo=UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _made(kind: Any, /, **known: Any) -> Any:
    """A ``kind`` with ``known`` fields, whose others hold nothing."""
    empty: dict[str, Any] = {"str": "", "int": 0, "bool": False, "float": 0.0}
    values = {}
    for field in msgspec.structs.fields(kind):
        name = getattr(field.type, "__name__", "")
        values[field.name] = empty.get(name, () if "tuple" in str(field.type) else None)
    return kind(**{**values, **known})


def _event(after_s: float, kind: str, **more: Any) -> Event:
    at = SENT + timedelta(seconds=after_s)
    event: Event = _made(Event, kind=kind, occurred_at=at, source="callback", verification="verified", **more)
    return event


def _message() -> Message:
    from backhaul_client.models import Engagement

    message: Message = _made(
        Message,
        message_id="SM0001",
        channel="twilio",
        state="failed",
        fulfilment_state="Failed",
        error_code="30006",
        error_text="The number is a landline.",
        recipient="+15005550011",
        engagement=_made(Engagement),
        created_at=SENT,
        timeline=(
            _event(0, "sent", provider_status="sent"),
            _event(0.5, "sent", provider_status="sent"),
            _event(65, "failed", provider_status="undelivered", error_code="30006", text="\x1b[2J[red]gone[/red]"),
        ),
    )
    return message


def _delivery() -> Delivery:
    attempt: Attempt = _made(
        Attempt, number=1, at=SENT + timedelta(seconds=66), duration_ms=12.4, error="connect_failed"
    )
    delivery: Delivery = _made(
        Delivery,
        type="message.failed",
        subscription_id="sub_1",
        state="waiting",
        attempts=1,
        next_attempt_at=SENT + timedelta(seconds=366),
        history=(attempt,),
    )
    return delivery


def _shown(view: str, monkeypatch: pytest.MonkeyPatch) -> str:
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout", terminal)
    Output(as_json=False).thing(None, lambda: VIEWS[view](_message(), [_delivery()]))
    said = terminal.getvalue()
    assert "\x1b[31mfailed" in said
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert "\x1b" not in plain
    return "\n".join(line.rstrip() for line in plain.splitlines())


def test_what_happened_by_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _shown("compact", monkeypatch) == dedent(
        """\
        message    SM0001
        channel    twilio
        state      failed
        counts as  Failed
        error      30006 The number is a landline.
        recipient  +15005550011
        since      2026-11-28 09:19:40.654Z

        EVENT   TIMES  FIRST                     ERROR  TOLD BY
        sent        2  2026-11-28 09:19:40.654Z         callback
        failed      1  2026-11-28 09:20:45.654Z  30006  callback"""
    )


def test_each_event_and_each_call_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _shown("timeline", monkeypatch).partition("\n\n")[2] == dedent(
        """\
        AT                        AFTER  WHAT       DETAIL
        2026-11-28 09:19:40.654Z    +0s  sent       sent  by callback  verified
        2026-11-28 09:19:41.154Z    +0s  sent       sent  by callback  verified
        2026-11-28 09:20:45.654Z    +1m  failed     undelivered  30006
                                                    \\x1b[2J[red]gone[/red]  by callback
                                                    verified
        2026-11-28 09:20:46.654Z    +1m  not told   connect_failed  message.failed  try
                                                    1, 12 ms
        2026-11-28 09:25:46.654Z    +6m  … waiting  message.failed  subscription sub_1,
                                                    1 tries before"""
    )


def _tries(state: str, attempts: int, *tries: tuple[int, str | None, int]) -> list[str]:
    history = tuple(
        _made(Attempt, number=1, at=SENT, status=status, error=error, redelivery=again)
        for status, error, again in tries
    )
    delivery = _made(Delivery, state=state, attempts=attempts, history=history)
    return [step.what for step in steps(_message(), [delivery]) if step.what in ("told", "not told", "answered")]


@pytest.mark.parametrize(
    ("state", "attempts", "tries", "expected"),
    [
        ("delivered", 1, [(200, None, 0)], ["told"]),
        ("delivered", 1, [(204, None, 0)], ["told"]),
        # Of a policy that wants exactly 200.
        ("waiting", 1, [(204, None, 0)], ["not told"]),
        ("failed", 2, [(204, None, 0), (202, None, 0)], ["not told", "not told"]),
        ("delivered", 2, [(204, None, 0), (200, None, 0)], ["not told", "told"]),
        # It answered, and what followed made nothing of it.
        ("failed", 1, [(200, "too_large", 0)], ["not told"]),
        ("failed", 1, [(503, None, 0)], ["not told"]),
        # Asked for again: what the answer was taken for then is not known any more.
        ("waiting", 0, [(200, None, 0)], ["answered"]),
        ("delivered", 1, [(201, None, 0), (200, None, 1)], ["answered", "told"]),
    ],
)
def test_an_application_was_told_where_its_delivery_says_so(
    state: str, attempts: int, tries: list[tuple[int, str | None, int]], expected: list[str]
) -> None:
    assert _tries(state, attempts, *tries) == expected
