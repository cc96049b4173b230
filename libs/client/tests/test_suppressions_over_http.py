"""Suppressions over HTTP, against answers that are written here: what is sent, repeated, or broken off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from backhaul_client import CheckItem, ProblemError, Retries, TenantClient, UnavailableError, UnreachableError

KEY = "bhk_0123456789ab_secret-half"
ROW: dict[str, Any] = {
    "id": "1",
    "family": "phone",
    "address": "+15005550001",
    "kind": "stop",
    "scope": {"kind": "all", "id": None},
    "active": True,
    "since": "2026-11-01T00:00:00Z",
    "recorded_at": "2026-11-01T00:00:00Z",
    "origin": "recipient",
    "source": "web",
    "event_id": None,
    "author": "key:1",
    "due_by": None,
    "blocks": ["marketing"],
    "position": 1,
}


class Gateway:
    """Answers one after the other, and remembers what it was asked."""

    def __init__(self, *outcomes: httpx.Response) -> None:
        self._outcomes = iter(outcomes)
        self.requests: list[httpx.Request] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        return next(self._outcomes)


def client(gateway: Gateway) -> TenantClient:
    http = httpx.Client(transport=httpx.MockTransport(gateway.answer))
    return TenantClient("https://x.test", KEY, http=http, retries=Retries(tries=2), sleep=lambda _: None)


def away() -> httpx.Response:
    return httpx.Response(503, json={"code": "unavailable", "detail": "Away."}, headers={"retry-after": "1"})


def changed() -> httpx.Response:
    return httpx.Response(201, json={"suppression": ROW, "changed": True})


def test_an_opt_out_is_repeated_under_one_key() -> None:
    gateway = Gateway(away(), changed(), changed())
    at = datetime(2026, 11, 1, tzinfo=UTC)
    backhaul = client(gateway)
    assert backhaul.suppress(
        "+15005550001", "stop", scope_kind="group", scope_id="news", evidence={"source": "web", "at": at}
    ).changed
    first, second = gateway.requests
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert json.loads(second.content) == {
        "address": "+15005550001",
        "kind": "stop",
        "scope": {"kind": "group", "id": "news"},
        "evidence": {"source": "web", "at": "2026-11-01T00:00:00Z"},
    }
    backhaul.suppress("+15005550001", "stop", idempotency_key="mine")
    keys = [request.headers["Idempotency-Key"] for request in gateway.requests]
    assert keys[2] == "mine"
    assert keys[2] != keys[0]


@pytest.mark.parametrize("verdict", ["suppressed", "invalid", "a verdict of the future", ""])
def test_only_allowed_is_allowed(verdict: str) -> None:
    answer = client(Gateway(httpx.Response(200, json={"verdict": verdict, "blocking": []}))).check("+1")
    assert not answer.allowed
    with pytest.raises(TypeError, match="allowed"):
        bool(answer)


def test_a_check_that_nobody_can_answer_is_repeated_and_then_raises() -> None:
    gateway = Gateway(away(), away())
    with pytest.raises(UnavailableError):
        client(gateway).check("+15005550001", purpose="marketing", sender="")
    assert len(gateway.requests) == 2
    assert json.loads(gateway.requests[0].content) == {"address": "+15005550001", "purpose": "marketing", "sender": ""}


def test_a_batch_comes_back_in_its_order() -> None:
    results = [
        {"correlation_id": "a", "verdict": "allowed", "blocking": [], "error": None},
        {"correlation_id": "", "verdict": "invalid", "blocking": [], "error": {"field": "address", "message": "No."}},
    ]
    gateway = Gateway(httpx.Response(200, json={"results": results}))
    found = client(gateway).check_batch([CheckItem("+1", "a"), CheckItem("x")]).results
    assert [(one.allowed, one.correlation_id) for one in found] == [(True, "a"), (False, "")]
    assert found[1].error is not None
    assert json.loads(gateway.requests[0].content) == {
        "items": [{"address": "+1", "correlation_id": "a"}, {"address": "x"}]
    }


def test_a_list_goes_in_pieces_and_is_not_sent_again() -> None:
    counts = {"lines": 2, "changed": 1, "unchanged": 0, "refused": 1, "errors": "x", "errors_complete": True}
    gateway = Gateway(httpx.Response(200, json=counts), away())
    backhaul = client(gateway)
    assert backhaul.import_suppressions(iter([b"address\n", b"+1\n"]), kind="manual").refused == 1
    (request,) = gateway.requests
    assert (request.content, request.headers["Content-Type"]) == (b"address\n+1\n", "text/csv")
    assert dict(request.url.params) == {"kind": "manual"}
    with pytest.raises(UnavailableError):
        backhaul.import_suppressions(b"{}", format="jsonl")
    assert gateway.requests[1].headers["Content-Type"] == "application/x-ndjson"
    assert len(gateway.requests) == 2


@pytest.mark.parametrize("refused", [429, 503])
def test_a_list_in_pieces_is_never_sent_empty_after_a_refusal(refused: int) -> None:
    gateway = Gateway(httpx.Response(refused, headers={"retry-after": "1"}), httpx.Response(200))
    backhaul = client(gateway)
    with pytest.raises(ProblemError):
        backhaul.import_suppressions(iter([b"address\n", b"+1\n"]))
    with pytest.raises(ProblemError):
        next(client(Gateway(httpx.Response(429))).following_import(iter([b"address\n"])))
    assert len(gateway.requests) == 1


def test_how_far_a_list_is_comes_line_by_line() -> None:
    told = [{"lines": n, "changed": n, "unchanged": 0, "refused": 0, "errors": "", "done": n == 4} for n in (2, 4)]
    gateway = Gateway(httpx.Response(200, content="".join(json.dumps(one) + "\n" for one in told)))
    found = [*client(gateway).following_import(iter([b"address\n", b"+1\n"]), family="phone")]
    assert [(one.lines, one.done) for one in found] == [(2, False), (4, True)]
    assert dict(gateway.requests[0].url.params) == {"family": "phone", "progress": "true"}


class Breaking(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield b"address\n"
        raise httpx.RemoteProtocolError("The connection was closed.")


def test_an_export_that_breaks_off_raises() -> None:
    pieces = client(Gateway(away(), httpx.Response(200, stream=Breaking()))).export_suppressions()
    assert next(pieces) == b"address\n"
    with pytest.raises(UnreachableError, match="broke off"):
        next(pieces)
