"""How the demo shows what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import quantiles

from backhaul_client.models import Event
from backhaul_client.suppressionmodels import Blocking, Checked
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backhaul_local.demo_asking import Account
from backhaul_local.demo_audit import CHANGED, Audited, named, recounted
from backhaul_local.demo_checks import counts, ends
from backhaul_local.demo_communication import BATCH, REGISTERED, Completed, counted, registration_of
from backhaul_local.demo_consent import PURPOSES, UNDECIDED, Asked, told
from backhaul_local.demo_figures import NOTHING, Check
from backhaul_local.demo_line import Said
from backhaul_local.demo_people import ADA, BEN, Erased, about
from backhaul_local.demo_reconciliation import (
    ALERTS,
    LABEL,
    REPLIER,
    RUN,
    SILENT,
    Reconciled,
    told_of_day,
    told_of_silence,
)
from backhaul_local.demo_script import BURST_CONNECTIONS, BURST_DUPLICATES, BURST_MESSAGES, COMMUNICATION
from backhaul_local.demo_story import Delivered, Loaded, OtherChannels, Refused
from backhaul_local.demo_told import PRIVATE, Subscribed, Told, kinds_of, of_batch

_WIDTH_OF_A_FILE = 130
_LINE = 110
_LONG = 24  # What holds and is longer is not said twice.
_STATE_STYLES = {"Delivered": "green", "Sent": "cyan", "Queued": "cyan"}


class Screen:
    """The demo's output, section by section."""

    def __init__(self, console: Console | None = None) -> None:
        """Without ``console`` as wide as the terminal, and wide enough for the tables where there is none."""
        console = console or Console(highlight=False)
        self._console = console if console.is_terminal else Console(file=console.file, width=_WIDTH_OF_A_FILE)
        self._sections = 0

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style))

    def section(self, title: str, why: str) -> None:
        """A heading that says what is shown, and a line that says why."""
        self._sections += 1
        self._console.print()
        self._console.rule(Text(f"{self._sections}  {title}", style="bold"), align="left", style="dim")
        self.say(why, "dim")

    def cast(self, acme: Account, globex: Account) -> None:
        hmac = "its HMAC-SHA1 fits the account's auth token"
        ecdsa = "its ECDSA signature fits the webhook's public key, and its access token is the channel's"
        rows = [
            (by.tenant.name, by.tenant.queue_path, label, proof, "refused with 403")
            for by, label, proof in ((acme, "Twilio", hmac), (acme, "SendGrid", ecdsa), (globex, "Twilio", hmac))
        ]
        self._table(("tenant", "queue path", "channel", "a callback is authentic when", "otherwise"), rows)

    def messages(self, seen: Delivered, channel: str) -> None:
        """A timeline for each message of a channel."""
        for due, message in seen.messages:
            if due.channel == channel:
                style = _STATE_STYLES.get(str(message and message.fulfilment_state), "yellow")
                self._console.print()
                ending = (ends(message), f"bold {style}")
                self._console.print(Text.assemble((due.story, "bold"), " — ends ", ending))
                self.say(f"{due.channel} {due.id}  {message.recipient if message else ''}", "dim")
                rows = [
                    (_time(event.occurred_at), event.kind, event.provider_status, _remark(event))
                    for event in (message.timeline if message else ())
                ]
                self._table(("time", "kind", "provider's word", "error or text"), rows)

    def other_channels(self, seen: OtherChannels) -> None:
        """A line for each provider."""
        rows = []
        for story, message in seen.messages:
            steps = " → ".join(event.kind for event in message.timeline) if message else NOTHING
            style = _STATE_STYLES.get(str(message and message.fulfilment_state), "yellow")
            rows.append((story.label, story.due.story, story.proof, steps, Text(ends(message), style=style)))
        self._table(("channel", "what was sent", "a callback is authentic by", "timeline", "ends"), rows)
        self.say(f"errors: {counts(seen.errors)}")
        self.say(f"statistics: messages by channel: {counts(seen.counted)}")
        for reply in seen.replies:
            told = f"“{reply.text}” is likely an opt-out: flagged, and {reply.review} by Acme"
            about = f"; it answers {reply.answered.channel} {reply.answered.message_id}" if reply.answered else ""
            self.say(f"reply: {told}{about}")

    def typed(self, *seen: Said) -> None:
        """Commands as somebody types them, and what they print."""
        for said in seen:
            self._console.print()
            self.say(f"$ {said.command}", "bold")
            self.say(said.out)

    def consent(self, seen: Asked) -> None:
        """One person step by step, then whom the demo has heard of before."""
        rows = [
            ("before any word of theirs", _verdict(seen.before), ""),
            ("they write STOP", _verdict(seen.stopped, seen.stopped_s), "; ".join(map(_reason, seen.stopped.blocking))),
            ("the same number at Globex", _verdict(seen.elsewhere), "what people say to Acme is Acme's"),
            (seen.lift.what, Text(seen.lift.got[:3], style="bold yellow"), seen.lift.why),
            ("they write START", _verdict(seen.started, seen.started_s), ""),
        ]
        self._table((UNDECIDED, "answer", "why"), rows)
        self._console.print()
        others: list[list[str | Text]] = [
            [person.address, person.said, *(_verdict(answer) for answer in answers)] for person, answers in seen.people
        ]
        self._table(("asked about", "heard before", *PURPOSES), others)

    def refused(self, seen: Refused) -> None:
        rows = [(one.what, Text(one.got[:3], style="bold yellow"), one.why) for one in seen.attempts]
        self._table(("what was tried", "answer", "why, in the answer's own words"), rows)

    def files(self, seen: Audited) -> None:
        """One file with its lines, and what is said of all of them while one is changed."""
        for file in seen.files[:1]:
            self.say(file.key)
            rows = [(str(number), line.decode()) for number, line in enumerate(seen.lines, 1)]
            self._table(("line", "as SendGrid sent it"), [(number, _shortened(line)) for number, line in rows])
        steps = (
            ("as they were sealed", seen.sound),
            (f"somebody with the bucket's keys writes {CHANGED[1].decode()} for {CHANGED[0].decode()}", seen.changed),
            ("they put the line back", seen.restored),
        )
        self._console.print()
        self._table(
            ("what happens", "verification says", "what is wrong"),
            [
                (
                    what,
                    Text(", ".join(said.summary), style="yellow" if said.invalid else "green"),
                    "; ".join(f"{named(one)}. {one.detail}" for one in said.invalid),
                )
                for what, said in steps
            ],
        )
        self._console.print()
        self.say(f"{COMMUNICATION}, its counts beside its events and its files: {recounted(seen.recount)}")

    def people(self, seen: Erased) -> None:
        """One line in the bucket and decrypted, and whose lines can be read when."""
        rows = [("in the bucket", line) for line in seen.stored[:1]] + [("decrypted", line) for line in seen.before[:1]]
        self._table(("a line", ""), [(what, _shortened(line.decode())) for what, line in rows])
        self._console.print()
        steps = (("as they lie in the bucket", seen.stored), ("decrypted", seen.before), ("Ada is erased", seen.after))
        self._table(
            ("lines", "that tell of Ada", "that tell of Ben"),
            [(what, str(about(lines, ADA)), str(about(lines, BEN))) for what, lines in steps],
        )
        plain = ", ".join(seen.erasure.plain_channels) or NOTHING
        self.say(f"still to be read: {plain}, whose files are not encrypted; verified: {', '.join(seen.sound.summary)}")

    def batch(self, seen: Completed) -> None:
        """Each member, then how far the batch was when."""
        self.say(f"{registration_of(seen.communication)}. Refused at once, so without a callback: 21211, 21610.")
        rows: list[list[str | Text]] = []
        # They are listed in an order of no meaning; for people it is that of their numbers.
        for member in sorted(seen.members, key=lambda one: (len(one.member_key), one.member_key)):
            names = member.attributes.get("first_name", "")
            for one in member.destinations:
                state = str(one.message.fulfilment_state) if one.message else NOTHING
                error = f"{one.message.error_code}  {one.message.error_text}" if one.message else ""
                style = _STATE_STYLES.get(state, "yellow")
                rows.append([member.member_key, names, one.channel, one.recipient, Text(state, style=style), error])
        self._table(("member", "first name", "channel", "recipient", "counts as", "error"), rows)
        self._console.print()
        steps = (
            ("Acme closes it", seen.closed.status, seen.closed.progress),
            ("the last message is sent", seen.completed.status, seen.completed.progress),
            ("a delivery is reported late", seen.corrected.status, seen.corrected.progress),
        )
        self._table(
            ("what happens", f"batch {BATCH}", "destinations"),
            [(what, status, counts(counted(progress))) for what, status, progress in steps],
        )
        self.say(f"{seen.addition.what}: {seen.addition.got[:3]}, {seen.addition.why}")
        changes = f"since its completion {seen.corrected.changed_since} state has changed"
        self.say(f"{REGISTERED}: {seen.communication.status}, {changes}; events: {counts(seen.communication.events)}")

    def told(self, subscribed: Subscribed, seen: Told) -> None:
        """One delivery with its attempts, what waited, the batch, and whom Backhaul does not call."""
        history = seen.history.history if seen.history else ()
        rows = [(str(one.number), _time(one.at), f"{one.status}  {one.answer_text}", one.text) for one in history]
        steps_s = " and ".join(f"{seconds} s" for seconds in subscribed.orders.policy.retry_after_s)
        self.say(
            f"{subscribed.orders.name} fails twice. It asks to be tried again after {steps_s}; `standard` is slower:"
        )
        self._table(("attempt", "time", "the application's answer", "what follows"), rows)
        self._console.print()
        paused = (
            ("while it is paused", f"{seen.too_early} calls", f"{len(seen.waiting)} deliveries wait"),
            ("it is resumed", f"{len(seen.crm)} calls", f"each when the one before is answered: {kinds_of(seen.crm)}"),
        )
        self._table((f"{subscribed.crm.name} wants the order of each message", "", ""), paused)
        self._console.print()
        self.say(f"{subscribed.complete.name} is told when a batch is complete, and reads it with Acme's key:")
        for call in seen.complete:
            self._console.print(Text.assemble((f"{call.method} {call.target}  ", "dim"), call.body.decode()))
        self._console.print(Text.assemble((f"GET {seen.reference}  ", "dim"), (of_batch(seen.read), "bold")))
        self._console.print()
        self.say("What Backhaul does not call, whoever asks for it (127.0.0.1 is allowed here, by a setting):")
        self._table(
            ("an endpoint", "", "answer", "why, in the answer's own words"),
            [
                (one.what, what, Text(one.got[:3], style="bold yellow"), one.why)
                for (what, _), one in zip(PRIVATE, subscribed.refused, strict=True)
            ],
        )

    def reconciled(self, seen: Reconciled) -> None:
        """Each message before and after Twilio was asked, then what is asked of Backhaul for that."""
        rows: list[tuple[str, str, str, Text]] = []
        for alert, before, after in zip(ALERTS, seen.before, seen.after, strict=True):
            rows.append((alert.to, alert.story, before, Text(after, style="" if before == after else "green")))
        self._table((f"over {LABEL}", "what happens", "known before", "once Twilio was asked"), rows)
        self._console.print()
        found, silence = seen.report.counts, seen.silent.parts.callbacks
        for asked, answer, more in (
            (
                f'{RUN} {{"channel": "{LABEL}"}}',
                f"{seen.report.state}: {found.missing} were missing",
                f"of what Twilio told of the last 24 hours, in {found.requests} requests",
            ),
            ("POST /v1/suppressions/check", told(seen.writer), f"{REPLIER}, whose STOP was lost"),
            (
                f"GET /v1/reconciliation/differences?channel={LABEL}",
                str(seen.differences),
                "both sides say the same of every message",
            ),
            (
                f"GET /v1/reconciliation/days/{seen.day_name}?channel={LABEL}",
                told_of_day(seen.day),
                "a day is held against Twilio's whole list of it, once it is over for a day: here three calls",
            ),
            (f"GET /api/status?channelLabel={SILENT}", told_of_silence(seen.silent), silence.detail or ""),
        ):
            self.say(asked, "dim")
            self._console.print(Text.assemble("    ", (answer, "bold"), f"  {more}"))

    def load(self, seen: Loaded) -> None:
        burst = f"callbacks: {BURST_MESSAGES} messages, queued, sent and delivered, and {BURST_DUPLICATES} duplicates"
        per_second = f"{len(seen.statuses) / seen.seconds:,.0f} a second"
        answers, readable = quantiles(seen.latencies_s, n=100), quantiles(seen.readable_s, n=2)
        rows = [
            (burst, f"{len(seen.statuses):,}"),
            (f"answered after they were on disk, over {BURST_CONNECTIONS} connections", per_second),
            ("answer to a POST under this load", f"p50 {_ms(answers[49])}, p99 {_ms(answers[98])}"),
            ("from the last answer until every count was right", f"{seen.counted_s * 1000:,.0f} ms"),
            (
                f"from a POST to its state being readable, {len(seen.readable_s)} one by one",
                f"p50 {_ms(readable[0])}, slowest {_ms(max(seen.readable_s))}",
            ),
        ]
        self._table(("figure", "seen"), [(name, Text(value, style="bold")) for name, value in rows])

    def checks(self, checks: Sequence[Check]) -> None:
        rows = []
        for check in checks:
            mark, style = ("✓", "green") if check.holds else ("✗", "bold red")
            got = "the same" if check.holds and len(check.got) > _LONG else check.got
            rows.append((Text(mark, style=style), check.name, check.expected, Text(got, style=style)))
        self._table(("", "figure", "expected", "got"), rows)

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], justify: str = "left") -> None:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, justify="right" if justify == "right" else "left", overflow="fold")
        for row in rows:
            # As texts: what providers and people wrote is no markup of rich.
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
        self._console.print(table)


def _verdict(checked: Checked, seconds: float | None = None) -> Text:
    """The answer, and after which time it was so."""
    said = told(checked) if checked.allowed else f"no: {told(checked)}"
    after = "" if seconds is None else f", {_ms(seconds)} after the 200"
    return Text.assemble((said, "green" if checked.allowed else "yellow"), after)


def _reason(row: Blocking) -> str:
    return f"{row.kind} of {row.scope.id or row.scope.kind}, since {_time(row.since)}, by event {row.event_id}"


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}" if moment else NOTHING


def _remark(event: Event) -> str:
    if event.error_code:
        return f"{event.error_code}  {event.error_text}"
    action = event.consent.action.replace("_", " ") if event.consent else ""
    return f"“{event.text}”" + (f"  understood as {action}" if action else "") if event.text else ""


def _shortened(line: str) -> str:
    return line if len(line) <= _LINE else f"{line[:_LINE]} …"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
