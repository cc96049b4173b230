"""Twilio's lists as its documentation has them: pages, filters, dates, and who may read them."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
import pytest
from backhaul_testing.apis.clock import Clock
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi
from simulators.asking_twilio import client, delivered, pages, path, sids


def error(answer: httpx.Response) -> tuple[int, int]:
    """The status and the code of an error in the documented shape."""
    content = answer.json()
    assert set(content) == {"code", "message", "more_info", "status"}
    assert content["status"] == answer.status_code
    assert content["more_info"] == f"https://www.twilio.com/docs/errors/{content['code']}"
    return answer.status_code, content["code"]


def test_pages_follow_each_other_newest_first(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    sent = [delivered(account, clock.now() - timedelta(minutes=number)).sid for number in range(1, 126)]
    with client(twilio_api, account) as http:
        found = list(pages(http, path(account), {}))
        assert [len(page["messages"]) for page in found] == [50, 50, 25]
        assert [row["sid"] for page in found for row in page["messages"]] == sent
        assert [(page["page"], page["start"], page["end"]) for page in found] == [
            (0, 0, 49),
            (1, 50, 99),
            (2, 100, 124),
        ]
        assert found[1]["uri"] == found[0]["next_page_uri"]
        assert found[0]["next_page_uri"] == f"{path(account)}?PageSize=50&Page=1&PageToken=PA{sent[49]}"
        (whole,) = pages(http, path(account), {"PageSize": "1000"})
        assert len(whole["messages"]) == 125
        (most,) = pages(http, path(account), {"PageSize": "5000"})
        assert most["page_size"] == 1000
        (none,) = pages(http, path(account), {"To": "+1", "DateSent<": "2026-11-01"})
        assert (none["start"], none["end"], none["messages"]) == (0, 0, [])
        assert none["first_page_uri"].endswith("?To=%2B1&DateSent%3C=2026-11-01&PageSize=50&Page=0")


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"DateSent": "2026-11-19"}, ["evening", "morning"]),
        ({"DateSent": "2026-11-19T23:30:00Z"}, ["evening", "morning"]),
        ({"DateSent": "Thu, 19 Nov 2026 05:00:00 +0000"}, ["evening", "morning"]),
        ({"DateSent_before": "2026-11-19"}, ["evening", "morning", "eve"]),
        ({"DateSent_after": "2026-11-19"}, ["today", "evening", "morning"]),
        ({"DateSent_after": "2026-11-18", "DateSent_before": "2026-11-18"}, ["eve"]),
        ({"To": "+15005550007"}, ["morning"]),
        ({"From": "+15005550008", "DateSent_after": "2026-11-01"}, ["eve"]),
        ({"DateSent": "2026-11-17"}, []),
    ],
)
def test_filters_count_by_day(
    twilio_api: TwilioApi, account: TwilioAccount, params: dict[str, str], expected: list[str]
) -> None:
    made = {
        "today": delivered(account, at("2026-11-20T00:00:00")),
        "evening": delivered(account, at("2026-11-19T23:59:57")),
        "morning": delivered(account, at("2026-11-19T00:00:00"), "+15005550007"),
        "eve": delivered(account, at("2026-11-18T23:59:56"), sender="+15005550008"),
    }
    for name, text in made.items():
        text.body = name
    account.text("+15005550001", [(at("2026-11-19T10:00:00"), "scheduled")])
    with client(twilio_api, account) as http:
        assert sids(http, account, **params) == [made[name].sid for name in expected]
        assert sids(http, account, PageSize="1", **params) == [made[name].sid for name in expected]


def test_what_was_not_sent_has_no_date_and_is_found_by_its_sid(
    twilio_api: TwilioApi, account: TwilioAccount, clock: Clock
) -> None:
    text = account.text("+15005550001", [(clock.now(), "queued")])
    failed = account.text("+15005550002", [(clock.now(), "queued"), (clock.now(), "failed")], error_code=30007)
    with client(twilio_api, account) as http:
        assert set(sids(http, account)) == {text.sid, failed.sid}
        assert sids(http, account, DateSent_after="2026-01-01") == []
        row = http.get(path(account, f"Messages/{text.sid}.json")).json()
        assert (row["date_sent"], row["status"], row["error_code"]) == (None, "queued", None)
        row = http.get(path(account, f"Messages/{failed.sid}.json")).json()
        assert (row["date_sent"], row["status"], row["error_code"]) == (None, "failed", 30007)
        assert row["error_message"] == "Carrier violation"


def test_time_makes_a_message_what_it_becomes(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    begin = clock.now()
    text = account.text("+15005550001", [(begin, "queued"), (begin + timedelta(seconds=5), "sent")])
    with client(twilio_api, account) as http:
        address = path(account, f"Messages/{text.sid}.json")
        assert http.get(address).json()["status"] == "queued"
        assert sids(http, account, DateSent="2026-11-20") == []
        clock.advance(5)
        row = http.get(address).json()
        assert row["status"] == "sent"
        assert parsedate_to_datetime(row["date_created"]) == begin
        assert parsedate_to_datetime(row["date_sent"]) == begin + timedelta(seconds=5)
        assert row["date_updated"] == row["date_sent"] == "Fri, 20 Nov 2026 12:00:05 +0000"
        assert sids(http, account, DateSent="2026-11-20") == [text.sid]
        clock.advance(86_400)
        account.tell(text.sid, "undelivered", error_code=30003)
        row = http.get(address).json()
        assert (row["status"], row["error_code"]) == ("undelivered", 30003)
        assert sids(http, account, DateSent="2026-11-21") == []
        assert account.states() == {text.sid: "undelivered"}


def test_a_message_that_lies_ahead_is_not_there_yet(
    twilio_api: TwilioApi, account: TwilioAccount, clock: Clock
) -> None:
    text = delivered(account, clock.now() + timedelta(hours=1))
    with client(twilio_api, account) as http:
        assert sids(http, account) == []
        assert error(http.get(path(account, f"Messages/{text.sid}.json"))) == (404, 20404)
        assert account.states() == {}


def test_nothing_is_told_beyond_400_days(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    oldest, older = (delivered(account, clock.days_ago(days)) for days in (400, 401))
    last, before = (f"{clock.days_ago(days):%Y-%m-%d}" for days in (400, 401))
    with client(twilio_api, account) as http:
        assert sids(http, account) == sids(http, account, DateSent=last) == [oldest.sid]
        for name in ("DateSent", "DateSent>", "DateSent<"):
            assert error(http.get(path(account), params={name: before})) == (400, 20004)
        assert error(http.get(path(account, f"Messages/{older.sid}.json"))) == (404, 20404)


@pytest.mark.parametrize(
    "params",
    [{"Page": "1"}, {"PageToken": "PASM0", "Page": "1"}, {"PageSize": "0"}, {"PageSize": "x"}, {"DateSent": "soon"}],
)
def test_what_does_not_parse_is_refused(twilio_api: TwilioApi, account: TwilioAccount, params: dict[str, str]) -> None:
    with client(twilio_api, account) as http:
        assert error(http.get(path(account), params=params)) == (400, 20001)


def test_only_who_may_reads_an_account(twilio_api: TwilioApi, account: TwilioAccount) -> None:
    below, other = account.subaccount(), twilio_api.account()
    token = (account.sid, account.auth_token)
    asking = {
        token: {account, below},
        account.key(): {account},
        (below.sid, below.auth_token): {below},
        below.key(): {below},
        (account.sid, below.auth_token): set(),
        (account.sid, ""): set(),
        ("", ""): set(),
    }
    for auth, may in asking.items():
        with client(twilio_api, account, auth) as http:
            for asked in (account, below, other):
                answer = http.get(path(asked))
                if asked in may:
                    assert answer.status_code == 200
                else:
                    assert error(answer) == (401, 20003)
    with httpx.Client(base_url=twilio_api.url) as http:
        for header in ({}, {"Authorization": "Basic !"}, {"Authorization": f"Bearer {account.auth_token}"}):
            assert error(http.get(path(account), headers=header)) == (401, 20003)


def test_subaccounts_have_messages_of_their_own(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    below = account.subaccount()
    mine, theirs = delivered(account, clock.now()), delivered(below, clock.now())
    clock.advance(60)
    with client(twilio_api, account) as http:
        assert sids(http, account) == [mine.sid]
        assert sids(http, below) == [theirs.sid]
        assert error(http.get(path(account, f"Messages/{theirs.sid}.json"))) == (404, 20404)


def test_there_is_nothing_else(twilio_api: TwilioApi, account: TwilioAccount) -> None:
    with client(twilio_api, account) as http:
        assert error(http.get("/2010-04-01/Nothing.json")) == (404, 20404)
        assert error(http.post(path(account))) == (404, 20404)


def test_calls_are_listed_by_when_they_began(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    begin = at("2026-11-19T23:59:50")
    times = [begin + timedelta(seconds=seconds) for seconds in (0, 2, 20, 65)]
    call = account.call(
        "+15005550001", list(zip(times, ("queued", "ringing", "in-progress", "completed"), strict=True))
    )
    waiting = account.call("+15005550002", [(clock.now(), "queued")])
    child = account.call("+15005550003", [(clock.now(), "ringing"), (clock.now(), "busy")], parent=call.sid)
    with client(twilio_api, account) as http:

        def found(**params: str) -> list[str]:
            named = {name.replace("_before", "<").replace("_after", ">"): value for name, value in params.items()}
            return [row["sid"] for page in pages(http, path(account, "Calls.json"), named) for row in page["calls"]]

        assert set(found()) == {call.sid, waiting.sid, child.sid}
        assert found(StartTime="2026-11-19") == [call.sid]
        assert found(StartTime_before="2026-11-20") == [call.sid]
        assert found(StartTime_before="2026-11-19") == []
        assert found(StartTime_after="2026-11-20") == [child.sid]
        assert found(Status="completed", To="+15005550001") == found(From=call.sender, Status="completed") == [call.sid]
        assert found(ParentCallSid=call.sid) == [child.sid]
        row = http.get(path(account, f"Calls/{call.sid}.json")).json()
        assert (row["start_time"], row["duration"]) == ("Thu, 19 Nov 2026 23:59:52 +0000", "45")
        assert row["end_time"] == row["date_updated"] == "Fri, 20 Nov 2026 00:00:55 +0000"
        row = http.get(path(account, f"Calls/{waiting.sid}.json")).json()
        assert (row["start_time"], row["end_time"], row["duration"]) == (None, None, None)


def at(moment: str) -> datetime:
    return datetime.fromisoformat(moment + "+00:00")
