"""The part of the Email Activity's query language that a reader of states needs.

https://www.twilio.com/docs/sendgrid/for-developers/sending-email/getting-started-email-activity-api: conditions, joined
by ``AND``. ``last_event_time BETWEEN TIMESTAMP "…" AND TIMESTAMP "…"`` includes both ends; ``=``, ``!=`` and ``IN`` are
for ``msg_id``, ``from_email``, ``to_email``, ``subject`` and ``status``. What a field that is not known is answered is
documented; how anything else is refused is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

_FIELDS: Final = frozenset({"msg_id", "from_email", "to_email", "subject", "status", "last_event_time"})
_QUOTED: Final = r'(?:[^"\\]|\\.)*'
_CONDITION: Final = re.compile(
    rf"""\s*(?:\(Contains\(\s*(?P<list>\w+)\s*,\s*"(?P<entry>{_QUOTED})"\s*\)\)|(?P<field>\w+)\s*(?:
        BETWEEN\s+TIMESTAMP\s*"(?P<begin>{_QUOTED})"\s+AND\s+TIMESTAMP\s*"(?P<end>{_QUOTED})"
        |(?P<sign>!?=)\s*"(?P<value>{_QUOTED})"
        |IN\s*\((?P<values>[^)]*)\)
        |LIKE\s*'(?P<pattern>[^']*)'
    ))\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_JOINT: Final = re.compile(r"AND\b", re.IGNORECASE)

Condition = Callable[[dict[str, Any], datetime], bool]
"""Whether a row, with the names of its ``events`` beside the rest, fits; its last event was at that time."""


class SyntaxRefusedError(Exception):
    """What is wrong with a query, in SendGrid's words where those are documented."""


def conditions(query: str) -> list[Condition]:
    """What ``query`` asks for; nothing, where it is empty. Raises SyntaxRefusedError."""
    if not query.strip():
        return []
    found: list[Condition] = []
    place = 0
    while match := _CONDITION.match(query, place):
        found.append(_condition(match))
        place = match.end()
        if place == len(query):
            return found
        if not (joint := _JOINT.match(query, place)):
            break
        place = joint.end()
    raise SyntaxRefusedError(f"invalid syntax: {query[place:].strip()!r}")


def _condition(match: re.Match[str]) -> Condition:
    if match["list"] is not None:
        if match["list"] != "events":
            raise SyntaxRefusedError(f"invalid syntax: '{match['list']}' is not a known field")
        entry = match["entry"]
        return lambda row, _: entry in row["events"]
    name = match["field"]
    if name not in _FIELDS:
        raise SyntaxRefusedError(f"invalid syntax: '{name}' is not a known field")
    if (match["begin"] is None) == (name == "last_event_time"):
        raise SyntaxRefusedError(f"invalid syntax: {match.group().strip()!r}")
    if match["begin"] is not None:
        begin, end = _moment(match["begin"]), _moment(match["end"])
        return lambda _, last: begin <= last <= end
    if match["values"] is not None:
        values = re.findall(f'"({_QUOTED})"', match["values"])
        return lambda row, _: row[name] in values
    if match["pattern"] is not None:
        # Of a pattern's letters these two stand for others: any number of them, and one.
        letters = (".*" if one == "%" else "." if one == "_" else re.escape(one) for one in match["pattern"])
        like = re.compile("".join(letters), re.DOTALL)
        return lambda row, _: like.fullmatch(row[name]) is not None
    value, wanted = match["value"], match["sign"] == "="
    return lambda row, _: (row[name] == value) is wanted


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SyntaxRefusedError(f"invalid syntax: {text!r} is not a timestamp") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
