"""BulkExport: a file with all messages of a day, made by a job in the tenant's account.

https://www.twilio.com/docs/usage/bulkexport and the pages under it: …/export-custom-job, …/job and …/day.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Final

import msgspec

from backhaul_channels.providers.twilio.credentials import US, TwilioCredentials
from backhaul_channels.providers.twilio.rows import Row, Scope, checked, day_of, moment_us, row_of, said
from backhaul_channels.providers.twilio.settings import TwilioSettings
from backhaul_channels.pull import (
    Ask,
    CredentialsRefusedError,
    LaterError,
    NeverError,
    Page,
    Response,
    Span,
    Transport,
    UnreadableAnswerError,
)

EXPORTS: Final = "https://bulkexports.twilio.com"

# Twilio does not say in which bucket of Amazon's a file lies; its links are signed for us-east-1.
FILE_PLACES: Final = frozenset(
    {
        "https://s3.amazonaws.com",
        "https://s3.us-east-1.amazonaws.com",
        "https://*.s3.amazonaws.com",
        "https://*.s3.us-east-1.amazonaws.com",
    }
)

ROWS_AT_ONCE: Final = 10_000
"""Lines of one page. A link is good for one reading, from the file's beginning, so that small pages would read the
beginning of a large file many times."""

_JOBS: Final = f"{EXPORTS}/v1/Exports/Messages/Jobs"
_DONE: Final = "completed"
_EMPTY: Final = "completedemptyrecords"
_GIVEN_UP: Final = frozenset({"failed", "deletedbyuserrequest", "runningtobedeleted"})

_MIN_WAIT_S: Final = 60.0
_MAX_WAIT_S: Final = 600.0
_MAX_WAITS: Final = 150
"""Of a job: a day, more or less."""
_MAX_WAITS_FOR_FILE: Final = 5


class _At(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an export is: at the job of ``day``, and once that is ``done`` at a ``line`` of its file; ``waits`` is how
    often it was not there yet."""

    day: str
    job: str = ""
    done: bool = False
    line: int = 0
    waits: int = 0


_decode_at = msgspec.json.Decoder(_At).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_ExportAsk = Ask[TwilioCredentials, TwilioSettings]


async def export_page(transport: Transport, ask: _ExportAsk, span: Span, cursor: str) -> Page:
    """The next part of what BulkExport tells of the days of ``span``: a job for each, when that is done its file, in
    slices. Raises PullError."""
    if not ask.settings.reconcile.bulk_export:
        raise NeverError(
            "BulkExport creates jobs in the account, and the channel does not allow that: set reconcile.bulk_export."
        )
    region = ask.credentials.region
    if region != US:
        raise NeverError(
            f"Twilio has BulkExport in the region US1 only, and the account is asked in {region.upper()}: leave "
            "reconcile.bulk_export out, and days are closed by the list of messages."
        )
    at = _at(span, cursor)
    if not at.job:
        return await _begin(transport, ask, at)
    if not at.done:
        return await _wait(transport, ask, span, at)
    return await _read(transport, ask, span, at)


def _at(span: Span, cursor: str) -> _At:
    try:
        return _decode_at(cursor)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # None, or of a version that wrote it otherwise: then the day is exported once more.
        return _At(day_of(span.from_us).isoformat())


async def _begin(transport: Transport, ask: _ExportAsk, at: _At) -> Page:
    form = {"StartDay": at.day, "EndDay": at.day, "FriendlyName": f"Backhaul {at.day}"}
    response = checked(await transport.post(_JOBS, form, ask.credentials.headers()), passed=(400,))
    if response.status in (400, 404):
        raise NeverError(f"Twilio exports no messages of {at.day}. It says: {said(response)}")
    job = _object(response).get("job_sid")
    if not isinstance(job, str) or not job.isalnum() or not job.startswith("JS"):
        raise UnreadableAnswerError("Twilio's answer does not name the job that exports a day.")
    return _later(_At(at.day, job))


async def _wait(transport: Transport, ask: _ExportAsk, span: Span, at: _At) -> Page:
    response = checked(await transport.get(f"{EXPORTS}/v1/Exports/Jobs/{at.job}", {}, ask.credentials.headers()))
    if response.status == 404:
        raise NeverError(f"Twilio no longer has the job that exports {at.day}: somebody has deleted it.")
    states = _states(response)
    if states & _GIVEN_UP:
        raise NeverError(f"Twilio has not exported {at.day}: its job {at.job} has failed, or was deleted.")
    if states == {_DONE}:
        return Page([], _cursor(_At(at.day, at.job, done=True)))
    if states == {_EMPTY}:
        return _next_day(span, at)
    if at.waits >= _MAX_WAITS:
        raise NeverError(f"Twilio has not exported {at.day} within a day: its job {at.job} is not done.")
    return _later(at)


def _states(response: Response) -> set[str]:
    """The states of a job's days, in lower case, as far as it tells them. It has one day, which it may leave out."""
    details = _object(response).get("details")
    if not isinstance(details, list | None):
        raise UnreadableAnswerError("Twilio's answer does not tell how a job stands.")
    told = [one.get("status") for one in details or () if isinstance(one, dict)]
    return {state.lower() for state in told if isinstance(state, str)}


async def _read(transport: Transport, ask: _ExportAsk, span: Span, at: _At) -> Page:
    url = f"{EXPORTS}/v1/Exports/Messages/Days/{at.day}"
    response = checked(await transport.get(url, {}, ask.credentials.headers()), passed=(307,))
    if response.status == 404:
        if at.waits >= _MAX_WAITS_FOR_FILE:
            raise NeverError(f"Twilio has no file of {at.day}, though its job {at.job} is done; files go after 7 days.")
        return _later(at)
    place = response.headers.get("location") or _object(response).get("redirect_to")
    if not isinstance(place, str) or not place:
        raise UnreadableAnswerError(f"Twilio's answer does not tell where the file of {at.day} is.")
    try:
        # The link is signed: it needs no credentials, and whoever keeps the file must not get them.
        lines, more = await transport.lines(place, {}, at.line, ROWS_AT_ONCE)
    except CredentialsRefusedError:
        raise LaterError(f"The link to Twilio's file of {at.day} was refused: next time there is another.") from None
    scope = Scope(ask.settings.reconcile)
    records = [line for line in lines if line.strip() and _belongs(row_of(line), span, scope)]
    if more and lines:
        return Page(records, _cursor(_At(at.day, at.job, done=True, line=at.line + len(lines))))
    return Page(records, _next_day(span, at).cursor)


def _belongs(row: Row, span: Span, scope: Scope) -> bool:
    """Whether a line is asked for. By which of its dates a message is in a day's file Twilio does not say, so either
    counts; one without any is not lost by it."""
    moments = [at_us for told in (row.date_created, row.date_sent) if (at_us := moment_us(told)) is not None]
    return scope.holds(row) and (not moments or any(span.from_us <= at_us < span.to_us for at_us in moments))


def _later(at: _At) -> Page:
    """What is waited for is not there yet."""
    wait_s = min(_MIN_WAIT_S * (at.waits + 1), _MAX_WAIT_S)
    return Page([], _cursor(msgspec.structs.replace(at, waits=at.waits + 1)), wait_s)


def _next_day(span: Span, at: _At) -> Page:
    day = date.fromisoformat(at.day) + timedelta(days=1)
    return Page([], _cursor(_At(day.isoformat())) if day <= day_of(span.to_us - 1) else "")


def _cursor(at: _At) -> str:
    return msgspec.json.encode(at).decode()


def _object(response: Response) -> dict[str, Any]:
    try:
        return _decode_object(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableAnswerError(f"Twilio's answer cannot be read: {error}") from error
