"""BulkExport: a job, its days, and the file that a day redirects to."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest
from backhaul_testing.apis.clock import Clock
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi
from simulators.asking_twilio import client, delivered, path

JOBS, DAYS = "/v1/Exports/Messages/Jobs", "/v1/Exports/Messages/Days"


def here(api: TwilioApi, address: str) -> str:
    """Where the provider's address leads in the test."""
    (origin,) = (origin for origin in api.origins if address.startswith(f"{origin}/"))
    return api.origins[origin] + address.removeprefix(origin)


def job_of(http: httpx.Client, first: str, last: str) -> str:
    """A new job's SID."""
    answer = http.post(JOBS, data={"StartDay": first, "EndDay": last, "FriendlyName": "closing"})
    assert answer.status_code == 201
    sid: str = answer.json()["job_sid"]
    return sid


def test_a_job_makes_a_file_of_each_day(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    morning = clock.days_ago(3)
    text = delivered(account, morning)
    failed = account.text("+15005550002", [(morning, "queued"), (morning, "failed")], error_code=30007)
    with client(twilio_api, account) as http:
        sid = job_of(http, "2026-11-16", "2026-11-18")
        job = http.get(f"/v1/Exports/Jobs/{sid}").json()
        days = ["2026-11-16", "2026-11-17", "2026-11-18"]
        assert job["details"] == [{"status": "Submitted", "count": 3, "days": days}]
        assert job["url"] == f"https://bulkexports.twilio.com/v1/Exports/Jobs/{sid}"
        clock.advance(30)
        assert [one["status"] for one in http.get(f"/v1/Exports/Jobs/{sid}").json()["details"]] == ["Running"]
        assert http.get(DAYS).json()["days"] == []
        clock.advance(30)
        assert http.get(f"/v1/Exports/Jobs/{sid}").json()["details"] == [
            {"status": "CompletedEmptyRecords", "count": 2, "days": ["2026-11-16", "2026-11-18"]},
            {"status": "Completed", "count": 1, "days": ["2026-11-17"]},
        ]
        (day,) = http.get(DAYS).json()["days"]
        assert (day["day"], day["friendly_name"], day["create_date"]) == ("2026-11-17", "closing", "2026-11-20")

        answer = http.get(f"{DAYS}/2026-11-17")
        assert answer.status_code == 307
        assert answer.json() == {"redirect_to": answer.headers["Location"]}
        place = here(twilio_api, answer.headers["Location"])
        assert http.get(place).status_code == 400, "the signed address takes no Authorization beside it"
        assert http.get(f"{DAYS}/2026-11-18").json()["code"] == 20404
    file = httpx.get(place)
    assert file.headers["Content-Type"] == "application/gzip"
    assert len(file.content) == day["size"]
    rows = [json.loads(line) for line in gzip.decompress(file.content).splitlines()]
    assert [row["sid"] for row in rows] == [text.sid, failed.sid]
    assert [row["error_code"] for row in rows] == [0, 30007]
    assert [row["date_sent"] for row in rows] == ["2026-11-17T12:00:01Z", None]
    assert [row["num_segments"] for row in rows] == [1, 1]
    assert not {"price_unit", "api_version", "error_message", "uri", "subresource_uris"} & set(rows[0])
    assert httpx.get(place.partition("?")[0]).status_code == 403


def test_a_file_is_gone_after_a_week(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    delivered(account, clock.days_ago(3))
    with client(twilio_api, account) as http:
        job_of(http, "2026-11-17", "2026-11-17")
        clock.advance(60 + 7 * 86_400 - 1)
        assert http.get(f"{DAYS}/2026-11-17").status_code == 307
        clock.advance(1)
        assert http.get(f"{DAYS}/2026-11-17").status_code == 404
        assert http.get(DAYS).json()["days"] == []
        job_of(http, "2026-11-17", "2026-11-17")
        clock.advance(60)
        assert http.get(f"{DAYS}/2026-11-17").status_code == 307


def test_days_are_paged(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    for days in (3, 4, 5):
        delivered(account, clock.days_ago(days))
    with client(twilio_api, account) as http:
        job_of(http, "2026-11-14", "2026-11-18")
        clock.advance(60)
        page = http.get(DAYS, params={"PageSize": "2"}).json()
        found = [day["day"] for day in page["days"]]
        page = http.get(here(twilio_api, page["meta"]["next_page_url"])).json()
        found += [day["day"] for day in page["days"]]
        assert page["meta"]["next_page_url"] is None
    assert found == ["2026-11-17", "2026-11-16", "2026-11-15"]


@pytest.mark.parametrize(
    "form",
    [
        {"StartDay": "2026-11-17", "EndDay": "2026-11-19", "FriendlyName": "x"},
        {"StartDay": "2026-11-18", "EndDay": "2026-11-17", "FriendlyName": "x"},
        {"StartDay": "17 Nov", "EndDay": "2026-11-17", "FriendlyName": "x"},
        {"StartDay": "2026-11-17", "EndDay": "2026-11-17"},
    ],
)
def test_a_job_needs_whole_days_that_are_two_days_old(
    twilio_api: TwilioApi, account: TwilioAccount, form: dict[str, str]
) -> None:
    with client(twilio_api, account) as http:
        answer = http.post(JOBS, data=form)
        assert (answer.status_code, answer.json()["code"]) == (400, 20001)


def test_each_account_has_its_own(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    delivered(account, clock.days_ago(3))
    other = twilio_api.account()
    with client(twilio_api, account) as http:
        sid = job_of(http, "2026-11-17", "2026-11-17")
    clock.advance(60)
    with client(twilio_api, other) as http:
        assert http.get(DAYS).json()["days"] == []
        assert http.get(f"{DAYS}/2026-11-17").status_code == 404
        assert http.get(f"/v1/Exports/Jobs/{sid}").status_code == 404
    with client(twilio_api, account, ("AC0", "wrong")) as http:
        for answer in (http.get(DAYS), http.get(f"{DAYS}/2026-11-17"), http.post(JOBS, data={})):
            assert (answer.status_code, answer.json()["code"]) == (401, 20003)


def test_some_regions_have_none(clock: Clock) -> None:
    with TwilioApi(clock=clock, exports=False) as api:
        account = api.account()
        with client(api, account) as http:
            assert http.get(DAYS).status_code == 404
            assert http.get(path(account)).status_code == 200
