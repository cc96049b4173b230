"""Communications, batches and members over HTTP, against answers that are written here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from backhaul_client import AsyncTenantClient, MemberIn, TenantClient, UnavailableError, UnreachableError
from http_rig import EVEN, KEY, URL, Gateway, problem

INFO: dict[str, Any] = {
    "id": "a/b",
    "registered": {
        "name": "Spring",
        "mode": "live",
        "channel": "twilio",
        "notify": ["a@example.com"],
        "deadline_hours": 1.5,
        "completes_on": "final",
        "environments": {"live": {"shop": "x"}},
    },
    "status": "a status of the future",
    "created_at": "2026-11-22T11:41:34.833000Z",
    "updated_at": None,
    "batch_count": 1,
    "batches_complete": 0,
    "switched": [{"disabled": True, "reason": "Wrong.", "author": "key:1", "at": "2026-11-22T11:41:34Z"}],
}
BATCH: dict[str, Any] = {
    "id": "b1",
    "communication_id": "a/b",
    "label": "",
    "status": "open",
    "completes_on": "final",
    "expected_members": None,
    "created_at": "2026-11-22T11:41:34Z",
    "deadline": "2026-11-25T11:41:34Z",
    "closed_at": None,
    "completed_at": None,
    "completed_by": None,
    "progress": {"members": 1, "destinations": 1, "waiting": 1, "fulfilment": {}, "processed": 0, "final": 0},
    "at_completion": None,
    "changed_since": 0,
}
MEMBER = {
    "member_key": "anna",
    "attributes": {"name": "Anna"},
    "destinations": [{"channel": "twilio", "recipient": "+1", "message": None}],
}


def ok(body: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body)


def imported(**counts: Any) -> httpx.Response:
    told = {"lines": 0, "added": 0, "changed": 0, "unchanged": 0, "refused": 0, "errors": "", "errors_complete": True}
    return ok({**told, **counts})


def test_a_communication_is_registered_and_told_of(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(problem(503, "unavailable"), ok(INFO, 201), ok({"communications": [INFO], "next_cursor": None}))
    found = tenant_call(
        gateway, "communications.put", "a/b", name="Spring", notify=["a@example.com"], environments={"live": {}}
    )
    assert (found.registered.deadline_hours, found.registered.environments) == (1.5, {"live": {"shop": "x"}})
    first, second = gateway.requests
    assert (second.method, second.url.raw_path) == ("PUT", b"/backhaul/v1/communications/a%2Fb")
    assert json.loads(first.content) == json.loads(second.content)
    assert json.loads(second.content) == {"name": "Spring", "notify": ["a@example.com"], "environments": {"live": {}}}
    (listed,) = tenant_call(gateway, "communications.list", registered=True, mode="live")
    assert (listed.status, listed.switched[0].author) == ("a status of the future", "key:1")
    assert dict(gateway.requests[-1].url.params) == {"mode": "live", "registered": "true", "limit": "100"}


def test_all_that_is_known_of_one(tenant_call: Callable[..., Any]) -> None:
    engagement = ("opened", "opened_by_machine", "unique_opened", "clicked", "clicked_by_machine", "unique_clicked")
    replies = ("all", "stop", "start", "help", "survey_response")
    known = {
        **INFO,
        "fulfilment": {"Sent": 1},
        "events": {},
        "messages": 1,
        "engagement": dict.fromkeys(engagement, 0),
        "replies": {**dict.fromkeys(replies, 0), "templates": {}},
        "errors": [{"channel": "twilio", "error_code": "30006", "count": 1}],
        "batches": [BATCH],
        "more_batches": False,
        "last_event_at": None,
    }
    gateway = Gateway(ok(known), ok(known))
    found = tenant_call(gateway, "communications.get", "a/b")
    assert (found.fulfilment, found.errors[0].count, found.batches[0].progress.waiting) == ({"Sent": 1}, 1, 1)
    assert tenant_call(gateway, "communication", "a/b").messages == 1


def test_it_is_disabled_and_enabled(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(ok(INFO), ok(INFO))
    tenant_call(gateway, "communications.disable", "a/b", reason="Wrong shop.", author="anna")
    tenant_call(gateway, "communications.enable", "a/b")
    assert [request.url.path.rpartition("/")[2] for request in gateway.requests] == ["disable", "enable"]
    assert [json.loads(request.content) for request in gateway.requests] == [
        {"reason": "Wrong shop.", "author": "anna"}, {},
    ]  # fmt: skip


def test_a_batch_is_registered_and_closed(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(ok(BATCH, 201), ok(BATCH), ok({"batches": [BATCH], "next_cursor": None}), ok(BATCH))
    deadline = datetime(2026, 11, 25, tzinfo=UTC)
    tenant_call(gateway, "batches.put", "a/b", "b/1", expected_members=2, deadline=deadline)
    assert tenant_call(gateway, "batches.get", "b1").deadline.day == 25
    (listed,) = tenant_call(gateway, "batches.list", communication="a/b", status="open")
    assert listed.expected_members is None
    tenant_call(gateway, "batches.close", "b1")
    put, got, listed, closed = gateway.requests
    assert put.url.raw_path == b"/backhaul/v1/communications/a%2Fb/batches/b%2F1"
    assert json.loads(put.content) == {"expected_members": 2, "deadline": "2026-11-25T00:00:00Z"}
    assert (got.method, got.url.path, closed.method, closed.url.path) == (
        "GET", "/backhaul/v1/batches/b1", "POST", "/backhaul/v1/batches/b1/close",
    )  # fmt: skip
    assert dict(listed.url.params) == {"communication": "a/b", "status": "open", "limit": "100"}


def test_a_deadline_without_a_time_zone_is_none(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway()
    with pytest.raises(ValueError, match="deadline has no time zone"):
        tenant_call(gateway, "batches.put", "a", "b", deadline=datetime(2026, 11, 25))  # noqa: DTZ001  # what is tried
    assert gateway.requests == []


def test_members_come_as_they_are_read(tenant_call: Callable[..., Any]) -> None:
    lines = b"".join(json.dumps({**MEMBER, "member_key": str(number)}).encode() + b"\n" for number in range(3))
    gateway = Gateway(httpx.Response(200, content=lines), ok({**BATCH, "members": [MEMBER], "next_cursor": None}))
    assert [one.member_key for one in tenant_call(gateway, "batches.members", "b1")] == ["0", "1", "2"]
    (paged,) = tenant_call(gateway, "batches.member_pages", "b1", page_size=7, cursor="here")
    assert (paged.attributes, paged.destinations[0].message) == ({"name": "Anna"}, None)
    streamed, page = gateway.requests
    assert (streamed.headers["Accept"], dict(streamed.url.params)) == (
        "application/x-ndjson", {"includemembers": "true"},
    )  # fmt: skip
    assert dict(page.url.params) == {"includemembers": "true", "limit": "7", "cursor": "here"}


def test_members_are_added_by_pages_each_until_it_is_answered(tenant_call: Callable[..., Any]) -> None:
    # Some take what stands in the last one for the end of a line.
    line = {"error_line": "1", "error_field": "destinations[0]", "error_message": "No.", "error_fix": "Mend."}
    refused = json.dumps({**line, "x": "\u2028"}, ensure_ascii=False)
    gateway = Gateway(
        imported(lines=2, added=2),
        problem(503, "unavailable", retry_after="1"),
        problem(429, "rate_limited", retry_after="1"),
        imported(lines=2, added=1, refused=1, errors=refused + "\n"),
        imported(lines=1, unchanged=1),
    )
    members: list[MemberIn] = [{"member_key": str(number), "destinations": [{"recipient": "é"}]} for number in range(5)]
    told = tenant_call(gateway, "batches.add_members", "b1", iter(members), page_size=2)
    assert (told.added, told.changed, told.unchanged, told.refused) == (3, 0, 1, 1)
    (refusal,) = told.refusals
    assert (refusal.position, refusal.member_key, refusal.field, refusal.fix) == (2, "2", "destinations[0]", "Mend.")
    sent = [[json.loads(line) for line in request.content.splitlines()] for request in gateway.requests]
    assert sent == [members[:2], members[2:4], members[2:4], members[2:4], members[4:]]
    assert {request.headers["Content-Type"] for request in gateway.requests} == {"application/x-ndjson"}
    assert {request.url.path for request in gateway.requests} == {"/backhaul/v1/batches/b1/members"}


def test_no_members_are_no_request(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway()
    assert tenant_call(gateway, "batches.add_members", "b1", []).added == 0
    assert gateway.requests == []


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ("abc", r"members\[0\] is of type str: pass a list"),
        ({"member_key": "anna"}, r"members\[0\] is of type str.*\{\"member_key\": \"anna\"\}"),
        (b"member_key", r"members\[0\] is of type int"),
        ([{"member_key": "anna"}, None], r"members\[1\] is of type NoneType"),
    ],
)
def test_what_is_no_member_is_named_before_anything_is_sent(
    tenant_call: Callable[..., Any], members: Any, said: str
) -> None:
    gateway = Gateway()
    with pytest.raises(TypeError, match=said):
        tenant_call(gateway, "batches.add_members", "b1", members)
    assert gateway.requests == []


def test_a_page_has_a_member_at_least(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway()
    with pytest.raises(ValueError, match="page_size is 0"):
        tenant_call(gateway, "batches.add_members", "b1", [{"member_key": "a"}], page_size=0)
    assert gateway.requests == []


def test_members_may_come_asynchronously() -> None:
    async def three() -> AsyncIterator[MemberIn]:
        for number in range(3):
            yield {"member_key": str(number)}

    async def add(gateway: Gateway) -> int:
        async with httpx.AsyncClient(transport=httpx.MockTransport(gateway.answer_later)) as http:
            client = AsyncTenantClient(URL, KEY, http=http, retries=EVEN, sleep=gateway.pause)
            return (await client.batches.add_members("b1", three(), page_size=2)).added

    gateway = Gateway(imported(added=2), imported(added=1))
    assert asyncio.run(add(gateway)) == 3
    assert [len(request.content.splitlines()) for request in gateway.requests] == [2, 1]


def test_a_file_in_pieces_is_sent_once(tenant_call: Callable[..., Any]) -> None:
    gateway = Gateway(problem(503, "unavailable"), imported(added=1))
    assert tenant_call(gateway, "batches.import_members", "b1", b"member_key\na\n").added == 1
    assert gateway.requests[1].headers["Content-Type"] == "text/csv"
    gateway = Gateway(problem(503, "unavailable"))
    with httpx.Client(transport=httpx.MockTransport(gateway.answer)) as http:
        batches = TenantClient(URL, KEY, http=http, retries=EVEN, sleep=gateway.pauses.append).batches
        with pytest.raises(UnavailableError):
            batches.import_members("b1", iter([b"member_key\n"]))
    assert len(gateway.requests) == 1


class _Breaking(httpx.SyncByteStream):
    def __iter__(self) -> Any:
        yield json.dumps(MEMBER).encode() + b"\n"
        raise httpx.RemoteProtocolError("The connection was closed.")


def test_members_that_break_off_raise() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=_Breaking()))
    with httpx.Client(transport=transport) as http:
        members = TenantClient(URL, KEY, http=http).batches.members("b1")
        assert next(members).member_key == "anna"
        with pytest.raises(UnreachableError, match="broke off"):
            next(members)
