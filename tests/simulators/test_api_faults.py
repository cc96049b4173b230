"""What an API does wrong when it is told to: by name, by share, by seed, and no longer than it is told."""

from __future__ import annotations

import gc
import json
import socket
from datetime import timedelta

import httpx
import pytest
from backhaul_testing.apis.clock import Clock
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi
from simulators.asking_twilio import client, delivered, pages, path, sids


def statuses(api: TwilioApi, account: TwilioAccount, times: int) -> list[int]:
    """What as many requests are answered."""
    with client(api, account) as http:
        return [http.get(path(account)).status_code for _ in range(times)]


def test_a_storm_of_429(twilio_api: TwilioApi, account: TwilioAccount) -> None:
    fault = twilio_api.misbehave("too_many_requests", share=0.5)
    storm = statuses(twilio_api, account, 40)
    assert 10 < storm.count(429) < 30
    assert storm.count(429) + storm.count(200) == 40
    assert fault.struck == storm.count(429)
    with client(twilio_api, account) as http:
        twilio_api.misbehave("too_many_requests", times=1)
        refused = http.get(path(account))
        assert (refused.json()["code"], refused.headers["Retry-After"]) == (20429, "1")
        twilio_api.retry_after_s = None
        twilio_api.misbehave("too_many_requests", times=1)
        assert "Retry-After" not in http.get(path(account)).headers
        assert http.get(path(account)).status_code == 200


def test_a_seed_tells_the_same_story_again(clock: Clock) -> None:
    stories = []
    for seed in (1, 1, 2):
        with TwilioApi(clock=clock, seed=seed) as api:
            api.misbehave("errors", share=0.3)
            stories.append((api.account().sid, statuses(api, api.account(), 30)))
    assert stories[0] == stories[1]
    assert stories[0][0] != stories[2][0]
    assert stories[0][1] != stories[2][1]


def test_errors_by_status_and_by_route(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    text = delivered(account, clock.now() - timedelta(hours=1))
    with client(twilio_api, account) as http:
        twilio_api.misbehave("errors", times=2, route="messages")
        assert http.get(path(account, f"Messages/{text.sid}.json")).status_code == 200
        assert [http.get(path(account)).status_code for _ in range(3)] == [500, 500, 200]
        twilio_api.misbehave("errors", status=503)
        answer = http.get(path(account))
        assert (answer.status_code, answer.json()["code"]) == (503, 20500)
        twilio_api.misbehave("errors", status=502)
        answer = http.get(path(account))
        assert answer.status_code == 502
        assert answer.headers["Content-Type"] == "text/html"
        twilio_api.behave("errors")
        assert http.get(path(account)).status_code == 200
    assert twilio_api.requests.count(status=500) == 2


def test_an_answer_that_is_slow(twilio_api: TwilioApi, account: TwilioAccount) -> None:
    twilio_api.misbehave("slow", seconds=30, times=1)
    with client(twilio_api, account) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.get(path(account), timeout=0.3)
        assert http.get(path(account)).status_code == 200


def test_bodies_that_are_no_json_or_no_bodies(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    delivered(account, clock.now() - timedelta(hours=1))
    with client(twilio_api, account) as http:
        twilio_api.misbehave("truncated", times=1)
        answer = http.get(path(account))
        assert answer.status_code == 200
        with pytest.raises(json.JSONDecodeError):
            answer.json()
        twilio_api.misbehave("cut", times=1)
        with pytest.raises(httpx.RemoteProtocolError):
            http.get(path(account))
        twilio_api.misbehave("endless", times=1)
        read = 0
        with http.stream("GET", path(account)) as stream:
            assert stream.status_code == 200
            assert "content-length" not in stream.headers
            for chunk in stream.iter_bytes():
                read += len(chunk)
                if read > 50_000:
                    break
        assert read > 50_000
        assert len(sids(http, account)) == 1


def test_a_stop_ends_what_never_ends(clock: Clock) -> None:
    api = TwilioApi(clock=clock)
    account = api.account()
    api.misbehave("endless")
    api.misbehave("slow", seconds=60, route="call")
    with api, client(api, account) as http, http.stream("GET", path(account)) as stream:
        assert next(stream.iter_bytes())
        api.stop()


def test_dates_in_iso(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    text = delivered(account, clock.now() - timedelta(hours=1))
    twilio_api.misbehave("iso_dates", share=0.5)
    with client(twilio_api, account) as http:
        dates = {http.get(path(account, f"Messages/{text.sid}.json")).json()["date_sent"] for _ in range(20)}
        assert dates == {"2026-11-20T11:00:01Z", "Fri, 20 Nov 2026 11:00:01 +0000"}
        (page,) = pages(http, path(account), {})
        assert page["messages"][0]["date_created"][:4] in ("2026", "Fri,")


def test_lists_that_lag_behind(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    text = delivered(account, clock.now() - timedelta(seconds=11))
    twilio_api.misbehave("late", seconds=10)
    with client(twilio_api, account) as http:

        def listed() -> list[str]:
            return [row["status"] for page in pages(http, path(account), {}) for row in page["messages"]]

        assert listed() == ["sent"]
        assert http.get(path(account, f"Messages/{text.sid}.json")).json()["status"] == "delivered"
        clock.advance(1)
        assert listed() == ["delivered"]
        new = delivered(account, clock.now())
        clock.advance(5)
        assert sids(http, account) == [text.sid]
        clock.advance(7)
        assert sids(http, account) == [new.sid, text.sid]


def test_rows_that_arrive_while_a_list_is_read(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    service = "MG" + "1" * 32
    old = [
        delivered(account, clock.days_ago(1) - timedelta(minutes=number), service=service).sid
        for number in range(1, 10)
    ]
    fault = twilio_api.misbehave("growing", rows=2)
    with client(twilio_api, account) as http:
        read = sids(http, account, PageSize="4", DateSent="2026-11-19")
        assert sids(http, account, DateSent="2026-11-18") == []
        assert fault.struck == 3, "only where there is a next page"
        twilio_api.behave()
        again = sids(http, account, DateSent="2026-11-19")
        services = {row["messaging_service_sid"] for page in pages(http, path(account), {}) for row in page["messages"]}
    assert set(read) == set(old)
    assert len(read) > len(old), "what stood at the end of a page stands again in the next"
    assert set(again) > set(old)
    assert set(again) == set(account.states())
    assert set(account.states().values()) == {"delivered"}
    assert services == {service}


def test_calls_that_arrive_while_a_list_is_read(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    for number in range(5):
        at = clock.now() - timedelta(minutes=number)
        account.call("+15005550001", [(at, "ringing"), (at, "completed")])
    twilio_api.misbehave("growing", times=1)
    with client(twilio_api, account) as http:
        address, params = path(account, "Calls.json"), {"PageSize": "3", "StartTime": "2026-11-20"}
        read = [row["sid"] for page in pages(http, address, params) for row in page["calls"]]
        assert (len(read), len(set(read))) == (6, 5)
        assert sorted(account.states().values()) == ["busy", *["completed"] * 5]
        assert len([row for page in pages(http, address, params) for row in page["calls"]]) == 6


def test_rows_that_vanish_while_a_list_is_read(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    old = [delivered(account, clock.now() - timedelta(minutes=number)).sid for number in range(1, 10)]
    twilio_api.misbehave("vanishing", times=1)
    with client(twilio_api, account) as http:
        assert sids(http, account, PageSize="4", DateSent="2026-11-20") == [*old[:4], *old[5:]]
        assert sids(http, account, DateSent="2026-11-20") == old[1:]
        assert http.get(path(account, f"Messages/{old[0]}.json")).status_code == 404


def test_a_page_that_names_itself(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    for number in range(1, 7):
        delivered(account, clock.now() - timedelta(minutes=number))
    with client(twilio_api, account) as http:
        first = http.get(path(account), params={"PageSize": "2"}).json()
        twilio_api.misbehave("circular")
        second = http.get(first["next_page_uri"]).json()
        assert second["next_page_uri"] == second["uri"] == first["next_page_uri"]
        again = http.get(path(account), params={"PageSize": "2"}).json()
        assert again["next_page_uri"] == again["uri"]


def test_what_is_no_fault_is_named(twilio_api: TwilioApi) -> None:
    with pytest.raises(ValueError, match="choose of circular"):
        twilio_api.misbehave("rude")  # type: ignore[arg-type]  # what a test may mistype.
    with pytest.raises(ValueError, match="share is 50"):
        twilio_api.misbehave("errors", share=50)


def test_time_does_not_go_back(clock: Clock) -> None:
    begin = clock.now()
    with pytest.raises(ValueError, match="0 or more"):
        clock.advance(-1)
    assert clock.now() == begin
    running = Clock(begin)
    assert timedelta() < running.now() - begin < timedelta(minutes=1)
    assert running.advance(3600) - begin >= timedelta(hours=1)
    assert running.days_ago(1) < begin


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_an_api_that_is_asked_for_its_address_and_never_serves_leaves_no_socket(clock: Clock) -> None:
    port = int(TwilioApi(clock=clock).url.rpartition(":")[2])
    gc.collect()
    with socket.create_server(("127.0.0.1", port)):
        pass
