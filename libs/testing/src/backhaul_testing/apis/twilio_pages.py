"""Lists of messages and of calls, page by page, and single ones.

The documents named in ``twilio`` give the parameters. Beyond them:

- ``DateSent<`` includes its day, as the description of messages says; ``StartTime<`` excludes it, as that of calls
  says. Whatever time a date has is ignored: lists count by day of UTC.
- Messages beyond 400 days are not there, and a ``DateSent`` that names an earlier day is refused with 20004 (airbyte
  #10418). Of calls nothing of that kind is documented.
- The order is newest first. By what is not documented; here by ``date_sent``, or else ``date_created``.
- ``PageToken`` is ``PA`` and the SID that the page ended with, as in the OpenAPI examples. ``Page`` alone is refused
  with 20001 (twilio-python #395). ``previous_page_uri`` is always null here.
- What a ``PageSize`` beyond 1,000 does is not documented; here it counts as 1,000. What does not parse is 20001.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from backhaul_testing.apis.serving import Answer, Asked
from backhaul_testing.apis.shelf import R, Shelf, Wanted
from backhaul_testing.apis.twilio_rows import Call, Text
from backhaul_testing.apis.twilio_words import RefusedError, told

if TYPE_CHECKING:
    from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi

RETENTION_DAYS: Final = 400
MAX_PAGE: Final = 1000
_DEFAULT_PAGE: Final = 50
_FOREVER: Final = datetime(1, 1, 1, tzinfo=UTC)
_SHOWN: Final = (
    "To", "From", "Status", "ParentCallSid",
    "DateSent", "DateSent<", "DateSent>", "StartTime", "StartTime<", "StartTime>",
)  # fmt: skip


class Lists:
    """The handlers. ``api`` is who is asked."""

    def __init__(self, api: TwilioApi) -> None:
        self._api = api

    def messages(self, asked: Asked) -> Answer:
        """``GET …/Messages.json``."""
        account = self._api.allowed(asked)
        oldest = self._oldest()
        wanted = Wanted(*_days(asked, "DateSent", last_inclusive=True), *_people(asked))
        if any(day is not None and day < oldest.date() for day in (wanted.first, wanted.last)):
            raise RefusedError(
                400,
                20004,
                "Date range specified in query is partially or entirely outside of retention window of "
                f"{RETENTION_DAYS} days",
            )
        return self._page(
            asked, "messages", account.texts, wanted, oldest, lambda like: self._arrive(account, like, wanted)
        )

    def calls(self, asked: Asked) -> Answer:
        """``GET …/Calls.json``."""
        account = self._api.allowed(asked)
        wanted = Wanted(
            *_days(asked, "StartTime", last_inclusive=False),
            *_people(asked),
            asked.params.get("Status"),
            asked.params.get("ParentCallSid"),
        )
        return self._page(
            asked, "calls", account.calls, wanted, _FOREVER, lambda like: self._ring(account, like, wanted)
        )

    def message(self, asked: Asked) -> Answer:
        """``GET …/Messages/{Sid}.json``."""
        return self._one(asked, self._api.allowed(asked).texts, self._oldest())

    def call(self, asked: Asked) -> Answer:
        """``GET …/Calls/{Sid}.json``."""
        return self._one(asked, self._api.allowed(asked).calls, _FOREVER)

    def _oldest(self) -> datetime:
        day = self._api.clock.days_ago(RETENTION_DAYS).date()
        return datetime(day.year, day.month, day.day, tzinfo=UTC)

    def _one(self, asked: Asked, shelf: Shelf[R], oldest: datetime) -> Answer:
        resource, now = shelf.get(asked.parts["sid"]), self._api.clock.now()
        if resource is None or resource.created > now or (resource.dated(now) or resource.created) < oldest:
            raise RefusedError(404, 20404, f"The requested resource {asked.path} was not found")
        return told(resource.row(now, self._api.dates(asked.route)))

    def _page(
        self, asked: Asked, name: str, shelf: Shelf[R], wanted: Wanted, oldest: datetime, arrive: Callable[[R], object]
    ) -> Answer:
        size, number = _number(asked, "PageSize", _DEFAULT_PAGE, 1), _number(asked, "Page", 0, 0)
        size, token = min(size, MAX_PAGE), asked.params.get("PageToken", "")
        if number and not token:
            raise RefusedError(400, 20001, "PageToken is required for paging.")
        at = self._api.clock.now() - timedelta(seconds=self._api.lag_s)
        listed = shelf.newest_first(wanted, at=at, oldest=oldest, after=token.removeprefix("PA") or None)
        try:
            rows = list(islice(listed, size))
        except KeyError:
            raise RefusedError(400, 20001, "Invalid PageToken.") from None
        date_format = self._api.dates(asked.route)
        shown = [row.row(at, date_format) for row in rows]
        query = {known: asked.params[known] for known in _SHOWN if known in asked.params} | {"PageSize": size}
        here = {"Page": number, **({"PageToken": token} if token else {})}
        last = self._last(asked, shelf, rows, listed, arrive)
        following = last and {"Page": number + 1, "PageToken": f"PA{last}"}
        if self._api.strike("circular", asked.route):
            following = here
        return told(
            {
                "end": number * size + max(len(shown) - 1, 0),
                "first_page_uri": _uri(asked, query, {"Page": 0}),
                "next_page_uri": following and _uri(asked, query, following),
                "page": number,
                "page_size": size,
                "previous_page_uri": None,
                name: shown,
                "start": number * size,
                "uri": _uri(asked, query, here),
            }
        )

    def _last(
        self, asked: Asked, shelf: Shelf[R], rows: list[R], rest: Iterator[R], arrive: Callable[[R], object]
    ) -> str | None:
        """The SID behind which the next page begins, where there is one. Rows may come and go before it is read."""
        if (following := next(rest, None)) is None:
            return None
        last = rows[-1]
        if vanishing := self._api.strike("vanishing", asked.route):
            last = [following, *islice(rest, vanishing.rows - 1)][-1]
            for row in rows[: vanishing.rows]:
                shelf.remove(row.sid)
        if growing := self._api.strike("growing", asked.route):
            last = rows[max(len(rows) - 1 - growing.rows, 0)]
            for _ in range(growing.rows):
                arrive(rows[0])
        return last.sid

    def _arrive(self, account: TwilioAccount, like: Text, wanted: Wanted) -> None:
        """A message that is sent while a list is read, to the person and from the sender of another one."""
        steps = [(self._moment(wanted), status) for status in ("queued", "sent", "delivered")]
        account.text(like.to, steps, sender=like.sender, service=like.service)

    def _ring(self, account: TwilioAccount, like: Call, wanted: Wanted) -> None:
        """The same of a call."""
        steps = [(self._moment(wanted), status) for status in ("queued", "ringing", "busy")]
        account.call(like.to, steps, sender=like.sender, parent=like.parent)

    def _moment(self, wanted: Wanted) -> datetime:
        """When it happens: now, or as late as what is asked for, where that is over."""
        now = self._api.clock.now()
        if wanted.last is None or wanted.last >= now.date():
            return now
        return datetime.combine(wanted.last, time(23, 59, 59), UTC)


def _people(asked: Asked) -> tuple[str | None, str | None]:
    return asked.params.get("To"), asked.params.get("From")


def _days(asked: Asked, name: str, *, last_inclusive: bool) -> tuple[date | None, date | None]:
    """The first and the last day that the three parameters called ``name`` leave."""
    on, until, since = (_day(asked, name + sign) for sign in ("", "<", ">"))
    if until is not None and not last_inclusive:
        until -= timedelta(days=1)
    firsts, lasts = [day for day in (on, since) if day], [day for day in (on, until) if day]
    return max(firsts, default=None), min(lasts, default=None)


def _day(asked: Asked, name: str) -> date | None:
    """The day of a date, which the examples write in ISO 8601 or in RFC 2822."""
    given = asked.params.get(name)
    if given is None:
        return None
    try:
        return date.fromisoformat(given[:10])
    except ValueError:
        try:
            return parsedate_to_datetime(given).date()
        except ValueError:
            raise RefusedError(400, 20001, f"Parameter {name} is not a valid date") from None


def _number(asked: Asked, name: str, default: int, least: int) -> int:
    given = asked.params.get(name, str(default))
    if not given.isdigit() or int(given) < least:
        raise RefusedError(400, 20001, f"Parameter {name} must be an integer of at least {least}")
    return int(given)


def _uri(asked: Asked, query: dict[str, Any], page: dict[str, Any]) -> str:
    """A relative address, with the parameters in the order of the examples."""
    return f"{asked.path}?{urlencode({**query, **page})}"
