"""Reconciliation over HTTP, against answers that are written here: what is sent, and what becomes of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest
from backhaul_client import AsyncTenantClient, TenantClient, UnavailableError
from http_rig import EVEN, KEY, URL, Gateway, problem

COUNTS = {
    "seen": 3,
    "known": 1,
    "missing": 2,
    "better": 0,
    "unreadable": 0,
    "differing": 0,
    "open": 0,
    "unknown_to_provider": 0,
    "requests": 4,
}
REPORT: dict[str, Any] = {
    "id": "5b" * 16,
    "channel": "twilio",
    "cause": "call",
    "state": "running",
    "text": None,
    "asked_from": "2026-11-26T00:00:00Z",
    "asked_to": "2026-11-27T00:00:00Z",
    "dry_run": True,
    "counts": {**COUNTS, "a count of the future": 1},
    "began_at": "2026-11-27T00:00:00Z",
    "ended_at": None,
}
OVER = {**REPORT, "state": "done", "ended_at": "2026-11-27T00:00:09Z"}
CHANNEL: dict[str, Any] = {
    "channel": "twilio",
    "standing": "waiting",
    "text": "Asked too often.",
    "asked_at": "2026-11-27T00:00:00Z",
    "due_at": None,
    "discovered_to": None,
    "silence": None,
    "silent_since": None,
    "report_id": None,
}
DIFFERENCE: dict[str, Any] = {
    "channel": "twilio",
    "message_id": "SM1",
    "kind": "state",
    "our_state": "delivered",
    "our_error_code": None,
    "provider_state": "failed",
    "provider_error_code": "30006",
    "first_seen_at": "2026-11-27T00:00:00Z",
    "last_seen_at": "2026-11-27T00:00:00Z",
    "report_id": "5b" * 16,
}
DAY: dict[str, Any] = {
    "channel": "twilio",
    "day": "2026-11-25",
    "state": "closed",
    "text": None,
    "provider_messages": 3,
    "equal": 3,
    "backfilled": 1,
    "differing": 0,
    "open": 0,
    "unknown_to_provider": 0,
    "compared_at": "2026-11-27T00:00:00Z",
}
ROOT = "/backhaul/v1/reconciliation"


def ok(body: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body)


def told(*reports: Any) -> httpx.Response:
    return httpx.Response(200, content=b"".join(json.dumps(one).encode() + b"\n" for one in reports))


def test_how_it_stands_and_what_runs_found(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(
        ok({"channels": [CHANNEL]}),
        ok({"reports": [REPORT], "next_cursor": "c"}),
        ok({"reports": [OVER], "next_cursor": None}),
        ok(OVER),
        ok({"differences": [DIFFERENCE], "full_channels": [], "next_cursor": None}),
        ok(DAY),
    )
    (channel,) = tenant_call(gateway, "reconciliation.channels")
    assert (channel.standing, channel.silence) == ("waiting", None)
    begin = datetime(2026, 11, 27, tzinfo=UTC)
    reports = tenant_call(gateway, "reconciliation.reports", channel="Twilio", from_=begin, page_size=1)
    assert [(one.state, one.counts.missing) for one in reports] == [("running", 2), ("done", 2)]
    assert tenant_call(gateway, "reconciliation.report", "5b" * 16) == reports[1]
    (difference,) = tenant_call(gateway, "reconciliation.differences", kind="state")
    assert (difference.our_state, difference.provider_state) == ("delivered", "failed")
    day = tenant_call(gateway, "reconciliation.day", "Twilio", date(2026, 11, 25))
    assert (day.state, day.backfilled) == ("closed", 1)
    query = "channel=Twilio&from=2026-11-27T00%3A00%3A00%2B00%3A00&limit=1"
    assert [request.url.raw_path.decode() for request in gateway.requests] == [
        f"{ROOT}/channels",
        f"{ROOT}/reports?{query}",
        f"{ROOT}/reports?{query}&cursor=c",
        f"{ROOT}/reports/{'5b' * 16}",
        f"{ROOT}/differences?kind=state&limit=100",
        f"{ROOT}/days/2026-11-25?channel=Twilio",
    ]


def test_a_run_begins_once(tenant_call: Callable[..., Any]) -> None:
    # It may have begun where nobody answered, so it is not asked for again.
    gateway = Gateway(ok(REPORT, 202), problem(503, "unavailable"))
    begin = datetime(2026, 11, 26, tzinfo=UTC)
    report = tenant_call(gateway, "reconciliation.begin", "Twilio", from_=begin, dry_run=True)
    assert (report.id, report.ended_at, report.dry_run) == ("5b" * 16, None, True)
    with pytest.raises(UnavailableError):
        tenant_call(gateway, "reconciliation.begin", "Twilio")
    first, second = gateway.requests
    assert (first.method, first.url.raw_path.decode()) == ("POST", f"{ROOT}/runs")
    assert json.loads(first.content) == {"channel": "Twilio", "from": "2026-11-26T00:00:00+00:00", "dry_run": True}
    assert json.loads(second.content) == {"channel": "Twilio"}


def test_a_run_is_told_line_by_line() -> None:
    gateway = Gateway(told(REPORT, OVER))
    http = httpx.Client(transport=httpx.MockTransport(gateway.answer))
    with TenantClient(URL, KEY, http=http, retries=EVEN) as backhaul:
        assert [one.state for one in backhaul.reconciliation.run("Twilio")] == ["running", "done"]
    (request,) = gateway.requests
    assert (request.method, request.url.raw_path.decode()) == ("POST", f"{ROOT}/runs?progress=true")
    assert json.loads(request.content) == {"channel": "Twilio"}


async def test_the_asynchronous_client_does_the_same() -> None:
    gateway = Gateway(told(REPORT, OVER))
    http = httpx.AsyncClient(transport=httpx.MockTransport(gateway.answer_later))
    async with AsyncTenantClient(URL, KEY, http=http, retries=EVEN) as backhaul:
        assert [one.state async for one in backhaul.reconciliation.run("Twilio")] == ["running", "done"]
    await http.aclose()
