"""How the demo shows what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backhaul_local.demo_api import Answer
from backhaul_local.demo_burst import percentile
from backhaul_local.demo_checks import NOTHING, Check, counts, outcome_of
from backhaul_local.demo_story import (
    BURST_CONNECTIONS,
    BURST_DUPLICATES,
    BURST_MESSAGES,
    Cast,
    Delivered,
    Loaded,
    Refused,
)
from backhaul_local.demo_traffic import ExpectedMessage

_WIDTH_OF_A_FILE = 130
_LONG = 24  # What holds and is longer is not said twice.
_STATE_STYLES = {"Delivered": "green", "Sent": "cyan", "Queued": "cyan"}


def new_console() -> Console:
    """A console as wide as the terminal; wide enough for the tables where the output is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_OF_A_FILE)


class Screen:
    """The demo's output, section by section."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._sections = 0

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style))

    def section(self, title: str, why: str) -> None:
        """A heading that says what is shown, and a line that says why."""
        self._sections += 1
        self._console.print()
        self._console.rule(Text(f"{self._sections}  {title}", style="bold"), align="left", style="dim")
        self.say(why, "dim")

    def cast(self, cast: Cast) -> None:
        table = _table("tenant", "queue path", "channel", "a callback is authentic when", "otherwise")
        twilio = "its HMAC-SHA1 fits the account's auth token"
        sendgrid = "its ECDSA signature fits the webhook's public key"
        for tenant, channel, rule in (
            (cast.acme, "Twilio", twilio),
            (cast.acme, "SendGrid", sendgrid),
            (cast.globex, "Twilio", twilio),
        ):
            table.add_row(tenant.name, tenant.queue_path, channel, rule, "refused with 403")
        self._console.print(table)

    def messages(self, seen: Delivered, channel: str) -> None:
        """A timeline for each message of a channel."""
        for due, answer in seen.messages:
            if due.channel == channel:
                self._message(due, answer)

    def _message(self, due: ExpectedMessage, answer: Answer) -> None:
        style = _STATE_STYLES.get(str(answer.body.get("fulfilment_state")), "yellow")
        self._console.print()
        self._console.print(Text.assemble((due.story, "bold"), " — ends ", (outcome_of(answer), f"bold {style}")))
        self._console.print(Text(f"{due.channel} {due.message_id}  {answer.body.get('recipient', '')}", style="dim"))
        table = _table("time", "kind", "provider's word", "error or text")
        for event in answer.body.get("timeline", []):
            table.add_row(_time(event["occurred_at"]), event["kind"], event["provider_status"], Text(_remark(event)))
        self._console.print(table)

    def communication(self, answer: Answer) -> None:
        """Both counts side by side: where messages stand, and what happened to them."""
        fulfilment = answer.body.get("fulfilment", {})
        table = _table(*fulfilment, "messages", numbers=True)
        table.add_row(*(str(count) for count in fulfilment.values()), str(answer.body.get("messages")))
        self._console.print(table)
        self._console.print(Text(f"events: {counts(answer.body.get('events', {}))}"))

    def dead_letters(self, seen: Delivered) -> None:
        table = _table("channel", "state", "why it could not be read")
        for letter in seen.dead_letters:
            table.add_row(letter["channel"], letter["state"], Text(letter["reason"]))
        self._console.print(table)

    def refused(self, seen: Refused) -> None:
        table = _table("what was tried", "answer", "why, in the answer's own words")
        for attempt in seen.attempts:
            answer = Text(str(attempt.answer.status), style="bold yellow")
            table.add_row(attempt.what, answer, Text(attempt.answer.detail))
        self._console.print(table)

    def load(self, seen: Loaded) -> None:
        result = seen.result
        table = _table("figure", "seen")
        for name, value in (
            (
                f"callbacks: {BURST_MESSAGES} messages, queued, sent and delivered, and {BURST_DUPLICATES} duplicates",
                f"{len(result.statuses):,}",
            ),
            (
                f"answered after they were on disk, over {BURST_CONNECTIONS} connections",
                f"{result.per_second:,.0f} a second",
            ),
            (
                "answer to a POST under this load",
                f"p50 {_ms(result.latencies_s, 50)}, p99 {_ms(result.latencies_s, 99)}",
            ),
            ("from the last answer until every count was right", f"{seen.counted_s * 1000:,.0f} ms"),
            (
                f"from a POST to its state being readable, {len(seen.readable_s)} one by one",
                f"p50 {_ms(seen.readable_s, 50)}, slowest {_ms(seen.readable_s, 100)}",
            ),
        ):
            table.add_row(name, Text(value, style="bold"))
        self._console.print(table)

    def checks(self, checks: Sequence[Check]) -> None:
        table = _table("", "figure", "expected", "got")
        for check in checks:
            mark, style = ("✓", "green") if check.holds else ("✗", "bold red")
            got = "the same" if check.holds and len(check.got) > _LONG else check.got
            table.add_row(Text(mark, style=style), Text(check.name), Text(check.expected), Text(got, style=style))
        self._console.print(table)


def _table(*columns: str, numbers: bool = False) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    return table


def _time(rfc3339: str | None) -> str:
    """2026-07-17 12:06:00.123 of an RFC 3339 time in UTC."""
    return rfc3339[:23].rstrip("Z").replace("T", " ") if rfc3339 else NOTHING


def _remark(event: dict[str, Any]) -> str:
    if event["error_code"]:
        return f"{event['error_code']}  {event['error_text']}"
    action = event["consent"]["action"].replace("_", " ") if event["consent"] else ""
    return f"“{event['text']}”" + (f"  understood as {action}" if action else "") if event["text"] else ""


def _ms(seconds: Sequence[float], percent: float) -> str:
    return f"{percentile(seconds, percent) * 1000:.1f} ms"
