"""What the conformance suite cannot know of SendGrid's puller: how suppressions are read, and what its errors mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

import pytest
from backhaul_channels.adapter import Context, MalformedError, RawCallback, Source
from backhaul_channels.providers.sendgrid import ADAPTER
from backhaul_channels.providers.sendgrid.asking import SendGridCredentials
from backhaul_channels.providers.sendgrid.pull import PATHS, ROWS
from backhaul_channels.providers.sendgrid.settings import SendGridSettings
from backhaul_channels.providers.sendgrid.tests.telling_sendgrid import KEY, PULLER, Api, Row, ask, told
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
)
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

DAY = Span(1_000_000_000_000_000, 1_000_086_400_000_000)


def failing(message: str, status: int, **headers: str) -> Api:
    return Api(lambda _url, _params: told({"errors": [{"field": None, "message": message}]}, status, **headers))


def listed(count: int) -> list[Row]:
    return [{"created": 1_000_000_000 + n, "email": f"p{n}@example.com"} for n in range(count)]


async def walked(api: Api, listing: str, span: Span = DAY) -> list[Row]:
    """The rows of all pages, each of which is led to by a cursor alone."""
    found: list[Row] = []
    cursor = ""
    for _ in range(100):
        page = await PULLER.window(api, ask(), listing, span, cursor)
        found += [json.loads(record)["row"] for record in page.records]
        cursor = page.cursor
        if not cursor:
            return found
    raise AssertionError("the list has no end")


def paged(rows: list[Row]) -> Api:
    def answer(_url: str, params: Mapping[str, str]) -> Response:
        offset = int(params["offset"])
        return told(rows[offset : offset + int(params["limit"])])

    return Api(answer)


@pytest.mark.parametrize(("count", "requests"), [(0, 1), (1, 1), (ROWS - 1, 1), (ROWS, 2), (2 * ROWS + 3, 3)])
async def test_a_list_is_read_by_offsets(count: int, requests: int) -> None:
    api = paged(listed(count))
    assert await walked(api, "bounces") == listed(count)
    assert [params["offset"] for _, params, _ in api.asked] == [str(n * ROWS) for n in range(requests)]


@pytest.mark.parametrize(("count", "requests"), [(ROWS - 1, 1), (ROWS, 2), (ROWS + 1, 1), (20_000, 1)])
async def test_a_list_that_takes_no_offset_is_read_once(count: int, requests: int) -> None:
    rows = [{"created_at": 1_000_000_000, "email": f"p{n}@example.com", "group_id": 1} for n in range(count)]
    api = Api(lambda _url, _params: told(rows))
    assert await walked(api, "group_unsubscribes") == rows
    assert len(api.asked) == requests


async def test_only_rows_of_the_span_are_told_and_those_of_no_time() -> None:
    """SendGrid takes whole seconds and includes both ends; a list that takes no span tells everything."""
    times: list[object] = [999_999_999, 1_000_000_000, "1000000000", 1_000_086_399.0, 1_000_086_400, None, "soon"]
    api = Api(lambda _url, _params: told([{"created": time, "email": "p@example.com"} for time in times]))
    assert [row["created"] for row in await walked(api, "bounces")] == [*times[1:4], None, "soon"]
    assert api.asked[0][1] == {"start_time": "1000000000", "end_time": "1000086399", "limit": "500", "offset": "0"}


@pytest.mark.parametrize("listing", PATHS)
async def test_a_row_is_believed_to_be_missing_once_sendgrid_repeats_its_callback_no_more(listing: str) -> None:
    found = {one.name: one for one in PULLER.listings(SendGridSettings())}[listing]
    assert found.waits_s >= 24 * 3_600
    # It is looked at again when it is as old as that, and asking for it takes nothing from Email Activity.
    assert found.settles_s > found.waits_s
    assert PULLER.budgets[found.budget] != PULLER.budgets[PULLER.message_budget]


def test_mails_are_asked_for_six_times_a_minute_and_are_no_account_of_a_day() -> None:
    listing = PULLER.listings(SendGridSettings())[-1]
    assert (listing.name, listing.whole, listing.waits_s) == ("messages", False, 0)
    assert PULLER.budgets[listing.budget] is PULLER.budgets[PULLER.message_budget]
    assert PULLER.budgets[PULLER.message_budget].per_minute == 6


@pytest.mark.parametrize("name", ["", "a-subuser", "account-id 12ab"])
async def test_a_subuser_is_named_in_a_header_and_shares_the_keys_budgets(name: str) -> None:
    api = paged([])
    await PULLER.window(api, ask(subuser=name), "bounces", DAY)
    (_, _, headers) = api.asked[0]
    assert headers.get("on-behalf-of", "") == name
    assert headers["authorization"] == f"Bearer {KEY}"
    assert PULLER.account(ask(subuser=name).credentials) == PULLER.account(ask().credentials)
    other = SendGridCredentials(api_key=f"{KEY}2")
    assert PULLER.account(other) != PULLER.account(ask().credentials)


@pytest.mark.parametrize("name", ["two\r\nlines", " blank", "ümlaut", "x" * 129])
def test_a_subuser_is_what_a_header_can_hold(name: str) -> None:
    with pytest.raises(ValidationError):
        SendGridCredentials(api_key=KEY, subuser=name)


async def test_in_the_eu_there_are_suppressions_alone() -> None:
    api = paged([])
    asking = ask(region="eu")
    assert [one.name for one in PULLER.listings(asking.settings)] == list(PATHS)
    await PULLER.window(api, asking, "bounces", DAY)
    assert [url for url, _, _ in api.asked] == ["https://api.eu.sendgrid.com/v3/suppression/bounces"]
    with pytest.raises(NeverError, match="EU"):
        await PULLER.window(api, asking, "messages", DAY)
    with pytest.raises(NeverError, match="EU"):
        await PULLER.message(api, asking, "m1.filter.0")
    assert len(api.asked) == 1


async def asked_for(api: Api, name: str) -> Page:
    """A page of a list, or a mail."""
    if name == "a mail":
        return await PULLER.message(api, ask(), "m1.filter.0")
    return await PULLER.window(api, ask(), name, DAY)


async def everything(api: Api) -> dict[str, PullError]:
    """What each list, and a mail, raises."""
    raised: dict[str, PullError] = {}
    for name in (*PATHS, "messages", "a mail"):
        with pytest.raises(PullError) as caught:
            await asked_for(api, name)
        raised[name] = caught.value
    return raised


@pytest.mark.parametrize(
    ("date", "wait_s"),
    [
        ("Tue, 01 May 2018 16:19:25 GMT", 35.0),
        ("Tue, 01 May 2018 16:25:00 GMT", 0.0),
        ("Tue, 01 May 2010 16:25:00 GMT", 3_600.0),
        ("", None),
        ("now", None),
    ],
)
async def test_a_429_says_until_when_by_sendgrids_own_clock(date: str, wait_s: float | None) -> None:
    for error in (
        await everything(failing("too many requests", 429, x_ratelimit_reset="1525191600", date=date))
    ).values():
        assert isinstance(error, TooOftenError)
        assert error.retry_after_s == wait_s
        assert "too many requests" in str(error)


@pytest.mark.parametrize("reset", ["", "soon", "-1", "१२३"])
async def test_a_429_that_does_not_say_until_when(reset: str) -> None:
    date = "Tue, 01 May 2018 16:19:25 GMT"
    for error in (await everything(failing("too many requests", 429, x_ratelimit_reset=reset, date=date))).values():
        assert isinstance(error, TooOftenError)
        assert error.retry_after_s is None


async def test_retry_after_counts_for_more_and_a_provider_in_trouble_is_asked_later() -> None:
    for error in (await everything(failing("x", 429, retry_after="7", x_ratelimit_reset="1525191600"))).values():
        assert isinstance(error, TooOftenError)
        assert error.retry_after_s == 7.0
    for error in (await everything(failing("internal error", 500))).values():
        assert isinstance(error, LaterError)
        assert not isinstance(error, TooOftenError)
        assert "internal error" in str(error)


async def test_a_bad_key_is_refused_everywhere() -> None:
    message = "The provided authorization grant is invalid, expired, or revoked"
    for error in (await everything(failing(message, 401))).values():
        assert isinstance(error, CredentialsRefusedError)
        assert message in str(error)


async def test_what_a_key_may_not_read_ends_that_list_alone_where_a_good_key_may_lack_it() -> None:
    """Email Activity is sold apart, and groups have a permission of their own; without the lists nothing is left."""
    raised = await everything(failing("access forbidden", 403))
    never = {name for name, error in raised.items() if isinstance(error, NeverError)}
    assert never == {"group_unsubscribes", "messages", "a mail"}
    assert "additional email activity history" in str(raised["messages"])
    assert all(isinstance(error, CredentialsRefusedError) for name, error in raised.items() if name not in never)
    assert "read suppressions" in str(raised["bounces"])


async def test_accounts_without_email_activity_are_told_so_in_several_ways() -> None:
    for api in (failing("authorization required", 400), failing("not found", 404)):
        with pytest.raises(NeverError, match="additional email activity history"):
            await PULLER.window(api, ask(), "messages", DAY)
    with pytest.raises(NeverError):
        await PULLER.message(failing("authorization required", 400), ask(), "m1.filter.0")
    with pytest.raises(UnreadableAnswerError, match="not a known field"):
        await PULLER.window(failing("invalid syntax: 'x' is not a known field", 400), ask(), "messages", DAY)


async def test_a_list_that_is_not_there_is_no_empty_one() -> None:
    with pytest.raises(UnreadableAnswerError, match="not found"):
        await PULLER.window(failing("not found", 404), ask(), "bounces", DAY)


async def test_no_error_repeats_the_key() -> None:
    for status in (400, 401, 403, 404, 429, 500):
        api = failing(f"the key {KEY} is bad. {'x' * 1000}", status)
        for name in (*PATHS, "messages"):
            with pytest.raises(PullError) as caught:
                await PULLER.window(api, ask(), name, DAY)
            assert KEY not in str(caught.value)
            assert len(str(caught.value)) < 600


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("created", "created_at", "email", "group_id", "reason", "status", "msg_id", "to_email", "last_event_time")
MORE = ("events", "event_name", "processed", "bounce_type", "unique_args", "categories", "messages", "errors")
OBJECTS = st.dictionaries(st.sampled_from((*NAMES, *MORE)), VALUES, max_size=8)
BODIES = st.binary(max_size=40) | st.one_of(
    OBJECTS,
    st.lists(OBJECTS, max_size=3),
    st.builds(lambda rows: {"messages": rows}, st.lists(OBJECTS, max_size=3)),
    st.builds(lambda mail, events: {**mail, "events": events}, OBJECTS, st.lists(OBJECTS, max_size=3)),
).map(lambda content: json.dumps(content).encode())


@given(BODIES, st.sampled_from([200, 400, 403, 404, 429]))
@example(b'[{"email": "\\ud83d", "created": 1000000000}]', 200)
@example(b'[{"email": "a@example.com", "created": 1e400}]', 200)
@example(b'{"messages": null}', 200)
@example(b"[" * 100_000, 200)
async def test_whatever_is_answered_is_an_error_of_pulling_or_something_to_read(body: bytes, status: int) -> None:
    for name in ("bounces", "group_unsubscribes", "messages", "a mail"):
        api = Api(lambda _url, _params: Response(status, {}, body))
        try:
            page = await asked_for(api, name)
        except PullError:
            continue
        context = Context(SendGridSettings(), source=Source.BACKFILL)
        for record in page.records:
            for part in ADAPTER.split(RawCallback("GET", "", [], record), context.settings):
                with suppress(MalformedError):
                    assert ADAPTER.normalize(part, context).provider_status
