"""A day as a file: the job, how it is waited for, the slices, and what can go wrong with each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backhaul_channels.providers.twilio import exports
from backhaul_channels.providers.twilio.tests.telling_twilio import (
    DAY,
    PULLER,
    TOKEN,
    Told,
    ask_of,
    ok,
    read,
    row,
    sids,
)
from backhaul_channels.pull import (
    CredentialsRefusedError,
    LaterError,
    NeverError,
    Page,
    PullError,
    Response,
    Span,
    TooOftenError,
    UnreadableAnswerError,
    is_among,
)

JOB = "JS" + "c" * 32
MIDNIGHT = 1_764_028_800_000_000  # 2025-11-25
WHOLE_DAY = Span(MIDNIGHT, MIDNIGHT + DAY)
PLACE = "https://some-bucket.s3.amazonaws.com/part-0.json.gz?X-Amz-Signature=abc"
CREATED = ok({"job_sid": JOB, "details": None}, 201)
FILE = ok({"redirect_to": PLACE}, 307)
GONE = ok({"code": 20404, "message": "The requested resource was not found"}, 404)


def job(*statuses: str | None) -> Response:
    return ok({"job_sid": JOB, "details": [{"status": one, "count": 1, "days": None} for one in statuses]})


def file_of(*rows: dict[str, Any]) -> Response:
    return Response(200, {}, b"".join(json.dumps(one).encode() + b"\n" for one in rows))


async def export(*answers: Response | PullError, cursor: str = "", **reconcile: Any) -> tuple[Page, Told]:
    span = reconcile.pop("span", WHOLE_DAY)
    return await read(*answers, cursor=cursor, span=span, listing="export", bulk_export=True, **reconcile)


async def cursor_of(*answers: Response) -> str:
    """Where an export is after these answers."""
    cursor = ""
    for answer in answers:
        cursor = (await export(answer, cursor=cursor))[0].cursor
        assert cursor
    return cursor


async def test_a_job_is_created_only_where_the_channel_allows_it() -> None:
    told = Told()
    with pytest.raises(NeverError, match=r"set reconcile\.bulk_export"):
        await PULLER.window(told, ask_of(), "export", WHOLE_DAY)
    for region in ("ie1", "au1"):
        ask = ask_of({**TOKEN, "region": region}, bulk_export=True)
        with pytest.raises(NeverError, match=f"in the region US1 only, and the account is asked in {region.upper()}"):
            await PULLER.window(told, ask, "export", WHOLE_DAY)
    assert not told.asked


async def test_a_job_is_waited_for_longer_and_longer() -> None:
    waits, cursor = [], ""
    for answer in (CREATED, job("Submitted"), job(), job("Running"), job("ErrorDuringRun"), job(None)):
        page, _ = await export(answer, cursor=cursor)
        waits.append(page.wait_s)
        cursor = page.cursor
    assert waits == [60.0, 120.0, 180.0, 240.0, 300.0, 360.0]
    page, told = await export(job("COMPLETED"), cursor=cursor)
    assert told.asked[0][0] == f"https://bulkexports.twilio.com/v1/Exports/Jobs/{JOB}"
    assert page.cursor
    assert page.wait_s == 0.0


async def test_a_job_that_is_never_done_is_given_up() -> None:
    page, _ = await export(CREATED)
    waited = page.wait_s
    while waited < 86_400:
        page, _ = await export(job("Submitted"), cursor=page.cursor)
        waited += page.wait_s
    page, _ = await export(job("Submitted"), cursor=page.cursor)
    with pytest.raises(NeverError, match="not exported 2025-11-25 within a day"):
        await export(job("Submitted"), cursor=page.cursor)


@pytest.mark.parametrize("status", ["Failed", "DeletedByUserRequest", "RunningToBeDeleted"])
async def test_a_job_that_failed_or_was_deleted_says_so(status: str) -> None:
    with pytest.raises(NeverError, match="has failed, or was deleted"):
        await export(job(status), cursor=await cursor_of(CREATED))


async def test_a_job_that_is_gone_says_so() -> None:
    with pytest.raises(NeverError, match="somebody has deleted it"):
        await export(GONE, cursor=await cursor_of(CREATED))


async def test_a_day_without_messages_has_no_file() -> None:
    page, _ = await export(job("CompletedEmptyRecords"), cursor=await cursor_of(CREATED))
    assert page == Page([])


async def test_each_day_has_a_job_of_its_own() -> None:
    span = Span(MIDNIGHT + 1, MIDNIGHT + DAY + 1)
    first, told = await export(CREATED, span=span)
    assert told.asked[0][1] == {
        "StartDay": "2025-11-25",
        "EndDay": "2025-11-25",
        "FriendlyName": "Backhaul 2025-11-25",
    }
    empty, _ = await export(job("CompletedEmptyRecords"), cursor=first.cursor, span=span)
    second, told = await export(CREATED, cursor=empty.cursor, span=span)
    assert told.asked[0][1]["StartDay"] == "2025-11-26"
    done, _ = await export(job("Completed"), cursor=second.cursor, span=span)
    page, _ = await export(FILE, file_of(row(1, "2025-11-26T00:00:00Z")), cursor=done.cursor, span=span)
    assert (sids(page), page.cursor) == ([1], "")


async def test_a_file_is_read_in_slices_each_by_a_link_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "ROWS_AT_ONCE", 2)
    rows = [row(number, "2025-11-25T10:00:00Z") for number in range(1, 6)]
    cursor, slices = await cursor_of(CREATED, job("Completed")), []
    while cursor:
        page, told = await export(FILE, file_of(*rows), cursor=cursor)
        slices.append(sids(page))
        cursor = page.cursor
        (day, _, shown), (place, _, hidden) = told.asked
        assert day == "https://bulkexports.twilio.com/v1/Exports/Messages/Days/2025-11-25"
        assert "authorization" in shown
        assert (place, hidden) == (PLACE, {}), "whoever keeps the file does not get the credentials"
    assert slices == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize(
    ("created", "sent", "is_asked_for"),
    [
        # By which of the two a line is in the day's file, nobody says.
        ("2025-11-25T23:59:59Z", "2025-11-26T00:00:01Z", True),
        ("2025-11-24T23:59:59Z", "2025-11-25T00:00:01Z", True),
        ("2025-11-25T00:00:00Z", None, True),
        ("2025-11-24T23:59:59Z", None, False),
        ("2025-11-26T00:00:00Z", "2025-11-26T00:00:00Z", False),
        (None, None, True),
    ],
)
async def test_a_line_is_of_the_day_by_either_date(created: str | None, sent: str | None, is_asked_for: bool) -> None:
    cursor = await cursor_of(CREATED, job("Completed"))
    page, _ = await export(FILE, file_of(row(1, sent, date_created=created)), cursor=cursor)
    assert sids(page) == ([1] if is_asked_for else [])


async def test_lines_of_others_are_not_told() -> None:
    cursor = await cursor_of(CREATED, job("Completed"))
    rows = [row(1, "2025-11-25T10:00:00Z"), row(2, "2025-11-25T10:00:00Z", **{"from": "+15005550099"})]
    page, _ = await export(FILE, file_of(*rows), cursor=cursor, senders=["+15005550006"])
    assert sids(page) == [1]


async def test_a_file_that_is_not_there_yet_is_waited_for_and_in_the_end_given_up() -> None:
    cursor = await cursor_of(CREATED, job("Completed"))
    for _ in range(5):
        page, _ = await export(GONE, cursor=cursor)
        assert page.wait_s
        cursor = page.cursor
    with pytest.raises(NeverError, match="no file of 2025-11-25"):
        await export(GONE, cursor=cursor)
    page, _ = await export(FILE, file_of(row(1, "2025-11-25T10:00:00Z")), cursor=cursor)
    assert sids(page) == [1]


async def test_the_address_may_stand_in_the_header_alone() -> None:
    cursor = await cursor_of(CREATED, job("Completed"))
    _, told = await export(Response(307, {"location": PLACE}, b""), file_of(), cursor=cursor)
    assert told.asked[1][0] == PLACE


async def test_a_link_that_is_used_up_says_nothing_of_the_credentials() -> None:
    cursor = await cursor_of(CREATED, job("Completed"))
    with pytest.raises(LaterError, match="next time there is another"):
        await export(FILE, CredentialsRefusedError("status 403"), cursor=cursor)


@pytest.mark.parametrize(
    ("answers", "error", "text"),
    [
        (
            (ok({"code": 20001, "message": "EndDay must be 2 days earlier"}, 400),),
            NeverError,
            r"EndDay must .*\(20001\)",
        ),
        ((GONE,), NeverError, "exports no messages of 2025-11-25"),
        ((ok({"code": 20003, "message": "Permission denied"}, 403),), CredentialsRefusedError, "Permission denied"),
        ((ok({}, 201),), UnreadableAnswerError, "does not name the job"),
        ((ok({"job_sid": "../Jobs"}, 201),), UnreadableAnswerError, "does not name the job"),
        ((CREATED, ok({"details": "done"})), UnreadableAnswerError, "how a job stands"),
        ((CREATED, ok({"code": 20429, "message": "Too Many Requests"}, 429)), TooOftenError, "20429"),
        ((CREATED, job("Completed"), ok({}, 307)), UnreadableAnswerError, "where the file of 2025-11-25 is"),
        ((CREATED, job("Completed"), ok({"redirect_to": None})), UnreadableAnswerError, "where the file of"),
    ],
)
async def test_an_error_says_what_it_is_about(answers: tuple[Response, ...], error: type[PullError], text: str) -> None:
    cursor = await cursor_of(*answers[:-1])
    with pytest.raises(error, match=text):
        await export(answers[-1], cursor=cursor)


async def test_a_cursor_that_cannot_be_read_begins_anew() -> None:
    for cursor in ("?", "{}", '{"day": 7}'):
        _, told = await export(CREATED, cursor=cursor)
        assert told.asked[0][1]["StartDay"] == "2025-11-25"


@pytest.mark.parametrize(
    ("url", "is_asked"),
    [
        (PLACE, True),
        ("https://some-bucket.s3.us-east-1.amazonaws.com/x", True),
        ("https://s3.amazonaws.com/some-bucket/x", True),
        ("http://some-bucket.s3.amazonaws.com/x", False),
        ("https://some.bucket.s3.amazonaws.com/x", False),
        ("https://s3.amazonaws.com.example.com/x", False),
        ("https://some-bucket.s3.amazonaws.com:444/x", False),
        ("https://user@some-bucket.s3.amazonaws.com/x", False),
        ("https://a.user@b.s3.amazonaws.com/x", False),
        ("https://.s3.amazonaws.com/x", False),
        ("https://*.s3.amazonaws.com/x", False),
        ("https://169.254.169.254/latest", False),
        ("https://[", False),
        ("/x", False),
    ],
)
def test_files_are_read_from_amazon_alone(url: str, is_asked: bool) -> None:
    assert is_among(url, PULLER.origins) is is_asked
