"""What SendGrid's API answers: mails, and lists of suppressions. ``sendgrid`` names the documents."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, cast

from backhaul_testing.apis.sendgrid_query import SyntaxRefusedError, conditions
from backhaul_testing.apis.sendgrid_rows import EVENT_NAMES, ListName, Suppression
from backhaul_testing.apis.serving import Answer, Asked

if TYPE_CHECKING:
    from backhaul_testing.apis.sendgrid import SendGridApi, SendGridUser

MAX_MESSAGES: Final = 1000
MAX_SUPPRESSIONS: Final = 500
_DEFAULT_MESSAGES: Final = 10


class RefusedError(Exception):
    """A request that is refused; ``answer`` is what it is answered."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.answer = refused(status, message, field)


def refused(status: int, message: str, field: str | None = None) -> Answer:
    """An error in the shape that all of SendGrid's errors have."""
    return _told({"errors": [{"field": field, "message": message}]}, status)


class Pages:
    """The handlers. ``api`` is who is asked."""

    def __init__(self, api: SendGridApi) -> None:
        self._api = api

    def messages(self, asked: Asked) -> Answer:
        """``GET /v3/messages``: the newest that fit, and no word of whether there are more."""
        user, at = self._api.allowed(asked), self._api.listed_at()
        limit = _number(asked, "limit", _DEFAULT_MESSAGES, least=1, most=MAX_MESSAGES)
        try:
            wanted = conditions(asked.params.get("query", ""))
        except SyntaxRefusedError as exc:
            raise RefusedError(400, str(exc)) from None
        oldest = self._oldest()
        found: list[tuple[datetime, dict[str, Any]]] = []
        for mail in user.mails.values():
            if events := mail.so_far(at):
                last, row = events[-1].at, mail.row(at)
                known = {**row, "events": {EVENT_NAMES[event.word] for event in events}}
                if last >= oldest and all(fits(known, last) for fits in wanted):
                    found.append((last, row))
        found.sort(key=itemgetter(0), reverse=True)
        return _told({"messages": [row for _, row in found[:limit]]})

    def message(self, asked: Asked) -> Answer:
        """``GET /v3/messages/{msg_id}``."""
        user, now = self._api.allowed(asked), self._api.clock.now()
        mail = user.mails.get(asked.parts["msg_id"])
        if mail is None or not (events := mail.so_far(now)) or events[-1].at < self._oldest():
            raise RefusedError(404, "not found", "message_id")
        return _told(mail.details(now))

    def suppressions(self, asked: Asked) -> Answer:
        """``GET /v3/suppression/…``."""
        user, where = self._api.allowed(asked), cast("ListName", asked.route)
        limit = _number(asked, "limit", MAX_SUPPRESSIONS, least=1, most=MAX_SUPPRESSIONS)
        offset = _number(asked, "offset", 0)
        begin, end = (_moment(asked, name) for name in ("start_time", "end_time"))
        rows = [
            row
            for row in self._standing(user.suppressions, where)
            if (begin is None or row.created >= begin) and (end is None or row.created <= end)
        ]
        shown = rows[offset : offset + limit]
        if len(rows) > offset + limit:
            self._shift(asked, user, where, shown, end)
        return _told([row.row() for row in shown])

    def groups(self, asked: Asked) -> Answer:
        """``GET /v3/asm/suppressions``."""
        user = self._api.allowed(asked)
        return _told([row.row() for row in self._standing(user.suppressions, "groups")])

    def _oldest(self) -> datetime:
        return self._api.clock.days_ago(self._api.keeps_days)

    def _standing(self, suppressions: Iterable[Suppression], where: ListName) -> list[Suppression]:
        at = self._api.listed_at()
        known = (row for row in suppressions if row.where == where and row.stands(at))
        newest = {row.address: row for row in sorted(known, key=lambda row: row.created)}
        return sorted(newest.values(), key=lambda row: (row.created, row.email), reverse=True)

    def _shift(
        self, asked: Asked, user: SendGridUser, where: ListName, shown: list[Suppression], end: datetime | None
    ) -> None:
        """Let rows come and go before the next page is asked for."""
        now = self._api.clock.now()
        if growing := self._api.strike("growing", asked.route):
            for _ in range(growing.rows):
                address = f"arrived-{len(user.suppressions)}@example.com"
                user.suppress(where, address, at=min(now, end or now), **shown[0].fields)
        if vanishing := self._api.strike("vanishing", asked.route):
            for row in shown[: vanishing.rows]:
                row.gone = now - timedelta(seconds=self._api.lag_s)


def _number(asked: Asked, name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
    given = asked.params.get(name, str(default))
    if not given.isdigit() or int(given) < least or (most is not None and int(given) > most):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise RefusedError(400, f"{name} must be a number {bounds}", name)
    return int(given)


def _moment(asked: Asked, name: str) -> datetime | None:
    """A unix time in seconds."""
    return datetime.fromtimestamp(_number(asked, name, 0), UTC) if name in asked.params else None


def _told(content: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode())
