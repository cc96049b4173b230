"""What Twilio keeps of a message and of a call, and how its API shows it.

https://www.twilio.com/docs/messaging/api/message-resource and https://www.twilio.com/docs/voice/api/call-resource, with
the examples of Twilio's OpenAPI description (twilio-oai, ``twilio_api_v2010.json``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Any, Final

API: Final = "2010-04-01"

SENT: Final = frozenset({"sent", "delivered", "undelivered", "read", "partially_delivered", "receiving", "received"})
"""``date_sent`` is when a message came to one of these. What is queued, scheduled, or failed before, has none."""

UNDIALLED: Final = frozenset({"queued", "initiated"})
"""A call has no ``start_time`` before it is dialled."""
ENDED: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})

ERROR_TEXTS: Final = {
    21610: "Attempt to send to unsubscribed recipient",
    30003: "Unreachable destination handset",
    30004: "Message blocked",
    30005: "Unknown destination handset",
    30006: "Landline or unreachable carrier",
    30007: "Carrier violation",
    30008: "Unknown error",
}

DateFormat = Callable[[datetime], str]


@lru_cache(65_536)
def rfc_2822(moment: datetime) -> str:
    """``Fri, 24 May 2019 17:18:28 +0000``, as documented."""
    return format_datetime(moment)


@lru_cache(65_536)
def iso_8601(moment: datetime) -> str:
    """``2019-05-24T17:18:28Z``, as BulkExport writes it, and as connectors have met it in lists."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Step:
    """What a message or a call has become, and when; whole seconds, as all dates of the API."""

    at: datetime
    status: str
    error_code: int | None = None


@dataclass(slots=True, kw_only=True)
class Resource(ABC):
    """A message or a call, with every step of its life, those included that the clock has not come to."""

    sid: str
    account_sid: str
    to: str
    sender: str
    steps: list[Step]
    direction: str = "outbound-api"

    @property
    def created(self) -> datetime:
        """When the API got to know it."""
        return self.steps[0].at

    def so_far(self, at: datetime) -> list[Step]:
        """What had happened at ``at``."""
        return [step for step in self.steps if step.at <= at]

    def status(self, at: datetime) -> str:
        """Its status at ``at``, when it was there."""
        return self.so_far(at)[-1].status

    @abstractmethod
    def dated(self, at: datetime | None = None) -> datetime | None:
        """The date by which lists filter, as it was known at ``at``; in the end, where that is None."""

    @abstractmethod
    def row(self, at: datetime, date: DateFormat) -> dict[str, Any]:
        """As the API shows it."""

    def _first(self, at: datetime | None, statuses: Callable[[str], bool]) -> datetime | None:
        return next((step.at for step in self.steps if (at is None or step.at <= at) and statuses(step.status)), None)


@dataclass(slots=True, kw_only=True)
class Text(Resource):
    """A message."""

    body: str = "testing"
    service: str | None = None
    num_media: int = 0

    def dated(self, at: datetime | None = None) -> datetime | None:
        return self._first(at, SENT.__contains__)

    def row(self, at: datetime, date: DateFormat) -> dict[str, Any]:
        last, sent = self.so_far(at)[-1], self.dated(at)
        uri = f"/{API}/Accounts/{self.account_sid}/Messages/{self.sid}"
        return {
            "account_sid": self.account_sid,
            "api_version": API,
            "body": self.body,
            "date_created": date(self.created),
            "date_sent": sent and date(sent),
            "date_updated": date(last.at),
            "direction": self.direction,
            "error_code": last.error_code,
            "error_message": last.error_code and ERROR_TEXTS.get(last.error_code, ERROR_TEXTS[30008]),
            "from": self.sender,
            "messaging_service_sid": self.service,
            "num_media": str(self.num_media),
            "num_segments": "1",
            "price": "-0.00750" if sent else None,
            "price_unit": "USD",
            "sid": self.sid,
            "status": last.status,
            "subresource_uris": {"media": f"{uri}/Media.json", "feedback": f"{uri}/Feedback.json"},
            "to": self.to,
            "uri": f"{uri}.json",
        }

    def export(self, at: datetime) -> dict[str, Any]:
        """As a file of BulkExport holds it: without some fields, with numbers, with ISO dates, and 0 for no error.

        https://www.twilio.com/docs/usage/bulkexport/day names what is left out. ``flags`` and ``start``, and that
        numbers are numbers, were seen in real files and are not documented.
        """
        row = self.row(at, iso_8601)
        for name in ("price_unit", "api_version", "error_message", "uri", "subresource_uris"):
            del row[name]
        return {
            **row,
            "error_code": row["error_code"] or 0,
            "num_media": self.num_media,
            "num_segments": 1,
            "flags": 0,
            "start": row["date_created"],
        }


@dataclass(slots=True, kw_only=True)
class Call(Resource):
    """A call."""

    parent: str | None = None
    answered_by: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def dated(self, at: datetime | None = None) -> datetime | None:
        return self._first(at, lambda status: status not in UNDIALLED)

    def row(self, at: datetime, date: DateFormat) -> dict[str, Any]:
        steps, start = self.so_far(at), self.dated(at)
        end = self._first(at, ENDED.__contains__)
        answered = self._first(at, "in-progress".__eq__)
        uri = f"/{API}/Accounts/{self.account_sid}/Calls/{self.sid}"
        return {
            "account_sid": self.account_sid,
            "answered_by": self.answered_by,
            "api_version": API,
            "caller_name": None,
            "date_created": date(self.created),
            "date_updated": date(steps[-1].at),
            "direction": self.direction,
            "duration": str(int((end - answered).total_seconds())) if end and answered else (end and "0"),
            "end_time": end and date(end),
            "forwarded_from": None,
            "from": self.sender,
            "from_formatted": self.sender,
            "group_sid": None,
            "parent_call_sid": self.parent,
            "phone_number_sid": None,
            "price": "-0.01300" if end else None,
            "price_unit": "USD",
            "queue_time": "0",
            "sid": self.sid,
            "start_time": start and date(start),
            "status": steps[-1].status,
            "subresource_uris": {
                name: f"{uri}/{name.title()}.json" for name in ("notifications", "recordings", "payments", "events")
            },
            "to": self.to,
            "to_formatted": self.to,
            "trunk_sid": None,
            "uri": f"{uri}.json",
            **self.fields,
        }
