"""What a tenant asks of many callbacks at once, over HTTP: previews, statistics and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
from http_rig import Gateway


def test_a_preview_sends_bytes_as_they_are_and_texts_as_texts(tenant_call: Callable[..., Any]) -> None:
    shown = {
        "verification": {
            "mode": "enforce",
            "result": "refused",
            "code": "signature_missing",
            "detail": "There is none.",
        },
        "answer": {"status": 403, "content_type": "application/problem+json", "body": "{}"},
        "parts": [{"event": None, "ignored": "typing", "dead_letter": None}],
        "truncated": False,
    }
    gateway = Gateway(httpx.Response(200, json=shown), httpx.Response(200, json=shown))
    found = tenant_call(gateway, "preview", "Outbound Delivery", body="a=1", headers={"X-Signature": "x"}, query="id=1")
    assert (found.verification.result, found.answer.status, found.parts[0].ignored) == ("refused", 403, "typing")
    tenant_call(gateway, "preview", "Twilio", body=b"\xff")
    first, second = gateway.requests
    assert (first.method, first.url.path) == ("POST", "/backhaul/v1/channels/Outbound Delivery/preview")
    assert json.loads(first.content) == {"body": "a=1", "headers": {"X-Signature": "x"}, "query": "id=1"}
    assert json.loads(second.content) == {"body_base64": "/w=="}


def test_statistics_are_rows_of_hours(tenant_call: Callable[..., Any]) -> None:
    row = {
        "start": "2026-11-22T11:00:00.000000Z", "channel": "twilio", "kind": None, "fulfilment_state": None,
        "communication_id": None, "events": 3, "events_by_machine": 1, "messages": 2, "unique_opened": 1,
        "unique_clicked": 0,
    }  # fmt: skip
    gateway = Gateway(httpx.Response(200, json={"rows": [row], "truncated": False}))
    span = {"from_": datetime(2026, 11, 1, tzinfo=UTC), "to": datetime(2026, 11, 30, tzinfo=UTC)}
    found = tenant_call(gateway, "stats", group_by=("channel", "kind"), communication="spring", **span)
    assert (found.truncated, found.rows[0].start.hour, found.rows[0].channel, found.rows[0].kind) == (
        False, 11, "twilio", None,
    )  # fmt: skip
    assert dict(gateway.requests[0].url.params) == {
        "per": "hour", "group_by": "channel,kind", "communication": "spring",
        "from": "2026-11-01T00:00:00+00:00", "to": "2026-11-30T00:00:00+00:00",
    }  # fmt: skip


def test_errors_are_counts_with_their_meaning(tenant_call: Callable[..., Any]) -> None:
    count = {
        "channel": "twilio", "provider": "twilio", "error_code": "30006", "count": 3, "text": "A landline.",
        "last_received_at": "2026-11-22T11:41:34.833000Z", "error_class": "hard", "url": None,
    }  # fmt: skip
    answer = {"errors": [count], "retained_since": "2026-11-03T00:00:00Z"}
    gateway = Gateway(httpx.Response(200, json=answer), httpx.Response(200, json={"errors": []}))
    counted = tenant_call(gateway, "errors", channel="Twilio", from_=datetime(2026, 11, 1, tzinfo=UTC))
    (found,) = counted.errors
    assert counted.retained_since == datetime(2026, 11, 3, tzinfo=UTC)
    assert (found.error_code, found.count, found.error_class, found.last_received_at.day) == ("30006", 3, "hard", 22)
    assert dict(gateway.requests[0].url.params) == {"channel": "Twilio", "from": "2026-11-01T00:00:00+00:00"}
    assert tenant_call(gateway, "errors").retained_since is None
