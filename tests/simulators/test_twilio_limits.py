"""Twilio's limit of requests at once, and what is counted of a client."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import pytest
from backhaul_testing.apis.clock import Clock
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi
from backhaul_testing.waiting import until
from simulators.asking_twilio import client, delivered, path


async def test_too_many_at_once_are_refused_and_counted(
    twilio_api: TwilioApi, account: TwilioAccount, clock: Clock
) -> None:
    twilio_api.max_concurrent, twilio_api.latency_s, twilio_api.retry_after_s = 2, 30, 3
    other, key = twilio_api.account(), account.key()
    token = (account.sid, account.auth_token)
    async with httpx.AsyncClient(base_url=twilio_api.url) as http:
        waiting = []
        for number, auth in enumerate((token, key), start=1):
            waiting.append(asyncio.create_task(http.get(path(account), auth=auth)))

            async def under_way(number: int = number) -> bool:
                return twilio_api.requests.count() == number

            await until("the request is under way", under_way)
        refused = await http.get(path(account), auth=token)
        assert refused.status_code == 429
        assert refused.json()["code"] == 20429
        assert refused.headers["Retry-After"] == "3"
        assert refused.headers["Twilio-Concurrent-Requests"] == "3"
        twilio_api.latency_s = 0
        assert (await http.get(path(other), auth=(other.sid, other.auth_token))).status_code == 200
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    requests = twilio_api.requests
    assert requests.by_route() == {"messages": 4}
    assert requests.by_key() == {account.sid: 2, key[0]: 1, other.sid: 1}
    assert requests.count(status=429, key=account.sid) == 1
    assert (requests.most_in_flight(account.sid), requests.most_in_flight(other.sid), requests.most_in_flight()) == (
        3,
        1,
        3,
    )


def test_requests_are_counted_by_route_and_by_time(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    text = delivered(account, clock.now() - timedelta(hours=1))
    with client(twilio_api, account) as http:
        for seconds in (0, 20, 40, 19, 60):
            http.get(path(account))
            clock.advance(seconds)
        answer = http.get(path(account, f"Messages/{text.sid}.json"))
        http.get("/elsewhere")
    assert answer.headers["Twilio-Concurrent-Requests"] == "1"
    assert answer.headers.get_list("Date") == ["Fri, 20 Nov 2026 12:02:19 GMT"]
    requests = twilio_api.requests
    assert requests.by_route() == {"messages": 5, "message": 1, "none": 1}
    assert requests.most_within(60) == 3
    assert requests.most_within(60, route="message", key=account.sid) == 1
    assert requests.most_within(61, route="messages") == 4
    requests.forget()
    assert requests.count() == requests.most_in_flight() == requests.most_within(1) == 0


def test_it_is_found_at_the_same_address_after_an_outage(account: TwilioAccount, twilio_api: TwilioApi) -> None:
    with client(twilio_api, account) as http:
        assert http.get(path(account)).status_code == 200
        twilio_api.stop()
        with pytest.raises(httpx.TransportError):
            http.get(path(account))
        twilio_api.start()
        assert http.get(path(account)).status_code == 200


def test_a_mistake_of_the_simulator_fails_the_test(clock: Clock) -> None:
    api = TwilioApi(clock=clock)
    account = api.account()
    account.text("+15005550001", [(clock.now(), "sent")]).steps.clear()
    with pytest.raises(ExceptionGroup, match="TwilioApi"), api, client(api, account) as http:
        assert http.get(path(account)).status_code == 500
