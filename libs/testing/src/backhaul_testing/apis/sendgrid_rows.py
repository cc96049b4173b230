"""What SendGrid keeps of a mail to one person, and of an address that it sends to no more.

The shapes are those of SendGrid's OpenAPI descriptions (sendgrid-oai, ``tsg_email_activity_v3.json`` and
``tsg_suppressions_v3.json``). They demand ``bounce_type``, ``http_user_agent`` and ``mx_server`` of every event, and a
bounce's type of events that are none; here each event has what applies to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

ListName = Literal["bounces", "blocks", "invalid_emails", "spam_reports", "unsubscribes", "groups"]
"""The lists of suppressions: ``groups`` is ``/v3/asm/suppressions``, the others lie under ``/v3/suppression``."""

EVENT_NAMES: Final = {
    "processed": "processed",
    "dropped": "dropped",
    "deferred": "deferred",
    "delivered": "delivered",
    "bounce": "bounced",
    "open": "opened",
    "click": "clicked",
    "spamreport": "spam_report",
    "unsubscribe": "unsubscribe",
    "group_unsubscribe": "group_unsubscribe",
    "group_resubscribe": "group_resubscribe",
}
"""How the API calls what the event webhook calls otherwise."""

_FAILED: Final = frozenset({"bounce", "dropped"})
_ARRIVED: Final = frozenset({"delivered", "open", "click", "spamreport", "unsubscribe", "group_unsubscribe"})
_INVALID: Final = frozenset({"invalid", "invalid address"})


@dataclass(frozen=True, slots=True)
class MailEvent:
    """One event; ``word`` and ``fields`` are the webhook's."""

    at: datetime
    word: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Mail:
    """A mail to one person, with all its events, those included that the clock has not come to."""

    msg_id: str
    to: str
    events: list[MailEvent]
    sender: str = "sender@example.com"
    subject: str = "Something profound"
    categories: tuple[str, ...] = ()
    unique_args: Mapping[str, str] = field(default_factory=dict)
    group: int | None = None

    def so_far(self, at: datetime) -> list[MailEvent]:
        """What had happened at ``at``, in order."""
        return [event for event in self.events if event.at <= at]

    def status(self, at: datetime) -> str:
        """The API's word for how it stood at ``at``, when it was there."""
        words = {event.word for event in self.so_far(at)}
        if words & _FAILED:
            return "not_delivered"
        return "delivered" if words & _ARRIVED else "processed"

    def row(self, at: datetime) -> dict[str, Any]:
        """As ``/v3/messages`` lists it."""
        events = self.so_far(at)
        return {
            **self._names(at),
            "opens_count": sum(event.word == "open" for event in events),
            "clicks_count": sum(event.word == "click" for event in events),
            "last_event_time": iso(events[-1].at),
        }

    def details(self, at: datetime) -> dict[str, Any]:
        """As ``/v3/messages/{msg_id}`` tells it."""
        return {
            **self._names(at),
            "template_id": "",
            "asm_group_id": self.group,
            "teammate": "",
            "api_key_id": "sdfsdfsdf123",
            "events": [_shown(event) for event in self.so_far(at)],
            "originating_ip": "192.0.2.1",
            "categories": list(self.categories),
            "unique_args": json.dumps(dict(self.unique_args)),
            "outbound_ip": "192.0.2.2",
            "outbound_ip_type": "shared",
        }

    def _names(self, at: datetime) -> dict[str, Any]:
        return {
            "from_email": self.sender,
            "msg_id": self.msg_id,
            "subject": self.subject,
            "to_email": self.to,
            "status": self.status(at),
        }


@dataclass(slots=True, kw_only=True)
class Suppression:
    """One row of a list. It names no mail. ``gone`` is when somebody took it off."""

    where: ListName
    email: str
    created: datetime
    fields: Mapping[str, Any] = field(default_factory=dict)
    gone: datetime | None = None

    @property
    def address(self) -> tuple[str, Any]:
        """A list has one row of it."""
        return self.email, self.fields.get("group_id")

    def stands(self, at: datetime) -> bool:
        """Whether it was there at ``at``."""
        return self.created <= at and (self.gone is None or self.gone > at)

    def row(self) -> dict[str, Any]:
        """As the list shows it."""
        created = "created_at" if self.where == "groups" else "created"
        return {"email": self.email, **self.fields, created: int(self.created.timestamp())}


def caused(mail: Mail, event: MailEvent, groups: Mapping[int, str]) -> Suppression | None:
    """The row that ``event`` puts on a list, if it does. ``groups`` are the names of the unsubscribe groups."""
    fields = event.fields
    failure = {"reason": fields.get("reason", "550 5.1.1 no such user"), "status": fields.get("status", "5.1.1")}
    where: ListName
    row: dict[str, Any] = {}
    if event.word == "bounce":
        where, row = ("blocks" if fields.get("type") == "blocked" else "bounces"), failure
    elif event.word == "dropped" and str(fields.get("reason", "")).lower() in _INVALID:
        where, row = "invalid_emails", {"reason": "Mail domain mentioned in email address is unknown"}
    elif event.word == "spamreport":
        where, row = "spam_reports", {"ip": fields.get("ip", "192.0.2.3")}
    elif event.word == "unsubscribe":
        where = "unsubscribes"
    elif event.word == "group_unsubscribe":
        number = int(fields.get("asm_group_id", mail.group or 1))
        where, row = "groups", {"group_id": number, "group_name": groups.get(number, f"Group {number}")}
    else:
        return None
    return Suppression(where=where, email=mail.to, created=event.at, fields=row)


def iso(moment: datetime) -> str:
    """``2017-10-13T18:56:21Z``, as documented."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(event: MailEvent) -> dict[str, Any]:
    fields, word = event.fields, event.word
    talked = word in ("delivered", "bounce", "deferred")
    attempt = fields.get("attempt")
    more = {
        "reason": fields.get("reason") or (fields.get("response") if word == "deferred" else None),
        "attempt_num": None if attempt is None else int(attempt),
        "url": fields.get("url"),
        "bounce_type": ("soft" if fields.get("type") == "blocked" else "hard") if word == "bounce" else None,
        "http_user_agent": fields.get("useragent"),
        "mx_server": "mx.example.com" if talked else None,
    }
    shown = {name: value for name, value in more.items() if value is not None}
    return {"event_name": EVENT_NAMES[word], "processed": iso(event.at), **shown}
