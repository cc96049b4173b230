"""Mail that tells people of several deliveries: its words, as text and as HTML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape
from string import Template
from typing import Final, NamedTuple

from backhaul_common.mailaddresses import is_mail_address
from backhaul_common.times import time_of
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.notice.v1.notice_pb2 import Notice

from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.payloads import Told

MAX_LINES: Final = 100
"""Events that a mail shows; of others it says how many there are."""

MAX_TEXT: Final = 500
"""Characters of one value: what people write has no bound."""

MAX_SUBJECT: Final = 150
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Control characters, and those that turn the direction of what stands around them."""

_TEXT: Final = Template(
    """$lead

$lines
--
Backhaul sent this for the tenant $tenant, by its subscription "$name" ($id).
"""
)
_TEXT_LINE: Final = Template("$when  $title ($type)\n$facts")
_TEXT_FACT: Final = Template("    $name: $value\n")

_HTML: Final = Template(
    """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>$subject</title></head>
<body style="font-family:sans-serif;color:#222">
<p>$lead</p>
<table style="border-collapse:collapse" cellpadding="6">
$lines</table>
<p style="color:#666;font-size:small">Backhaul sent this for the tenant $tenant, by its subscription
&ldquo;$name&rdquo; ($id).</p>
</body></html>
"""
)
_HTML_LINE: Final = Template(
    '<tr style="border-top:1px solid #ccc;vertical-align:top"><td>$when</td>'
    "<td><strong>$title</strong> ($type)$facts</td></tr>\n"
)
_HTML_FACT: Final = Template("<br>$name: $value")


class From(NamedTuple):
    """Which subscription a mail is of. ``name`` is the tenant's own word."""

    tenant: str
    subscription: str
    name: str


def mail(sender: str, to: Sequence[str], of: From, told: Sequence[Told], message_id: str, at_us: int) -> EmailMessage:
    """The mail that tells ``told``; ``message_id`` is the same of each attempt. ValueError where there is no address,
    or one is none."""
    if not to:
        raise ValueError("there is no address that mail can be sent to")
    for address in (sender, *to):
        if not is_mail_address(address, dotted=address != sender):
            raise ValueError("an address of the mail is none that can stand in a header")
    made = EmailMessage(policy=SMTP)
    made["From"] = f"Backhaul <{sender}>"
    made["To"] = ", ".join(to)
    made["Subject"] = subject = _subject(of, told)
    made["Date"] = format_datetime(datetime.fromtimestamp(at_us / 1e6, UTC))
    made["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2]}>"
    # Nobody is away from a machine, and no answer is read by one.
    made["Auto-Submitted"] = "auto-generated"
    made["X-Auto-Response-Suppress"] = "All"
    made.set_content(_body(of, told, subject, html=False))
    made.add_alternative(_body(of, told, subject, html=True), subtype="html")
    return made


def _subject(of: From, told: Sequence[Told]) -> str:
    # Python takes what begins so for an encoded word, and writes the line breaks that may be in it as they are.
    return _line(_whole_subject(of, told).replace("=?", "= ?"), MAX_SUBJECT)


def _whole_subject(of: From, told: Sequence[Told]) -> str:
    name = _line(of.name, 60) or of.subscription
    kinds = Counter(one.type for one in told)
    if len(told) == 1:
        return f"{name}: {_title(told[0])}"
    listed = ", ".join(f"{count} of {type_}" for type_, count in kinds.most_common())
    return f"{name}: {len(told)} events: {listed}"


def _body(of: From, told: Sequence[Told], subject: str, *, html: bool) -> str:
    whole, line, fact = (_HTML, _HTML_LINE, _HTML_FACT) if html else (_TEXT, _TEXT_LINE, _TEXT_FACT)

    def put(text: str) -> str:
        return escape(text) if html else text

    lines = "".join(
        line.substitute(
            when=put(_when(one)),
            title=put(_title(one)),
            type=put(one.type),
            facts="".join(fact.substitute(name=name, value=put(value)) for name, value in _facts(one)),
        )
        for one in told[:MAX_LINES]
    )
    count = "One event:" if len(told) == 1 else f"{len(told)} events:"
    more = len(told) - MAX_LINES
    return whole.substitute(
        subject=put(subject),
        lead=count
        if more <= 0
        else f"{count} these are the first {MAX_LINES}; {more} more are to be read in Backhaul.",
        lines=lines,
        tenant=put(_line(of.tenant, 100)),
        name=put(_line(of.name, 128)),
        id=put(of.subscription),
    )


def _when(told: Told) -> str:
    return (time_of(told.said.occurred_at_us) or "at a time that nobody told")[:19].replace("T", " ") + " UTC"


def _title(told: Told) -> str:
    each = TYPES.get(told.type)
    return each.title if each else told.type


def _facts(told: Told) -> Iterator[tuple[str, str]]:
    """What a person wants to know of it, in one line each."""
    said = told.said
    if isinstance(said, Notice):
        about = said.about
        each = TYPES.get(said.type)
        reference = each.reference if each else "reference"
        reason = next((one.value for one in said.attributes if one.name == "reason"), "")
        pairs = [
            ("What happened", said.text),
            ("Reason", "" if reason in said.text else reason),
            ("Channel", about.channel),
            ("Communication", about.communication_id),
            ("Message", about.message_id),
            ("Recipient", about.recipient),
            (reference.replace("_", " ").capitalize(), about.reference),
        ]
    else:
        pairs = _of_event(said)
    for name, value in pairs:
        shown = _line(value, MAX_TEXT)
        if shown:
            yield name, shown


def _of_event(event: Event) -> list[tuple[str, str]]:
    error = " ".join(part for part in (event.error_code, event.error_text) if part)
    return [
        ("Recipient", event.recipient),
        ("Text", event.text),
        ("Error", error),
        ("Channel", event.channel),
        ("Message", event.message_id),
        ("Communication", event.communication_id),
    ]


def _line(text: str, most: int) -> str:
    """``text`` in one line, cut."""
    line = _UNSEEN.sub(" ", text[: 2 * most].encode("utf-8", "replace").decode()).strip()
    return line if len(line) <= most else f"{line[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
