"""The client against answers that are written here: retries, errors, pages, and what may never be seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from backhaul_client import (
    AdminClient,
    BackhaulError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    ProblemError,
    RateLimitedError,
    Retries,
    TenantClient,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
)
from http_rig import EVEN, KEY, URL, Gateway, Outcome, problem


def access() -> httpx.Response:
    return httpx.Response(200, json={"status": "ok", "version": "1.0", "newer_field": {"of": "a newer service"}})


def letter(number: int) -> dict[str, Any]:
    return {
        "id": str(number),
        "channel": "twilio",
        "provider": "twilio",
        "state": "a state of the future",
        "reason": "It is no callback.",
        "occurrences": 1,
        "first_seen_at": "2026-11-22T11:41:34.833000Z",
        "last_seen_at": None,
    }


def test_an_answer_is_a_value_and_newer_fields_are_ignored(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(access())
    assert tenant_call(gateway, "test").version == "1.0"
    (request,) = gateway.requests
    assert str(request.url) == "https://callbacks.example.com/backhaul/api/test"
    assert request.headers["X-Api-Key"] == KEY


def test_rows_come_page_by_page(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(
        httpx.Response(200, json={"dead_letters": [letter(1), letter(2)], "next_cursor": "a+b"}),
        httpx.Response(200, json={"dead_letters": [letter(3)], "next_cursor": None}),
    )
    found = tenant_call(gateway, "dead_letters", state="open", page_size=2)
    assert [row.id for row in found] == ["1", "2", "3"]
    assert (found[0].first_seen_at, found[0].last_seen_at) == (datetime(2026, 11, 22, 11, 41, 34, 833000, UTC), None)
    assert [dict(request.url.params) for request in gateway.requests] == [
        {"state": "open", "limit": "2"},
        {"state": "open", "limit": "2", "cursor": "a+b"},
    ]


def test_a_page_is_asked_for_only_when_it_is_needed() -> None:
    gateway = Gateway(httpx.Response(200, json={"dead_letters": [letter(1)], "next_cursor": "more"}))
    with httpx.Client(transport=httpx.MockTransport(gateway.answer)) as http:
        rows = TenantClient(URL, KEY, http=http).dead_letters(cursor="kept")
        assert gateway.requests == []
        page = next(rows.pages())
    assert (len(page.rows), page.next_cursor) == (1, "more")
    assert gateway.requests[0].url.params["cursor"] == "kept"


@pytest.mark.parametrize(
    "failure",
    [
        problem(503, "unavailable", retry_after="2"),
        problem(429, "rate_limited", retry_after="2"),
        httpx.Response(503, html="<h1>a proxy's</h1>", headers={"retry-after": "2"}),
    ],
)
def test_a_read_waits_as_long_as_it_is_told(tenant_call: Callable[..., Any], failure: httpx.Response) -> None:
    gateway = Gateway(failure, access())
    tenant_call(gateway, "test")
    assert gateway.pauses == [2.0]


def test_a_read_without_an_answer_is_repeated_after_growing_pauses(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(httpx.ReadTimeout("slow"), httpx.ConnectError("refused"), access())
    tenant_call(gateway, "test")
    assert gateway.pauses == [pytest.approx(0.1), pytest.approx(0.2)]


def test_pauses_grow_as_far_as_they_may() -> None:
    gateway = Gateway(*[httpx.ConnectError("refused")] * 4, access())
    retries = Retries(tries=9, longest_pause_s=0.3, jitter=lambda: 0.5)
    with httpx.Client(transport=httpx.MockTransport(gateway.answer)) as http:
        TenantClient(URL, KEY, http=http, retries=retries, sleep=gateway.pauses.append).test()
    assert gateway.pauses == [pytest.approx(pause_s) for pause_s in (0.1, 0.2, 0.3, 0.3)]


def test_it_gives_up_after_its_tries(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(*[httpx.ReadError("cut")] * 3)
    with pytest.raises(UnreachableError, match=r"GET /api/test: ReadError: cut"):
        tenant_call(gateway, "test")
    assert len(gateway.requests) == 3


@pytest.mark.parametrize("asked", ["11", "Wed, 01 Jan 2097 00:00:00 GMT"])
def test_it_does_not_wait_longer_than_it_may(tenant_call: Callable[..., Any], asked: str) -> None:
    gateway = Gateway(problem(503, "unavailable", retry_after=asked))
    with pytest.raises(UnavailableError) as raised:
        tenant_call(gateway, "test")
    assert gateway.pauses == []
    assert raised.value.retry_after_s is not None
    assert raised.value.retry_after_s >= 11


@pytest.mark.parametrize("header", ["soon", "-1", "", "²"])  # The last one is a digit to Python.
def test_a_retry_after_that_cannot_be_read_is_none(header: str) -> None:
    failed = httpx.Response(503, headers=[(b"retry-after", header.encode())])
    gateway = Gateway(failed, access())
    with httpx.Client(transport=httpx.MockTransport(gateway.answer)) as http:
        TenantClient(URL, KEY, http=http, retries=EVEN, sleep=gateway.pauses.append).test()
    assert gateway.pauses == [pytest.approx(0.1)]


@pytest.mark.parametrize("failure", [httpx.ReadTimeout("slow"), problem(503, "unavailable", retry_after="1")])
def test_a_change_that_may_have_been_carried_out_is_not_repeated(
    tenant_call: Callable[..., Any], failure: Outcome
) -> None:
    gateway = Gateway(failure)
    with pytest.raises(BackhaulError):
        tenant_call(gateway, "replay_dead_letter", "1")
    assert (len(gateway.requests), gateway.pauses) == (1, [])


@pytest.mark.parametrize("failure", [httpx.ConnectError("refused"), problem(429, "rate_limited", retry_after="1")])
def test_a_change_that_was_not_carried_out_is_repeated(tenant_call: Callable[..., Any], failure: Outcome) -> None:
    gateway = Gateway(failure, httpx.Response(200, json={**letter(1), "callback": None}))
    assert tenant_call(gateway, "replay_dead_letter", "1").id == "1"
    assert [request.method for request in gateway.requests] == ["POST", "POST"]


def test_a_problem_says_what_is_wrong_where_and_what_to_do(tenant_call: Callable[..., Any]) -> None:
    errors = [{"field": "limit", "message": "Too large.", "fix": "Send at most 500."}, {"field": "to", "message": "?"}]
    gateway = Gateway(problem(422, "invalid_argument", errors=errors, trace_id="abc"))
    with pytest.raises(InvalidArgumentError) as raised:
        tenant_call(gateway, "events")
    error = raised.value
    assert (error.status, error.code, error.detail) == (422, "invalid_argument", "Words.")
    assert (error.field, error.fix, error.trace_id) == ("limit", "Send at most 500.", "abc")
    assert [one.field for one in error.errors] == ["limit", "to"]
    assert str(error) == "422 invalid_argument (limit): Words. Too large. Send at most 500. [trace abc]"


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (problem(404, "not_found"), NotFoundError, "not_found"),
        (problem(409, "conflict"), ConflictError, "conflict"),
        (problem(418, "a_code_of_the_future"), ProblemError, "a_code_of_the_future"),
        (httpx.Response(404, text="nginx"), NotFoundError, ""),
        (httpx.Response(400, content=b"\xff\xfe"), ProblemError, ""),
    ],
)
def test_the_code_decides_the_class(
    tenant_call: Callable[..., Any], answer: httpx.Response, kind: type[ProblemError], code: str
) -> None:
    with pytest.raises(kind) as raised:
        tenant_call(Gateway(answer), "test")
    assert (type(raised.value), raised.value.code) == (kind, code)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"status": "ok"}),
        httpx.Response(200, content=b'"\xff"'),
        httpx.Response(302, headers={"location": "https://elsewhere.example.com"}),
    ],
)
def test_an_answer_of_something_else_is_named(tenant_call: Callable[..., Any], answer: httpx.Response) -> None:
    gateway = Gateway(answer)
    with pytest.raises(UnexpectedAnswerError, match="GET /api/test"):
        tenant_call(gateway, "test")
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("message_id", "target"),
    [
        ("a/b?c#d%2F", "/backhaul/v1/messages/Out%20bound/a%2Fb%3Fc%23d%252F"),
        ("..", "/backhaul/v1/messages/Out%20bound/%2E%2E"),
        ("é", "/backhaul/v1/messages/Out%20bound/%C3%A9"),
    ],
)
def test_an_id_cannot_lead_elsewhere(tenant_call: Callable[..., Any], message_id: str, target: str) -> None:
    gateway = Gateway(problem(404, "not_found"))
    with pytest.raises(NotFoundError):
        tenant_call(gateway, "message", "Out bound", message_id)
    assert gateway.requests[0].url.raw_path == target.encode()


def test_what_cannot_be_meant_is_refused_before_anything_is_sent(tenant_call: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="empty"):
        tenant_call(Gateway(), "message", "twilio", "")
    with pytest.raises(ValueError, match="from has no time zone"):
        tenant_call(Gateway(), "events", from_=datetime(2026, 11, 1))  # noqa: DTZ001  # the mistake that is refused
    with pytest.raises(ValueError, match="tries"):
        Retries(tries=0)


def test_times_and_addresses_are_sent_as_the_api_reads_them(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(httpx.Response(200, json={"events": [], "next_cursor": None}))
    tenant_call(gateway, "events", from_=datetime(2026, 11, 1, tzinfo=UTC), recipient="+44 20")
    assert gateway.requests[0].url.query == b"recipient=%2B44+20&from=2026-11-01T00%3A00%3A00%2B00%3A00&limit=100"


@pytest.fixture
def platform() -> Iterator[tuple[AdminClient, Gateway]]:
    limits = ("requests_per_second", "burst", "max_body_bytes", "reads_per_second", "read_burst", "concurrent_reads")
    tenant: dict[str, Any] = {
        **dict.fromkeys(("id", "registration", "name", "queue_path", "status"), "acme"),
        **dict.fromkeys(("created_at", "updated_at"), "2026-11-22T11:41:34Z"),
        "deleting_since": None,
        "limits": dict.fromkeys((*limits, "a_newer_limit"), 1),
        "suppression": {"revocation_scope": "all", "topic_since": None, "whatsapp": "apart", "newer": 1},
        "audit": {"retention_days": None, "newer": 1},
        "retention": {"event_retention_days": 30, "newer": 1},
        "keys": [],
        "channels": [],
        "revision": 1,
        "api_key": KEY,
        "ingest_token": "bhi_0123456789ab_token",
    }
    gateway = Gateway(httpx.Response(201, json=tenant), httpx.Response(204), httpx.Response(202, json=tenant))
    with httpx.Client(transport=httpx.MockTransport(gateway.answer)) as http:
        yield AdminClient(URL, "admin-token", http=http), gateway


def test_what_is_left_out_is_not_sent(platform: tuple[AdminClient, Gateway]) -> None:
    admin, gateway = platform
    scope = admin.create_tenant(
        "acme",
        name="Acme",
        queue_path="acme",
        limits={"burst": 5},
        suppression={"revocation_scope": "topic", "topic_since": datetime(2027, 2, 1, tzinfo=UTC)},
    ).suppression
    assert (scope.revocation_scope, scope.topic_since, scope.whatsapp) == ("all", None, "apart")
    assert admin.delete_tenant("acme") is None
    left = admin.delete_tenant("acme", purge=True)
    assert left is not None
    assert left.registration == "acme"
    created, deleted, purged = gateway.requests
    assert json.loads(created.content) == {
        "id": "acme",
        "name": "Acme",
        "queue_path": "acme",
        "limits": {"burst": 5},
        "suppression": {"revocation_scope": "topic", "topic_since": "2027-02-01T00:00:00Z"},
    }
    assert (deleted.url.params["purge"], purged.url.params["purge"]) == ("false", "true")
    assert created.headers["Authorization"] == "Bearer admin-token"


def test_no_credential_is_shown(platform: tuple[AdminClient, Gateway]) -> None:
    admin, _ = platform
    tenant = admin.create_tenant("acme", name="Acme", queue_path="acme")
    assert tenant.api_key == KEY
    for shown in (repr(tenant), str(tenant), repr(admin), repr(admin.create_tenant)):
        assert "secret-half" not in shown
        assert "0123456789ab" not in shown
        assert "admin-token" not in shown


@pytest.mark.parametrize("key", ["", f"{KEY}\n", f"{KEY} ", f"{KEY}é"])
def test_a_credential_that_no_header_can_hold_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="credential") as raised:
        TenantClient(URL, key)
    assert "secret-half" not in str(raised.value)


def test_a_client_closes_its_own_connections_only() -> None:
    with httpx.Client(transport=httpx.MockTransport(Gateway(access()).answer)) as http:
        with TenantClient(URL, KEY, http=http):
            pass
        assert not http.is_closed
    with TenantClient(URL, KEY) as own:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        own.test()


def test_a_limit_is_an_error_of_its_own(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(*[problem(429, "rate_limited", retry_after="1")] * 3)
    with pytest.raises(RateLimitedError):
        tenant_call(gateway, "test")
    assert gateway.pauses == [1.0, 1.0]
