"""Sends over HTTP, by either client, against answers that are written here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import httpx
import pytest
from backhaul_client import (
    AsyncTenantClient,
    InvalidArgumentError,
    ReportedSends,
    Retries,
    SendIn,
    TenantClient,
    UnavailableError,
)

KEY = "bhk_0123456789ab_secret-half"
URL = "https://callbacks.example.com"
RETRIES = Retries(tries=3, max_pause_s=10, jitter=lambda: 0.5)
Report = Callable[..., ReportedSends]


class SendsGateway:
    """Takes sends in as the gateway does, but for the ``outcomes`` that come first."""

    def __init__(self, *outcomes: httpx.Response) -> None:
        self._outcomes = list(outcomes)
        self.requests: list[httpx.Request] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self._outcomes:
            outcome = self._outcomes.pop(0)
            return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)
        return httpx.Response(202, json={"accepted": len(self.told(-1)), "callback_ids": [f"c{len(self.requests)}"]})

    async def answer_later(self, request: httpx.Request) -> httpx.Response:
        return self.answer(request)

    def told(self, number: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.requests[number].content)
        return found

    def keys(self) -> list[str]:
        return [request.headers["idempotency-key"] for request in self.requests]


@pytest.fixture(params=["blocking", "asynchronous"])
def report(request: pytest.FixtureRequest) -> Callable[..., ReportedSends]:
    """``report(gateway, sends)``, by either client."""

    def blocking(gateway: SendsGateway, *args: Any, **kwargs: Any) -> ReportedSends:
        with httpx.Client(transport=httpx.MockTransport(gateway.answer)) as http:
            client = TenantClient(URL, KEY, http=http, retries=RETRIES, sleep=lambda _: None)
            return client.report_sends(*args, **kwargs)

    async def asynchronous(gateway: SendsGateway, *args: Any, **kwargs: Any) -> ReportedSends:
        async def at_once(_: float) -> None: ...

        async with httpx.AsyncClient(transport=httpx.MockTransport(gateway.answer_later)) as http:
            client = AsyncTenantClient(URL, KEY, http=http, retries=RETRIES, sleep=at_once)
            return await client.report_sends(*args, **kwargs)

    if request.param == "blocking":
        return blocking
    return lambda *args, **kwargs: asyncio.run(asynchronous(*args, **kwargs))


def test_what_was_sent_is_told_in_one_call(report: Report) -> None:
    gateway = SendsGateway()
    at = datetime(2026, 11, 26, 12, tzinfo=UTC)
    sends: list[SendIn] = [
        {"channel": "Twilio", "message_id": "SM1", "recipient": "+15005550010", "sent_at": at},
        {"channel": "Twilio", "status": "refused", "recipient": "+15005550001", "error_code": "21610", "sent_at": None},
    ]
    assert report(gateway, sends) == ReportedSends(accepted=2, callback_ids=("c1",))
    (request,) = gateway.requests
    assert (request.method, request.url.path) == ("POST", "/v1/sends")
    assert request.headers["content-type"] == "application/json"
    assert gateway.told(0) == [
        {"channel": "Twilio", "message_id": "SM1", "recipient": "+15005550010", "sent_at": "2026-11-26T12:00:00Z"},
        {"channel": "Twilio", "status": "refused", "recipient": "+15005550001", "error_code": "21610"},
    ]


def test_many_are_several_requests(report: Report) -> None:
    gateway = SendsGateway()
    small = ({"channel": "t", "id": str(number)} for number in range(25_000))
    found = report(gateway, small, idempotency_key="k")
    assert (found.accepted, found.callback_ids) == (25_000, ("c1", "c2", "c3"))
    assert [len(gateway.told(number)) for number in range(3)] == [10_000, 10_000, 5_000]
    assert gateway.told(2)[-1] == {"channel": "t", "id": "24999"}
    # Each has a key of its own: what is refused at one place of two requests is not the same.
    assert gateway.keys() == ["k", "k-1", "k-2"]
    large = [{"channel": "t", "error_text": "x" * 4000}] * 1000
    assert report(gateway, large).accepted == 1000
    assert all(len(request.content) <= 1 << 20 for request in gateway.requests)
    assert len(gateway.requests) == 3 + 5


def test_nothing_is_no_request(report: Report) -> None:
    gateway = SendsGateway()
    assert report(gateway, []) == ReportedSends(accepted=0, callback_ids=())
    assert gateway.requests == []


def test_what_is_not_stored_is_told_again_under_the_same_key(report: Report) -> None:
    away = httpx.Response(503, json={"code": "unavailable", "title": "t", "status": 503, "detail": "d", "errors": []})
    gateway = SendsGateway(away, away)
    assert report(gateway, [{"channel": "t", "id": "1"}]).accepted == 1
    assert len(set(gateway.keys())) == 1
    assert len({request.content for request in gateway.requests}) == 1
    gateway = SendsGateway(away, away, away)
    with pytest.raises(UnavailableError):
        report(gateway, [{"channel": "t", "id": "1"}])
    assert len(gateway.requests) == 3


def test_what_is_wrong_ends_it(report: Report) -> None:
    error = {"field": "sends[0].channel", "message": "channel is missing.", "fix": "Give it."}
    wrong = {"code": "invalid_argument", "title": "t", "status": 422, "detail": "d", "errors": [error]}
    gateway = SendsGateway(httpx.Response(422, json=wrong))
    with pytest.raises(InvalidArgumentError) as caught:
        report(gateway, [{"id": str(number)} for number in range(10_001)])
    assert (caught.value.field, caught.value.fix) == ("sends[0].channel", "Give it.")
    assert len(gateway.requests) == 1
    with pytest.raises(ValueError, match="time zone"):
        report(gateway, [{"channel": "t", "sent_at": datetime(2026, 11, 26)}])  # noqa: DTZ001  # what is refused


def test_what_is_no_send_is_named_before_anything_is_sent(report: Report) -> None:
    gateway, sends = SendsGateway(), cast(Any, {"channel": "Twilio"})
    with pytest.raises(TypeError, match=r"sends\[0\] is of type str: pass a list.*\{\"channel\""):
        report(gateway, sends)
    assert gateway.requests == []
