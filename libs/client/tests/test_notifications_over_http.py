"""Subscriptions and deliveries over HTTP, against answers that are written here: what is sent, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from backhaul_client import UnavailableError
from http_rig import Gateway, problem

ID, DELIVERY_ID = "sub_" + "5f" * 12, "5b" * 16
AT = "2026-11-27T00:00:00Z"
ATTEMPT: dict[str, Any] = {
    "number": 1,
    "at": AT,
    "duration_ms": 12.5,
    "status": 200,
    "error": None,
    "text": "Status 200.",
    "answer_text": "ok",
    "request": "POST https://example.com/in",
    "redelivery": 1,
}
SUBSCRIPTION: dict[str, Any] = {
    "id": ID,
    "revision": 3,
    "name": "Reports",
    "types": ["message.*"],
    "filter": dict.fromkeys(("channels", "communication_ids", "error_codes", "attributes", "kinds"), ()),
    "http": {
        "method": "POST",
        "url": "https://example.com/in",
        "headers": [{"name": "X-Env", "value": "live"}],
        "credentials": {
            **dict.fromkeys(("bearer_token", "header", "oauth", "mutual_tls")),
            "basic": {"username": "backhaul", "password": ""},
        },
    },
    "mail": None,
    "payload": {"form": "full", "max_events": 0, "max_wait_s": 0, "with_raw": False},
    "policy": {"kind": "standard", "retry_after_s": [], "timeout_s": 0, "only_200": False},
    "ordering": "none",
    "rate_per_s": 0,
    "concurrency": 0,
    "alert_addresses": [],
    "state": "active",
    "state_text": None,
    "state_since": AT,
    "created_at": AT,
    "updated_at": AT,
    "secrets": [
        {"kind": "hmac", "secret": "whsec_c2VjcmV0", "public_key": None, "created_at": AT, "expires_at": None},
    ],
    "standing": {
        "waiting": 2,
        "oldest_waiting_at": AT,
        "held": 0,
        "failing_since": None,
        "last_success_at": None,
        "last_failure_at": None,
        "last_failure": None,
        "resting_until": None,
    },
}
DELIVERY: dict[str, Any] = {
    "id": DELIVERY_ID,
    "subscription_id": ID,
    "webhook_id": "msg_1",
    "type": "message.delivered",
    "event_id": "e1",
    "revision": 1,
    "channel": "twilio",
    "message_id": "SM1",
    "communication_id": None,
    "state": "delivered",
    "attempts": 1,
    "created_at": AT,
    "next_attempt_at": None,
    "ended_at": AT,
    "last_attempt": ATTEMPT,
}
FROM = datetime(2026, 11, 26, tzinfo=UTC)


def ok(body: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body)


def sent(request: httpx.Request) -> tuple[str, str, Any]:
    """Method, path below /v1, and body."""
    path = request.url.raw_path.decode().removeprefix("/backhaul/v1")
    return request.method, path, json.loads(request.content) if request.content else None


def test_one_is_made_once(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(problem(503, "unavailable"), ok(SUBSCRIPTION, 201), ok(SUBSCRIPTION, 201))
    http = {"url": "https://example.com/in", "credentials": {"bearer_token": "t"}}
    made = tenant_call(
        gateway,
        "subscriptions.create",
        ["message.*"],
        http=http,
        name="Reports",
        filter={"channels": ["Twilio"]},
        payload={"form": "thin"},
        policy={"kind": "rcs"},
        ordering="message",
        rate_per_s=5,
        concurrency=2,
        alert_addresses=["ops@example.com"],
        secret="whsec_own",
    )
    assert (made.id, made.http.headers[0].name, made.standing.waiting) == (ID, "X-Env", 2)
    assert made.http.credentials.basic.username == "backhaul"
    # A secret is there to be kept, and not to be logged.
    assert made.secrets[0].secret == "whsec_c2VjcmV0"
    assert "c2VjcmV0" not in repr(made)
    mail = {"addresses": ["team@example.com"]}
    tenant_call(gateway, "subscriptions.create", ["*"], mail=mail, idempotency_key="mine")
    first, again, other = gateway.requests
    assert sent(first) == (
        "POST",
        "/subscriptions",
        {
            "types": ["message.*"],
            "http": http,
            "name": "Reports",
            "filter": {"channels": ["Twilio"]},
            "payload": {"form": "thin"},
            "policy": {"kind": "rcs"},
            "ordering": "message",
            "rate_per_s": 5,
            "concurrency": 2,
            "alert_addresses": ["ops@example.com"],
            "secret": "whsec_own",
        },
    )
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert sent(other)[2] == {"types": ["*"], "mail": mail}
    assert other.headers["idempotency-key"] == "mine"


def test_a_change_of_a_revision_is_asked_for_once(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(problem(503, "unavailable"), ok(SUBSCRIPTION), problem(503, "unavailable"))
    http = {"url": "https://example.com/in"}
    assert tenant_call(gateway, "subscriptions.replace", ID, ["*"], http=http).revision == 3
    with pytest.raises(UnavailableError):
        tenant_call(gateway, "subscriptions.replace", ID, ["*"], http=http, revision=3)
    assert [sent(request)[2].get("revision") for request in gateway.requests] == [None, None, 3]


def test_calls_about_one(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(
        ok({"subscriptions": [SUBSCRIPTION], "next_cursor": None}),
        *[ok(SUBSCRIPTION)] * 5,
        ok(ATTEMPT),
        httpx.Response(204),
    )
    (listed,) = tenant_call(gateway, "subscriptions.list", page_size=5)
    assert tenant_call(gateway, "subscriptions.get", ID) == listed
    tenant_call(gateway, "subscriptions.pause", ID)
    tenant_call(gateway, "subscriptions.resume", ID, rate_per_s=5)
    tenant_call(gateway, "subscriptions.rotate_secret", ID)
    tenant_call(gateway, "subscriptions.rotate_secret", ID, kind="ed25519", grace_s=0)
    attempt = tenant_call(gateway, "subscriptions.test", ID, type="message.failed")
    assert (attempt.status, attempt.duration_ms, attempt.error) == (200, 12.5, None)
    assert tenant_call(gateway, "subscriptions.delete", ID) is None
    assert [sent(request) for request in gateway.requests] == [
        ("GET", "/subscriptions?limit=5", None),
        ("GET", f"/subscriptions/{ID}", None),
        ("POST", f"/subscriptions/{ID}/pause", None),
        ("POST", f"/subscriptions/{ID}/resume", {"rate_per_s": 5}),
        ("POST", f"/subscriptions/{ID}/rotate-secret", {"kind": "hmac"}),
        ("POST", f"/subscriptions/{ID}/rotate-secret", {"kind": "ed25519", "grace_s": 0}),
        ("POST", f"/subscriptions/{ID}/test", {"type": "message.failed"}),
        ("DELETE", f"/subscriptions/{ID}", None),
    ]


def test_what_is_sent_again(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(
        problem(503, "unavailable"), ok({"deliveries": 7}, 202), problem(503, "unavailable"), ok({"deliveries": 1}, 202)
    )
    found = tenant_call(gateway, "subscriptions.redeliver", ID, "failed", from_=FROM, communication="c", dry_run=True)
    assert found.deliveries == 7
    # They may be on their way where nobody answered, so it is not asked for again.
    with pytest.raises(UnavailableError):
        tenant_call(gateway, "subscriptions.redeliver", ID, "all", from_=FROM, to=FROM, rate_per_s=9)
    assert tenant_call(gateway, "deliveries.redeliver", DELIVERY_ID).deliveries == 1
    begin = "2026-11-26T00:00:00Z"
    dry = {"which": "failed", "from": begin, "communication": "c", "dry_run": True}
    assert [sent(request) for request in gateway.requests] == [
        *[("POST", f"/subscriptions/{ID}/redeliver", dry)] * 2,
        ("POST", f"/subscriptions/{ID}/redeliver", {"which": "all", "from": begin, "to": begin, "rate_per_s": 9}),
        ("POST", f"/deliveries/{DELIVERY_ID}/redeliver", None),
    ]
    with pytest.raises(ValueError, match="time zone"):
        tenant_call(gateway, "subscriptions.redeliver", ID, "all", from_=datetime(2026, 1, 1))  # noqa: DTZ001  # refused


def test_what_was_told(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(
        ok({"deliveries": [DELIVERY], "next_cursor": "c"}),
        ok({"deliveries": [], "next_cursor": None}),
        ok({**DELIVERY, "history": [ATTEMPT]}),
        ok({"deliveries": [{**DELIVERY, "history": [ATTEMPT]}], "next_cursor": None}),
        ok({"event_types": [{
            "type": "message.read", "title": "Read", "description": "It was read.", "kinds": ["read"],
            "json_schema": {"type": "object"}, "sample": {"type": "message.read"},
        }]}),
    )  # fmt: skip
    (delivery,) = tenant_call(
        gateway, "deliveries.list", undelivered=True, never_attempted=True, reason="5xx", from_=FROM
    )
    assert (delivery.state, delivery.last_attempt.status) == ("delivered", 200)
    whole = tenant_call(gateway, "deliveries.get", DELIVERY_ID)
    assert [attempt.answer_text for attempt in whole.history] == ["ok"]
    (told,) = tenant_call(gateway, "deliveries.list", history=True)
    assert ([attempt.status for attempt in told.history], delivery.history) == ([200], ())
    (known,) = tenant_call(gateway, "subscriptions.types")
    assert (known.type, known.sample["type"]) == ("message.read", "message.read")
    query = "never_attempted=true&undelivered=true&reason=5xx&from=2026-11-26T00%3A00%3A00%2B00%3A00&limit=100"
    assert [sent(request)[1] for request in gateway.requests] == [
        f"/deliveries?{query}",
        f"/deliveries?{query}&cursor=c",
        f"/deliveries/{DELIVERY_ID}",
        "/deliveries?history=true&limit=50",
        "/event-types",
    ]
