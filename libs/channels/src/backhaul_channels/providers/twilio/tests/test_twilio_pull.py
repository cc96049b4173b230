"""What the puller asks of the lists, what it believes of the answers, and where it stops."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from backhaul_channels.providers.twilio.credentials import TwilioCredentials
from backhaul_channels.providers.twilio.settings import TwilioSettings
from backhaul_channels.providers.twilio.tests.telling_twilio import (
    ACCOUNT,
    DAY,
    KEY,
    MINUTE,
    OTHER_SERVICE,
    PATH,
    PULLER,
    SERVICE,
    SPAN,
    TEN,
    TOKEN,
    Told,
    ask_of,
    next_of,
    ok,
    page_of,
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
from pydantic import ValidationError


async def test_a_record_is_the_row_as_it_came() -> None:
    raw = b'{"sid" : "SM1", "date_sent":"2025-11-25T10:00:30Z","emoji":"\\ud83d\\ude00", "price": -0.00750}'
    page, _ = await read(Response(200, {}, b'{"end":0, "messages": [' + raw + b"]}"))
    assert page == Page([raw])


@pytest.mark.parametrize(
    ("sent", "is_asked_for"),
    [
        ("Tue, 25 Nov 2025 09:59:59 +0000", False),
        ("Tue, 25 Nov 2025 10:00:00 +0000", True),
        ("2025-11-25T10:00:00Z", True),
        ("2025-11-25T11:00:59+01:00", True),
        ("Tue, 25 Nov 2025 10:01:00 +0000", False),
        ("2025-11-25T10:01:00Z", False),
        # Nothing was sent: it is of no day.
        (None, False),
        ("", False),
        # It is of one, and nobody can tell of which: better once more than never.
        ("last Tuesday", True),
        ("2025-11-25T10:00:30", True),
    ],
)
async def test_the_span_is_held_to_the_instant(sent: str | None, is_asked_for: bool) -> None:
    page, _ = await read(page_of(row(1, sent)))
    assert sids(page) == ([1] if is_asked_for else [])


@pytest.mark.parametrize(
    ("from_us", "to_us", "days"),
    [
        (TEN, TEN + 1, {"DateSent": "2025-11-25"}),
        (TEN - 10 * 60 * MINUTE, TEN + 14 * 60 * MINUTE, {"DateSent": "2025-11-25"}),
        (TEN, TEN + 14 * 60 * MINUTE + 1, {"DateSent>": "2025-11-25", "DateSent<": "2025-11-27"}),
        (TEN - DAY, TEN + DAY, {"DateSent>": "2025-11-24", "DateSent<": "2025-11-27"}),
    ],
)
async def test_a_span_is_asked_for_by_its_days(from_us: int, to_us: int, days: dict[str, str]) -> None:
    _, told = await read(page_of(), span=Span(from_us, to_us))
    assert told.asked[0][:2] == (f"https://api.twilio.com{PATH}", {**days, "PageSize": "1000"})


async def test_nothing_is_asked_of_a_span_without_time() -> None:
    assert await PULLER.window(Told(), ask_of(), "messages", Span(TEN, TEN)) == Page([])


async def test_a_text_that_ends_in_half_of_an_emoji_takes_no_other_message_along() -> None:
    rows = [row(1), row(2, body="so far \ud83d"), row(3)]
    page, _ = await read(ok({"messages": rows, "next_page_uri": f"{PATH}?Page=1&PageToken=PA"}))
    assert sids(page) == [1, 2, 3]
    assert page.cursor == f"{PATH}?Page=1&PageToken=PA"
    # Also where it is asked for singly; whoever reads the record replaces the half.
    single = await PULLER.message(Told(ok(rows[1])), ask_of(senders=["+15005550006"]), rows[1]["sid"])
    assert single.records == [json.dumps(rows[1]).encode()]


async def test_an_answer_with_far_more_rows_than_were_asked_for_is_not_looked_at() -> None:
    with pytest.raises(UnreadableAnswerError, match="10001"):
        await read(Response(200, {}, b'{"messages": [' + b"{}," * 10_000 + b"{}]}"))


async def test_the_next_page_is_asked_for_as_it_is_named() -> None:
    """Nothing of it is written anew: Twilio has refused its own filters when they came back spelt otherwise."""
    named = next_of(1, "To=%2B1&DateSent%3E=2025-11-25&x=a+b%20c")
    first, _ = await read(page_of(row(2), following=named))
    second, told = await read(page_of(row(1)), cursor=first.cursor)
    assert told.asked[0][:2] == (f"https://api.twilio.com{named}", {})
    assert (sids(first), sids(second), second.cursor) == ([2], [1], "")


async def test_a_row_that_arrives_between_two_pages_is_told_twice_and_none_is_lost() -> None:
    first, _ = await read(page_of(row(4), row(3), following=next_of(1)))
    second, _ = await read(page_of(row(3), row(2), row(1)), cursor=first.cursor)
    assert sids(first) + sids(second) == [4, 3, 3, 2, 1]


@pytest.mark.parametrize("asked", ["", next_of(1), next_of(2)])
@pytest.mark.parametrize("named", [next_of(0), next_of(1), next_of(2)])
async def test_a_page_that_was_read_before_is_not_followed(asked: str, named: str) -> None:
    """The end would be taken for the list's, so it is an error: the cursor stays, and the page is asked for again."""
    leads_on = named > (asked or next_of(0))
    if leads_on:
        page, _ = await read(page_of(row(1), following=named), cursor=asked)
        assert page.cursor == named
        return
    with pytest.raises(UnreadableAnswerError, match="was read before"):
        await read(page_of(row(1), following=named), cursor=asked)


@pytest.mark.parametrize(
    "named",
    [
        "https://elsewhere.example.com/2010-04-01/",
        "@elsewhere.example.com/",
        "//elsewhere.example.com/",
        ".elsewhere.example.com/",
        f"/2010-04-01/Accounts/AC{'9' * 32}/Messages.json?Page=1",
        PATH.replace("Messages", "Calls") + "?Page=1",
    ],
)
async def test_credentials_go_to_no_other_list(named: str) -> None:
    with pytest.raises(UnreadableAnswerError, match="none of the list's"):
        await read(page_of(row(1), following=named))


async def test_a_cursor_of_another_account_begins_anew() -> None:
    _, told = await read(page_of(), cursor=next_of(1).replace(ACCOUNT, "AC" + "9" * 32))
    assert told.asked[0][0] == f"https://api.twilio.com{PATH}"


async def test_what_follows_a_page_of_older_rows_is_not_asked_for() -> None:
    old = "Tue, 25 Nov 2025 09:59:59 +0000"
    page, _ = await read(page_of(row(2, old), row(1, old), row(7, None), following=next_of(1)))
    assert page == Page([])
    # One that is not older, or of which nobody can tell: the list may go on with what is asked for.
    for other in (row(3), row(3, "Tue, 25 Nov 2025 10:01:00 +0000")):
        page, _ = await read(page_of(row(2, old), other, row(1, old), following=next_of(1)))
        assert page.cursor == next_of(1)
    for rows in ([], [row(7, None)], [row(3, "last Tuesday")]):
        page, _ = await read(page_of(*rows, following=next_of(1)))
        assert page.cursor == next_of(1)


SENT = row(1, messaging_service_sid=SERVICE)
RECEIVED = row(2, direction="inbound", **{"from": "+15005550001", "to": "+15005550006"})


@pytest.mark.parametrize(
    ("reconcile", "found"),
    [
        ({}, [1, 2, 3]),
        ({"senders": ["+15005550006"]}, [1, 2]),
        ({"senders": ["+15005550001"]}, []),
        ({"senders": ["whatsapp:+15005550006"]}, [3]),
        ({"messaging_services": [SERVICE]}, [1]),
        ({"messaging_services": [OTHER_SERVICE]}, []),
        ({"senders": ["whatsapp:+15005550006"], "messaging_services": [SERVICE]}, [1, 3]),
    ],
)
async def test_only_what_is_the_channels_is_told(reconcile: dict[str, Any], found: list[int]) -> None:
    """Two tenants may share an account: neither sees what the other sends or gets."""
    whatsapp = row(3, **{"from": "whatsapp:+15005550006"})
    page, _ = await read(page_of(SENT, RECEIVED, whatsapp), **reconcile)
    assert sids(page) == found
    for number, one in enumerate((SENT, RECEIVED, whatsapp), 1):
        page = await PULLER.message(Told(ok(one)), ask_of(**reconcile), one["sid"])
        assert sids(page) == ([number] if number in found else [])


async def test_a_call_is_the_channels_by_the_tenants_side() -> None:
    calls = [
        {**row(1), "sid": "CA1", "start_time": "Tue, 25 Nov 2025 10:00:00 +0000"},
        {
            **RECEIVED,
            "sid": "CA2",
            "start_time": "Tue, 25 Nov 2025 10:00:00 +0000",
            "direction": "trunking-originating",
        },
        {**RECEIVED, "sid": "CA3", "start_time": "Tue, 25 Nov 2025 10:00:00 +0000", "direction": "outbound-dial"},
        {**row(4), "sid": "CA4", "start_time": None},
    ]
    page, told = await read(ok({"calls": calls}), listing="calls", calls=True, senders=["+15005550006"])
    assert [json.loads(record)["sid"] for record in page.records] == ["CA1", "CA2"]
    assert told.asked[0][1] == {"StartTime": "2025-11-25", "PageSize": "1000"}


@pytest.mark.parametrize(
    ("message_id", "resource"), [("SM1", "Messages/SM1"), ("MM1", "Messages/MM1"), ("CA1", "Calls/CA1")]
)
async def test_one_is_asked_for_by_its_sid(message_id: str, resource: str) -> None:
    told = Told(ok(row(1, None, status="failed")))
    assert sids(await PULLER.message(told, ask_of(), message_id)) == [1]
    assert urlsplit(told.asked[0][0]).path == f"/2010-04-01/Accounts/{ACCOUNT}/{resource}.json"


@pytest.mark.parametrize("message_id", ["VL1", "IM1", "", "../SM1", "order-77"])
async def test_what_has_no_resource_is_not_asked_for(message_id: str) -> None:
    assert await PULLER.message(Told(), ask_of(), message_id) == Page([])


@pytest.mark.parametrize(
    ("region", "host"),
    [("us1", "api.twilio.com"), ("ie1", "api.dublin.ie1.twilio.com"), ("au1", "api.sydney.au1.twilio.com")],
)
async def test_each_region_has_an_address_of_its_own(region: str, host: str) -> None:
    for ask in (ask_of({**TOKEN, "region": region}), ask_of({**KEY, "region": region})):
        told = Told(page_of(following=next_of(1)), page_of(), ok(row(1)))
        page = await PULLER.window(told, ask, "messages", SPAN)
        await PULLER.window(told, ask, "messages", SPAN, page.cursor)
        await PULLER.message(told, ask, "SM1")
        assert {urlsplit(url).netloc for url, _, _ in told.asked} == {host}
        assert all(is_among(url, PULLER.origins) for url, _, _ in told.asked)


async def test_who_asks_is_shown_as_twilio_wants_it() -> None:
    shown = {}
    for name, credentials in (("token", TOKEN), ("key", KEY)):
        told = Told(page_of())
        await PULLER.window(told, ask_of(credentials), "messages", SPAN)
        shown[name] = told.asked[0][2]["authorization"]
    # printf '%s' "AC000…:an-auth-token" | base64
    assert shown == {
        "token": "Basic QUMwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDphbi1hdXRoLXRva2Vu",
        "key": "Basic U0szMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzphLWtleS1zZWNyZXQ=",
    }


def test_an_account_is_one_whoever_asks() -> None:
    accounts = {PULLER.account(TwilioCredentials.model_validate(given)) for given in (TOKEN, KEY)}
    assert accounts == {ACCOUNT}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"account_sid": ACCOUNT}, "Give auth_token, or api_key_sid and api_key_secret"),
        ({**TOKEN, **KEY}, "and not both"),
        ({"account_sid": ACCOUNT, "api_key_sid": KEY["api_key_sid"]}, "An API key has two parts"),
        ({**TOKEN, "api_key_secret": "a-key-secret"}, "An API key has two parts"),
        ({**TOKEN, "account_sid": "SK" + "0" * 32}, "account_sid"),
        ({**TOKEN, "region": "us2"}, "region"),
        ({**TOKEN, "auth_token": "two\nlines"}, "auth_token"),
    ],
)
def test_credentials_that_are_none_are_refused(given: dict[str, str], text: str) -> None:
    with pytest.raises(ValidationError, match=text) as caught:
        TwilioCredentials.model_validate(given)
    assert not [secret for secret in ("an-auth-token", "a-key-secret", "lines") if secret in str(caught.value)]


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (
            ok({"code": 20003, "message": "Authenticate", "status": 401}, 401),
            CredentialsRefusedError,
            r"It says: Authenticate \(20003\)$",
        ),
        (
            ok({"code": 20429, "message": "Too Many Requests"}, 429, **{"retry-after": "3"}),
            TooOftenError,
            r"Too Many Requests \(20429\)$",
        ),
        (ok({"code": 20500, "message": "An internal\nerror"}, 500), LaterError, r"An internal error \(20500\)$"),
        (ok({"code": 20001, "message": "x" * 999}, 400), UnreadableAnswerError, r"400. It says: x{300} \(20001\)$"),
        (ok({"message": "no code"}, 400), UnreadableAnswerError, "It says: no code$"),
        (Response(503, {}, b"<html>"), LaterError, r"\(status 503\)\.$"),
        (
            ok({"code": 20004, "message": "Date range specified is outside of retention window of 400 days"}, 400),
            NeverError,
            "older than 400 days. It says: Date range",
        ),
        (ok({"code": 20404, "message": "Not found"}, 404), CredentialsRefusedError, "does not know the account"),
        (ok({"calls": []}), UnreadableAnswerError, "no list of messages"),
        (ok({"messages": {}}), UnreadableAnswerError, "cannot be read"),
        (ok({"messages": [7]}), UnreadableAnswerError, "neither a message nor a call"),
        (ok({"messages": [{"status": "sent"}]}), UnreadableAnswerError, "neither a message nor a call"),
    ],
)
async def test_an_error_says_what_twilio_says(answer: Response, error: type[PullError], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        await read(answer)
    if isinstance(caught.value, TooOftenError):
        assert caught.value.retry_after_s == 3.0


def test_the_lists_are_those_that_the_channel_asks_for() -> None:
    def listings(**reconcile: Any) -> list[tuple[str, bool, bool, bool]]:
        settings = TwilioSettings.model_validate({"reconcile": reconcile})
        return [(one.name, one.whole, one.discovers, one.closes) for one in PULLER.listings(settings)]

    assert listings() == [("messages", True, True, True)]
    assert listings(calls=True) == [("messages", True, True, True), ("calls", True, True, True)]
    # The file stands for the list where a day is closed, and only there.
    assert listings(calls=True, bulk_export=True) == [
        ("messages", True, True, False),
        ("calls", True, True, True),
        ("export", True, False, True),
    ]


def test_calls_of_messaging_services_alone_are_refused_and_were_never_lost_when_stored() -> None:
    given = {"reconcile": {"calls": True, "messaging_services": [SERVICE]}}
    with pytest.raises(ValidationError, match="No call belongs to a messaging service"):
        TwilioSettings.model_validate(given)
    assert TwilioSettings.of_stored(given).reconcile.calls
    assert TwilioSettings.of_stored({"reconcile": {"calls": True, "newer": 1}, "newer": 2}).reconcile.calls
    TwilioSettings.model_validate({"reconcile": {**given["reconcile"], "senders": ["+15005550006"]}})


@pytest.mark.parametrize("reconcile", [{"messaging_services": ["SM1"]}, {"senders": [""]}, {"senders": [" +1"]}])
def test_what_is_no_sender_and_no_service_is_refused(reconcile: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TwilioSettings.model_validate({"reconcile": reconcile})
