"""Audit files over HTTP, against answers that are written here: what is sent, and what becomes of the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from backhaul_client import (
    AdminClient,
    AsyncTenantClient,
    BrokenOffError,
    NotFoundError,
    Retries,
    TenantClient,
    UnexpectedAnswerError,
)

KEY = "bhk_0123456789ab_secret-half"
FILE: dict[str, Any] = {
    "id": "5b" * 16,
    "channel": "sendgrid",
    "chain": "events",
    "number": 7,
    "bucket": "backhaul",
    "key": "tenants/acme.1/events/AUDIT_1_Events.json",
    "format": "jsonl",
    "gzip": False,
    "events": 3,
    "bytes": 42,
    "sha256": "ab" * 32,
    "inflated_bytes": 42,
    "inflated_sha256": "ab" * 32,
    "first_position": 10,
    "last_position": 20,
    "first_at": "2026-11-01T00:00:00Z",
    "last_at": "2026-11-01T00:00:01Z",
    "sealed_at": "2026-11-01T00:00:02Z",
    "deleted_at": None,
    "digest": 0,
    "encrypted": True,
}
DIGEST: dict[str, Any] = {
    "chain": "events",
    "number": 2,
    "begins_at": "2026-11-01T00:00:00Z",
    "ends_at": "2026-11-01T01:00:00Z",
    "bucket": "backhaul",
    "key": "digests/2",
    "hash": "cd" * 32,
    "key_id": "1" * 16,
    "signature": "c2lnbmVk",
    "files": 1,
    "deletions": 0,
}
PROGRESS: dict[str, Any] = {
    "findings": [],
    "digests": 1,
    "valid_digests": 1,
    "files": 0,
    "valid_files": 0,
    "found_from": None,
    "found_to": None,
    "done": False,
}
RECOUNT: dict[str, Any] = {
    "equal": False,
    "events": 0,
    "kinds": [],
    "not_asked": 0,
    "channels_not_asked": [],
    "waiting": 0,
    "missing": 0,
    "missing_event_ids": [],
    "moving": False,
    "done": False,
}


class Gateway:
    """Answers one after the other, and remembers what it was asked."""

    def __init__(self, *outcomes: httpx.Response) -> None:
        self._outcomes = iter(outcomes)
        self.requests: list[httpx.Request] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return next(self._outcomes)

    @property
    def asked(self) -> list[str]:
        return [str(request.url).removeprefix("https://x.test") for request in self.requests]


def client(gateway: Gateway) -> TenantClient:
    http = httpx.Client(transport=httpx.MockTransport(gateway.answer))
    return TenantClient("https://x.test", KEY, http=http, retries=Retries(tries=2), sleep=lambda _: None)


def shown(*parts: Any) -> httpx.Response:
    """Lines, of which the pieces end anywhere."""

    def pieces() -> Iterator[bytes]:
        body = b"".join(json.dumps(part).encode() + b"\n" for part in parts)
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    return httpx.Response(200, content=pieces())


def test_files_come_page_by_page_and_one_by_its_id() -> None:
    gateway = Gateway(
        httpx.Response(200, json={"files": [FILE], "next_cursor": "c"}),
        httpx.Response(200, json={"files": [FILE], "next_cursor": None}),
        httpx.Response(200, json=FILE),
        httpx.Response(200, json={"url": "https://s3/secret", "expires_at": "2026-11-01T00:00:00Z"}),
    )
    backhaul = client(gateway)
    files = list(backhaul.audit_files(channel="sendgrid", from_=datetime(2026, 11, 1, tzinfo=UTC), page_size=1))
    assert [file.name for file in files] == ["AUDIT_1_Events.json"] * 2
    assert backhaul.audit_file("5b" * 16) == files[0]
    assert files[0].encrypted
    link = backhaul.link_audit_file("5b" * 16, valid_s=60)
    assert (link.url, "secret" in repr(link)) == ("https://s3/secret", False)
    query = "channel=sendgrid&from=2026-11-01T00%3A00%3A00%2B00%3A00&limit=1"
    assert gateway.asked == [
        f"/v1/audits?{query}",
        f"/v1/audits?{query}&cursor=c",
        f"/v1/audits/{'5b' * 16}",
        f"/v1/audits/{'5b' * 16}/link?valid_s=60",
    ]


def test_content_comes_in_pieces_and_says_where_it_broke_off() -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise httpx.ReadError("gone")

    backhaul = client(
        Gateway(
            httpx.Response(200, content=iter([b"a", b"b"])),
            httpx.Response(200, content=broken()),
            httpx.Response(404, json={"code": "not_found", "detail": "There is no such file."}),
        )
    )
    assert list(backhaul.audit_content("1")) == [b"a", b"b"]
    with pytest.raises(BrokenOffError, match="broke off"):
        list(backhaul.audit_content("1"))
    with pytest.raises(NotFoundError):
        list(backhaul.audit_content("1"))


async def test_a_redirect_in_the_place_of_a_file_is_asked_for_once() -> None:
    gateway = Gateway(*(httpx.Response(302, headers={"location": "https://elsewhere.test"}) for _ in range(2)))
    with pytest.raises(UnexpectedAnswerError, match="status 302"):
        list(client(gateway).audit_content("1"))
    async with httpx.AsyncClient(transport=httpx.MockTransport(gateway.answer)) as http:
        backhaul = AsyncTenantClient("https://x.test", KEY, http=http)
        with pytest.raises(UnexpectedAnswerError, match="status 302"):
            await anext(aiter(backhaul.audit_content("1")))
    assert gateway.asked == ["/v1/audits/1/content"] * 2


def test_a_file_is_asked_for_decrypted_and_a_person_is_erased() -> None:
    erasure = {"destroyed": True, "erased_before": "2026-11-01T00:00:30Z", "plain_channels": ["sendgrid"]}
    gateway = Gateway(
        httpx.Response(200, content=b"{}\n"),
        httpx.Response(503, json={"code": "unavailable", "detail": "Audit is away."}),
        httpx.Response(200, json=erasure),
    )
    backhaul = client(gateway)
    assert list(backhaul.audit_content("1", decrypted=True)) == [b"{}\n"]
    # It is asked again, since it may be repeated.
    erased = backhaul.erase_person("+15005550010")
    assert (erased.destroyed, erased.plain_channels) == (True, ("sendgrid",))
    assert erased.erased_before == datetime(2026, 11, 1, 0, 0, 30, tzinfo=UTC)
    assert gateway.asked == ["/v1/audits/1/content?decrypted=true", *["/v1/audits/erasures"] * 2]
    assert gateway.requests[2].method == "POST"
    assert json.loads(gateway.requests[2].content) == {"address": "+15005550010"}


def test_a_file_of_an_older_gateway_is_not_encrypted() -> None:
    older = {name: value for name, value in FILE.items() if name != "encrypted"}
    assert not client(Gateway(httpx.Response(200, json=older))).audit_file("1").encrypted


def test_digests_heads_proofs_and_keys() -> None:
    gateway = Gateway(
        httpx.Response(200, json={"digests": [DIGEST], "next_cursor": None}),
        httpx.Response(200, content=b"{}\n{}\n"),
        httpx.Response(200, json={"heads": [DIGEST]}),
        httpx.Response(
            200, json={"proofs": [{"revision": 0, "place": 3, "file": FILE, "digest": None}], "heads": [DIGEST]}
        ),
        httpx.Response(
            200,
            json={"keys": [{"key_id": "1", "algorithm": "Ed25519", "public_key": "AQ==", "created_at": None}]},
        ),
    )
    backhaul = client(gateway)
    (digest,) = backhaul.audit_digests(chain="backfill")
    assert backhaul.audit_digest("events", 2) == b"{}\n{}\n"
    assert backhaul.audit_heads() == (digest,)
    proofs = backhaul.prove_event("e1")
    assert (proofs.proofs[0].place, proofs.proofs[0].digest, proofs.heads) == (3, None, (digest,))
    assert backhaul.audit_keys()[0].key_id == "1"
    assert gateway.asked == [
        "/v1/audits/digests?chain=backfill&limit=100",
        "/v1/audits/digests/events/2",
        "/v1/audits/head",
        "/v1/audits/proof?event_id=e1",
        "/.well-known/backhaul-audit-keys",
    ]


def test_a_verification_is_told_line_by_line() -> None:
    finding = {"chain": "events", "subject": "file", "name": "x", "valid": False, "problem": "hash", "detail": "No."}
    gateway = Gateway(shown(PROGRESS, {**PROGRESS, "findings": [finding], "files": 1, "done": True}))
    told = list(client(gateway).verify_audits(chain="events", heads=["ab" * 32, "cd" * 32]))
    assert [one.done for one in told] == [False, True]
    assert told[1].findings[0].problem == "hash"
    assert gateway.asked == [f"/v1/audits/verify?chain=events&progress=true&head={'ab' * 32}&head={'cd' * 32}"]
    with pytest.raises(UnexpectedAnswerError):
        list(client(Gateway(httpx.Response(200, content=b"<html>\n"))).verify_audits())


def test_a_recount_is_told_line_by_line() -> None:
    kind = {"kind": "delivered", "counted": 3, "listed": 3, "audited": 2}
    found = {"kinds": [kind], "waiting": 1, "channels_not_asked": ["twilio"], "missing_event_ids": ["ab" * 16]}
    gateway = Gateway(shown(RECOUNT, {**RECOUNT, **found, "equal": True, "events": 3, "done": True}))
    told = list(client(gateway).recount_communication("spring & more"))
    assert [(one.done, one.events) for one in told] == [(False, 0), (True, 3)]
    assert (told[1].equal, told[1].kinds[0].audited, told[1].missing_event_ids) == (True, 2, ("ab" * 16,))
    assert gateway.asked == ["/v1/audits/recount?communication_id=spring+%26+more&progress=true"]


async def test_the_asynchronous_client_does_the_same() -> None:
    lines = (json.dumps(part).encode() + b"\n" for part in (RECOUNT, {**RECOUNT, "done": True}))
    told = b"".join(json.dumps(part).encode() + b"\n" for part in (PROGRESS, {**PROGRESS, "done": True}))
    erasure: dict[str, Any] = {"destroyed": False, "erased_before": None, "plain_channels": []}
    gateway = Gateway(
        httpx.Response(200, content=told),
        httpx.Response(200, content=b"".join(lines)),
        httpx.Response(200, content=b"ab"),
        httpx.Response(200, json=erasure),
    )
    http = httpx.AsyncClient(transport=httpx.MockTransport(gateway.answer))
    async with AsyncTenantClient("https://x.test", KEY, http=http) as backhaul:
        assert [one.done async for one in backhaul.verify_audits()] == [False, True]
        assert [one.done async for one in backhaul.recount_communication("spring")] == [False, True]
        assert b"".join([piece async for piece in backhaul.audit_content("1", decrypted=True)]) == b"ab"
        assert (await backhaul.erase_person("a@example.com")).plain_channels == ()
    await http.aclose()


def test_the_platform_team_rotates_the_ring() -> None:
    kept = {"service": "audit", "installed": True, "complete": False}
    counts = {"renewed": 2, "current": 1, "older": 0, "unreadable": 1}
    lost = {"service": "audit", "tenant_id": None, "id": "1", "field": "private"}
    shown = {"key_id": "9c", "services": [kept | counts], "unreadable": [lost], "next_cursor": "audit/0/1"}
    gateway = Gateway(*(httpx.Response(200, json=shown) for _ in range(3)))
    team = AdminClient(
        "https://x.test", "admin-token", http=httpx.Client(transport=httpx.MockTransport(gateway.answer))
    )
    found = team.rotate_secret_keys()
    assert (found.services[0].renewed, found.unreadable[0].field) == (2, "private")
    assert found.next_cursor is not None
    team.rotate_secret_keys(cursor=found.next_cursor)
    assert team.secret_keys().key_id == "9c"
    path = "/admin/v1/secret-keys"
    assert gateway.asked == [f"{path}/rotate", f"{path}/rotate?cursor=audit%2F0%2F1", path]
    assert [one.method for one in gateway.requests] == ["POST", "POST", "GET"]


def test_the_platform_team_applies_what_it_exported() -> None:
    document = {"version": 1, "tenants": [{"id": "acme"}], "next_cursor": None}
    part = {"key": "sub_1", "name": "Orders", "change": "created", "fields": [], "secret": "whsec_eA=="}
    field = {"field": "limits.burst", "before": 7, "after": 9}
    change: dict[str, Any] = {
        "id": "acme",
        "change": "changed",
        "fields": [field],
        "channels": [],
        "subscriptions": [part],
    }
    change |= {"only_here": {"channels": ["twilio"], "subscriptions": []}, "api_key": None, "ingest_token": None}
    applied = {"dry_run": True, "tenants": [change]}
    gateway = Gateway(httpx.Response(200, json=document), httpx.Response(200, json=applied))
    team = AdminClient(
        "https://x.test", "admin-token", http=httpx.Client(transport=httpx.MockTransport(gateway.answer))
    )
    found = team.export(tenant="acme")
    (done,) = team.apply(found, secrets={"a": "b"}, dry_run=True)
    assert (done.fields[0].before, done.fields[0].after, done.only_here.channels) == (7, 9, ("twilio",))
    assert "whsec_" not in repr(done)
    assert gateway.asked == ["/admin/v1/export?tenant=acme&limit=100", "/admin/v1/apply?dry_run=true"]
    assert json.loads(gateway.requests[1].content) == document | {"secrets": {"a": "b"}}


def test_the_platform_team_rotates_keys() -> None:
    key = {"key_id": "2", "algorithm": "Ed25519", "public_key": "AQ==", "created_at": "2026-11-01T00:00:00Z"}
    gateway = Gateway(httpx.Response(201, json=key))
    http = httpx.Client(transport=httpx.MockTransport(gateway.answer))
    assert AdminClient("https://x.test", "admin-token", http=http).rotate_audit_key().key_id == "2"
    assert (gateway.requests[0].method, gateway.asked) == ("POST", ["/admin/v1/audit-keys/rotate"])
