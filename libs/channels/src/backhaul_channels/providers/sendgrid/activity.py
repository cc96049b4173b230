"""SendGrid's Email Activity: what became of mails, by the time of their last event, and of one mail.

https://www.twilio.com/docs/sendgrid/for-developers/sending-email/getting-started-email-activity-api
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from backhaul_channels.addresses import email
from backhaul_channels.providers.sendgrid.asking import SendGridAsk, asked, checked, errors, object_of, said
from backhaul_channels.providers.sendgrid.mapping import MAIL_EVENTS
from backhaul_channels.providers.sendgrid.names import ONE_MAIL, ONE_PERSON, is_of_one_person
from backhaul_channels.providers.sendgrid.records import time_us
from backhaul_channels.pull import NeverError, Page, Response, Span, Transport, UnreadableAnswerError
from backhaul_channels.values import text_of

ROWS = 1_000
"""An answer has so many at most, and does not say whether there are more."""

_WANTED_ROWS = 800
"""The next window is as wide as would have had so many, if it is like the last one."""

_WIDER = 4
_SECOND = 1_000_000
# What stands before the recipient in a mail's name, where it can be X-Message-Id. Quotation marks end a query's text.
_X_MESSAGE_ID = re.compile(r"[A-Za-z0-9_.-]{8,100}", re.ASCII)
_CURSOR = re.compile(r"([0-9]{1,12}):([0-9]{1,12})", re.ASCII)


class _Window(NamedTuple):
    """From a second on, inclusive, so many seconds."""

    begin: int
    width: int


async def window(transport: Transport, ask: SendGridAsk, span: Span, cursor: str) -> Page:
    """One window of ``span``: its mails, or, where there are too many for one answer, none and a narrower one."""
    _only_where_it_is(ask)
    first, last = span.from_us // _SECOND, (span.to_us - 1) // _SECOND
    begin, width = _read(cursor) or _Window(first, last - first + 1)
    end = min(begin + width - 1, last)
    if end < begin:
        return Page([])
    between = f'last_event_time BETWEEN TIMESTAMP "{_iso(begin)}" AND TIMESTAMP "{_iso(end)}"'
    rows = await _list(transport, ask, between)
    # Of one second there is no narrower window. What more there may be than one answer holds stays untold.
    if len(rows) >= ROWS and end > begin:
        return Page([], _cursor(begin, (end - begin + 1) // 2))
    found = [row for row in rows if _is_within(row, span)]
    dropped = frozenset[str]()
    if any(row.get("status") == "not_delivered" for row in found):
        # Which is worth a request of its own: one that was dropped was never processed.
        lost = f'{between} AND status="not_delivered" AND (Contains(events,"dropped"))'
        dropped = frozenset(text_of(row.get("msg_id")) for row in await _list(transport, ask, lost))
    records = [_record(row, _DROPPED if text_of(row.get("msg_id")) in dropped else None) for row in found]
    if end >= last:
        return Page(records)
    width = end - begin + 1
    wider = min(width * _WANTED_ROWS // max(len(rows), 1), width * _WIDER)
    return Page(records, _cursor(end + 1, max(wider, 1)))


async def message(transport: Transport, ask: SendGridAsk, message_id: str) -> Page:
    """What happened to one mail to one person, by the name that it has here: its ``sg_message_id`` is the API's
    ``msg_id``; by X-Message-Id and the recipient it is looked for first."""
    _only_where_it_is(ask)
    if is_of_one_person(message_id):
        return await _details(transport, ask, message_id)
    if ask.settings.message_id_from[0] not in (ONE_PERSON, ONE_MAIL):
        raise NeverError(
            f"SendGrid's API cannot be asked for a mail by {ask.settings.message_id_from[0]}, as this channel names "
            "those of which no sg_message_id is known."
        )
    mail, _, person = message_id.rpartition(":")
    if not _X_MESSAGE_ID.fullmatch(mail):
        raise NeverError("SendGrid's API cannot be asked for a mail by an smtp-id that SendGrid has not made.")
    # An underscore stands for any character there, and several people may have got the mail.
    rows = await _list(transport, ask, f"msg_id LIKE '{mail}%'")
    for row in rows:
        msg_id = text_of(row.get("msg_id"))
        if msg_id.startswith(f"{mail}.") and email(text_of(row.get("to_email"))) == email(person):
            return await _details(transport, ask, msg_id)
    if len(rows) >= ROWS:
        raise NeverError(f"The mail has more than {ROWS} recipients, of whom SendGrid's API does not tell all.")
    return Page([])


def _only_where_it_is(ask: SendGridAsk) -> None:
    if ask.settings.region == "eu":
        # https://www.twilio.com/docs/sendgrid/api-reference/email-activity/filter-messages-by-message-id
        raise NeverError(
            "SendGrid has no Email Activity of the EU's subusers: only the lists of suppressions are read."
        )


async def _details(transport: Transport, ask: SendGridAsk, msg_id: str) -> Page:
    answer = await asked(transport, ask, f"messages/{quote(msg_id, safe='')}", {})
    if answer.status == 404:
        return Page([])
    told = object_of(_told(answer, ask).body)
    events = told.pop("events", None)
    events = [] if events is None else events
    if text_of(told.get("msg_id")) == "" or not isinstance(events, list):
        raise UnreadableAnswerError("SendGrid answered what is no mail: it lacks msg_id, or its events are no array.")
    parts = [
        {"mail": told, "event": event}
        for event in events
        if isinstance(event, dict) and text_of(event.get("event_name")) in MAIL_EVENTS
    ]
    return Page([msgspec.json.encode(parts or [{"mail": told}])])


async def _list(transport: Transport, ask: SendGridAsk, query: str) -> list[dict[str, Any]]:
    answer = await asked(transport, ask, "messages", {"query": query, "limit": str(ROWS)})
    if answer.status == 404:
        raise _no_activity(answer, ask)
    rows = object_of(_told(answer, ask).body).get("messages", ())
    if rows is None:
        return []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UnreadableAnswerError("SendGrid answered what is no list of mails: messages is no array of objects.")
    return rows


def _told(answer: Response, ask: SendGridAsk) -> Response:
    """``answer``, if it is one. An account without Email Activity is told from a key that is none, which gets a 401: it
    is forbidden to ask (403), or, as some were told, lacks authorization (400)."""
    told = errors(answer)
    if (answer.status == 403 and told) or (answer.status == 400 and "authorization required" in told):
        raise _no_activity(answer, ask)
    return checked(answer, ask)


def _no_activity(answer: Response, ask: SendGridAsk) -> NeverError:
    return NeverError(
        f"SendGrid does not let this API key read Email Activity (status {answer.status}).{said(answer, ask)} The "
        'account must have bought "additional email activity history", and the key must have been given access to it.'
    )


_DROPPED: Mapping[str, Any] = {"event_name": "dropped"}


def _record(row: Mapping[str, Any], event: Mapping[str, Any] | None) -> bytes:
    return msgspec.json.encode({"mail": row} if event is None else {"mail": row, "event": event})


def _is_within(row: Mapping[str, Any], span: Span) -> bool:
    """One without a time that can be read is, so that somebody hears of it."""
    at_us = time_us(row.get("last_event_time"))
    return at_us is None or span.from_us <= at_us < span.to_us


def _read(cursor: str) -> _Window | None:
    found = _CURSOR.fullmatch(cursor)
    return _Window(int(found[1]), max(int(found[2]), 1)) if found else None


def _cursor(begin: int, width: int) -> str:
    return f"{begin}:{width}"


def _iso(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
