"""Twilio's API: the lists of messages and calls, single ones, and BulkExport. README.md tells the quirks.

https://www.twilio.com/docs/messaging/api/message-resource, https://www.twilio.com/docs/voice/api/call-resource
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, Final, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from backhaul_channels.adapter import MalformedError
from backhaul_channels.jsonparts import decode_object
from backhaul_channels.providers.twilio.credentials import APIS, TwilioCredentials
from backhaul_channels.providers.twilio.exports import EXPORTS, FILE_PLACES, ROWS_AT_ONCE, export_page
from backhaul_channels.providers.twilio.mapping import MESSAGE_SIDS
from backhaul_channels.providers.twilio.rows import Scope, checked, day_of, error_code, moment_us, row_of, said
from backhaul_channels.providers.twilio.settings import TwilioSettings
from backhaul_channels.pull import (
    Ask,
    Budget,
    CredentialsRefusedError,
    Listing,
    NeverError,
    Page,
    PullCredentials,
    Puller,
    Response,
    Span,
    Transport,
    UnreadableAnswerError,
)

_BUDGET: Final = "api"
_MAX_ROWS: Final = 1_000
_MOST_ROWS: Final = 10_000
"""What is read of an answer keeps all else waiting: more rows than these are not looked at."""
_TOO_OLD: Final = 20004
_CALL: Final = "CA"

TwilioAsk = Ask[TwilioCredentials, TwilioSettings]


class _List(NamedTuple):
    """``resource`` of the API, whose answers hold ``rows``, and which counts days by ``dated``."""

    resource: str
    rows: str
    dated: str


_MESSAGES: Final = _List("Messages", "messages", "DateSent")
_CALLS: Final = _List("Calls", "calls", "StartTime")
_LISTS: Final[Mapping[str, _List]] = {_MESSAGES.rows: _MESSAGES, _CALLS.rows: _CALLS}
_EXPORT: Final = "export"


class _Answer(msgspec.Struct, frozen=True):
    """A page of a list; of ``messages`` and ``calls`` it has one."""

    messages: list[msgspec.Raw] | None = None
    calls: list[msgspec.Raw] | None = None
    next_page_uri: str | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


class TwilioPuller(Puller[TwilioCredentials, TwilioSettings]):
    """Messages and calls by day, single ones, and a day's messages as a file."""

    credentials_model: ClassVar[type[PullCredentials]] = TwilioCredentials
    origins: ClassVar[frozenset[str]] = frozenset({*APIS.values(), EXPORTS, *FILE_PLACES})
    # Twilio limits how many requests of an account are under way at once, the tenant's own included, and tells nobody
    # how many they may be: https://www.twilio.com/docs/api/errors/20429. Others report 100, of which half is left to
    # the tenant whatever happens; an account that allows less says so with 429.
    budgets: ClassVar[Mapping[str, Budget]] = {
        _BUDGET: Budget(at_once=4, busy_header="twilio-concurrent-requests", busy_at=50)
    }
    message_budget: ClassVar[str] = _BUDGET
    reaches_back_days: ClassVar[int] = 400

    def account(self, credentials: TwilioCredentials) -> str:
        return credentials.account_sid

    def listings(self, settings: TwilioSettings) -> Sequence[Listing]:
        asked = settings.reconcile
        # A day is held against one complete list of its messages, and the file is cheaper to read.
        listings = [Listing(_MESSAGES.rows, _BUDGET, whole=True, rows=_MAX_ROWS, closes=not asked.bulk_export)]
        if asked.calls:
            listings.append(Listing(_CALLS.rows, _BUDGET, whole=True, rows=_MAX_ROWS))
        if asked.bulk_export:
            listings.append(Listing(_EXPORT, _BUDGET, whole=True, rows=ROWS_AT_ONCE, discovers=False))
        return listings

    async def window(self, transport: Transport, ask: TwilioAsk, listing: str, span: Span, cursor: str = "") -> Page:
        if span.from_us >= span.to_us:
            return Page([])
        if listing == _EXPORT:
            return await export_page(transport, ask, span, cursor)
        return await _list_page(transport, ask, _LISTS[listing], span, cursor)

    async def message(self, transport: Transport, ask: TwilioAsk, message_id: str) -> Page:
        prefix = message_id[:2]
        if prefix not in MESSAGE_SIDS and prefix != _CALL:
            # What other products send has no resource here.
            return Page([])
        resource = _CALLS if prefix == _CALL else _MESSAGES
        path = _path(ask, f"{resource.resource}/{quote(message_id, safe='')}")
        answer = checked(await transport.get(ask.credentials.origin + path, {}, ask.credentials.headers()))
        if answer.status == 404:
            return Page([])
        return Page([answer.body] if Scope(ask.settings.reconcile).holds(row_of(answer.body)) else [])


async def _list_page(transport: Transport, ask: TwilioAsk, listed: _List, span: Span, cursor: str) -> Page:
    path = _path(ask, listed.resource)
    # One of another account led through a list that this one does not have.
    asked = cursor if cursor.startswith(f"{path}?") else ""
    params = {} if asked else {**_days(listed.dated, span), "PageSize": str(_MAX_ROWS)}
    response = await transport.get(ask.credentials.origin + (asked or path), params, ask.credentials.headers())
    if response.status == 400 and error_code(response) == _TOO_OLD:
        raise NeverError(f"Twilio tells of nothing that is older than 400 days. It says: {said(response)}")
    if checked(response).status == 404:
        raise CredentialsRefusedError(f"Twilio does not know the account of the credentials. It says: {said(response)}")
    answer = _answer(response)
    raws = answer.messages if listed is _MESSAGES else answer.calls
    if raws is None:
        raise UnreadableAnswerError(f"Twilio's answer has no list of {listed.rows}.")
    if len(raws) > _MOST_ROWS:
        raise UnreadableAnswerError(f"Twilio's answer has {len(raws)} {listed.rows}: {_MAX_ROWS} were asked for.")
    scope = Scope(ask.settings.reconcile)
    records, older, dated = [], 0, 0
    for raw in raws:
        row = row_of(raw)
        told = row.date_sent if listed is _MESSAGES else row.start_time
        if not told:
            continue  # Nothing was sent yet, so that it is of no day; it is found by its SID.
        at_us = moment_us(told)
        if at_us is not None:
            dated += 1
            older += at_us < span.from_us
        # One whose date cannot be read is not lost by it.
        if (at_us is None or span.from_us <= at_us < span.to_us) and scope.holds(row):
            records.append(bytes(raw))
    if dated and older == dated:
        # Rows come newest first, so that whatever follows a page of older ones is older still.
        return Page(records)
    return Page(records, _following(path, asked, answer.next_page_uri))


def _answer(response: Response) -> _Answer:
    try:
        return _decode_answer(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        # One person's text may end in half of an emoji: that must not take the others' messages along.
        return _decode_answer(msgspec.json.encode(decode_object(response.body)))
    except (MalformedError, msgspec.DecodeError) as error:
        raise UnreadableAnswerError(f"Twilio's answer cannot be read: {error}") from error


def _following(path: str, asked: str, following: str | None) -> str:
    """The address of the next page, verbatim; empty where there is none.

    One that does not lead on would be followed for ever, or end the list before its end, so it is an error: what was
    found stays found, and the page is asked for again. Anything but the same list could be anybody's address, to which
    the credentials would be sent.
    """
    if not following:
        return ""
    if not following.startswith(f"{path}?"):
        raise UnreadableAnswerError("Twilio's answer names a next page that is none of the list's.")
    number, last = _number(following), _number(asked)
    if following == asked or (number is not None and number <= (last or 0)):
        raise UnreadableAnswerError("Twilio's answer names a next page that was read before.")
    return following


def _number(address: str) -> int | None:
    """The number of a page, from 0, as Twilio counts them in its addresses."""
    number = parse_qs(urlsplit(address).query).get("Page", [""])[-1]
    return int(number) if number.isascii() and number.isdecimal() else None


def _days(dated: str, span: Span) -> dict[str, str]:
    """The days of ``span`` as a filter: one by its name, several from the first until the day after the last, since
    Twilio says both that the last counts and that it does not."""
    first, last = day_of(span.from_us), day_of(span.to_us - 1)
    if first == last:
        return {dated: first.isoformat()}
    return {f"{dated}>": first.isoformat(), f"{dated}<": (last + timedelta(days=1)).isoformat()}


def _path(ask: TwilioAsk, resource: str) -> str:
    return f"/2010-04-01/Accounts/{ask.credentials.account_sid}/{resource}.json"
