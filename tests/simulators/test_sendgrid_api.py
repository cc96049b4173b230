"""SendGrid's Email Activity and lists of suppressions as their documentation has them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from backhaul_testing.apis.clock import Clock
from backhaul_testing.apis.sendgrid import SendGridApi, SendGridUser
from simulators.asking_sendgrid import between, client, messages, suppressions


def error(answer: httpx.Response) -> tuple[int, str, str | None]:
    """The status, the message and the field of an error in the documented shape."""
    (one,) = answer.json()["errors"]
    assert set(one) == {"field", "message"}
    return answer.status_code, one["message"], one["field"]


def test_mails_are_found_by_their_last_event(sendgrid_api: SendGridApi, user: SendGridUser, clock: Clock) -> None:
    begin = clock.now()
    first = user.mail("a@example.com", [(begin, "processed"), (begin + timedelta(minutes=2), "delivered")])
    second = user.mail("b@example.com", [(begin + timedelta(minutes=1), "processed")])
    clock.advance(60)
    with client(sendgrid_api, user.key()) as http:
        span = between(begin, begin + timedelta(minutes=1))
        assert [row["msg_id"] for row in messages(http, span)] == [second.msg_id, first.msg_id]
        clock.advance(60)
        assert [row["msg_id"] for row in messages(http, span)] == [second.msg_id]
        (row,) = messages(http, 'to_email="a@example.com"')
        assert row == {
            "from_email": "sender@example.com",
            "msg_id": first.msg_id,
            "subject": "Something profound",
            "to_email": "a@example.com",
            "status": "delivered",
            "opens_count": 0,
            "clicks_count": 0,
            "last_event_time": "2026-11-20T12:02:00Z",
        }
        assert len(messages(http, "", limit=1)) == 1


DAY = 'last_event_time BETWEEN TIMESTAMP "2026-11-20T00:00:00+00:00" AND TIMESTAMP "2026-11-20T23:59:59.999Z"'


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('status="processed"', {"b"}),
        ('status != "processed" AND to_email = "c@example.com"', {"c"}),
        ('status IN ("processed", "not_delivered")', {"b", "c"}),
        ('last_event_time between timestamp "2026-11-20T11:59:59Z" and timestamp "2026-11-20T12:00:00Z"', {"b", "c"}),
        (DAY + ' AND status="not_delivered"', {"c"}),
        ('subject="and \\"so\\" on"', set()),
        (DAY + ' AND status="not_delivered" AND (Contains(events,"bounced"))', {"c"}),
        ('(Contains(events, "deferred"))', {"b"}),
        ('(Contains(events,"dropped"))', set()),
        ("to_email LIKE 'a@%'", {"a"}),
        ("to_email LIKE '_@example.com' AND status=\"processed\"", {"b"}),
        ("to_email LIKE '@example.com'", set()),
        ("", {"a", "b", "c"}),
    ],
)
def test_queries(sendgrid_api: SendGridApi, user: SendGridUser, clock: Clock, query: str, expected: set[str]) -> None:
    for name, word in (("a", "delivered"), ("b", "deferred"), ("c", "bounce")):
        at = clock.now() - timedelta(hours=1 if name == "a" else 0)
        user.mail(f"{name}@example.com", [(at, "processed"), (at, word)])
    with client(sendgrid_api, user.key()) as http:
        assert {row["to_email"][0] for row in messages(http, query)} == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ('bad_field="x"', "invalid syntax: 'bad_field' is not a known field"),
        ('last_event_time="2026-11-20T12:00:00Z"', "invalid syntax"),
        ('status BETWEEN TIMESTAMP "2026-11-20T12:00:00Z" AND TIMESTAMP "2026-11-20T12:00:00Z"', "invalid syntax"),
        ('last_event_time BETWEEN TIMESTAMP "noon" AND TIMESTAMP "night"', "is not a timestamp"),
        ('status="processed" OR status="delivered"', "invalid syntax"),
        ('status="processed" AND ', "invalid syntax"),
        ('(Contains(opens,"x"))', "'opens' is not a known field"),
        ("status", "invalid syntax"),
    ],
)
def test_queries_that_are_refused(sendgrid_api: SendGridApi, user: SendGridUser, query: str, message: str) -> None:
    with client(sendgrid_api, user.key()) as http:
        status, said, _ = error(http.get("/v3/messages", params={"query": query}))
        assert status == 400
        assert message in said


def test_a_list_is_cut_without_a_word(sendgrid_api: SendGridApi, user: SendGridUser, clock: Clock) -> None:
    sent = [
        user.mail(f"{number}@example.com", [(clock.now() - timedelta(seconds=number), "processed")]).msg_id
        for number in range(1010)
    ]
    with client(sendgrid_api, user.key()) as http:
        assert [row["msg_id"] for row in messages(http, "")] == sent[:1000]
        assert len(http.get("/v3/messages").json()["messages"]) == 10
        for limit in ("1001", "0", "ten"):
            assert error(http.get("/v3/messages", params={"limit": limit}))[::2] == (400, "limit")


def test_a_single_mail_tells_its_events(sendgrid_api: SendGridApi, user: SendGridUser, clock: Clock) -> None:
    begin = clock.now()
    mail = user.mail(
        "a@example.com", [(begin, "processed")], categories=("spring",), unique_args={"order": "7"}, group=3
    )
    user.happens(mail, "deferred", at=begin + timedelta(seconds=1), response="450 later", attempt=1)
    user.happens(mail, "bounce", at=begin + timedelta(seconds=2), reason="550 no", status="5.1.1")
    late = user.mail("b@example.com", [(begin, "processed"), (begin, "delivered"), (begin, "open")])
    user.happens(late, "click", at=begin, url="https://example.com/x", useragent="Mozilla/5.0")
    clock.advance(5)
    with client(sendgrid_api, user.key()) as http:
        found = http.get(f"/v3/messages/{mail.msg_id}").json()
        assert (found["msg_id"], found["status"], found["asm_group_id"]) == (mail.msg_id, "not_delivered", 3)
        assert (found["categories"], json.loads(found["unique_args"])) == (["spring"], {"order": "7"})
        assert [(event["event_name"], event["processed"][-9:]) for event in found["events"]] == [
            ("processed", "12:00:00Z"),
            ("deferred", "12:00:01Z"),
            ("bounced", "12:00:02Z"),
        ]
        processed, deferred, bounced = found["events"]
        assert set(processed) == {"event_name", "processed"}
        assert (deferred["reason"], deferred["attempt_num"]) == ("450 later", 1)
        assert (bounced["reason"], bounced["bounce_type"]) == ("550 no", "hard")
        clicked = http.get(f"/v3/messages/{late.msg_id}").json()["events"][-1]
        assert (clicked["url"], clicked["http_user_agent"]) == ("https://example.com/x", "Mozilla/5.0")
        assert error(http.get("/v3/messages/nobody.0")) == (404, "not found", "message_id")
        assert [row["clicks_count"] for row in messages(http, 'status="delivered"')] == [1]
        clock.advance(30 * 86_400)
        assert messages(http, "") == []
        assert http.get(f"/v3/messages/{mail.msg_id}").status_code == 404


FULL = {"reason": "452 mailbox full", "status": "4.2.2"}
UNRESOLVED = {"reason": "Mail domain mentioned in email address is unknown"}
UNKNOWN = {"reason": "550 no such user", "status": "5.1.1"}
CAUSES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("bounces", "bounce", UNKNOWN, UNKNOWN),
    ("blocks", "bounce", {"type": "blocked", **FULL}, FULL),
    ("invalid_emails", "dropped", {"reason": "Invalid"}, UNRESOLVED),
    ("spam_reports", "spamreport", {"ip": "192.0.2.9"}, {"ip": "192.0.2.9"}),
    ("unsubscribes", "unsubscribe", {}, {}),
]


@pytest.mark.parametrize(("name", "word", "fields", "expected"), CAUSES)
def test_what_happens_to_a_mail_puts_its_address_on_a_list(
    sendgrid_api: SendGridApi,
    user: SendGridUser,
    clock: Clock,
    name: str,
    word: str,
    fields: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    mail = user.mail("a@example.com", [(clock.now(), "processed")])
    user.happens(mail, word, at=clock.now() + timedelta(seconds=10), **fields)
    created = int(clock.now().timestamp()) + 10
    with client(sendgrid_api, user.key()) as http:
        assert suppressions(http, name) == []
        clock.advance(10)
        assert suppressions(http, name) == [{"email": "a@example.com", "created": created, **expected}]
        for other, *_ in CAUSES:
            assert (suppressions(http, other) == []) == (other != name)
        assert suppressions(http, name, start_time=created, end_time=created) != []
        assert suppressions(http, name, start_time=created + 1) == suppressions(http, name, end_time=created - 1) == []


def test_groups_are_told_whole(sendgrid_api: SendGridApi, user: SendGridUser, clock: Clock) -> None:
    user.groups |= {1: "Weekly News", 2: "Daily News"}
    mail = user.mail("a@example.com", [(clock.now(), "delivered")])
    user.happens(mail, "group_unsubscribe", asm_group_id=1)
    user.happens(mail, "group_unsubscribe", asm_group_id=2)
    created = int(clock.now().timestamp())
    with client(sendgrid_api, user.key()) as http:
        asked = http.get("/v3/asm/suppressions", params={"start_time": created + 9, "limit": 1}).json()
        assert sorted(asked, key=lambda row: row["group_id"]) == [
            {"email": "a@example.com", "group_id": number, "group_name": name, "created_at": created}
            for number, name in user.groups.items()
        ]
        clock.advance(1)
        user.happens(mail, "group_resubscribe", asm_group_id=1)
        assert [row["group_id"] for row in http.get("/v3/asm/suppressions").json()] == [2]


def test_lists_are_paged_by_offset_newest_first(sendgrid_api: SendGridApi, user: SendGridUser, clock: Clock) -> None:
    for number in range(1100):
        user.suppress("bounces", f"{number}@example.com", at=clock.now() - timedelta(seconds=number))
    user.suppress("bounces", "7@example.com", at=clock.now() - timedelta(hours=9))
    with client(sendgrid_api, user.key()) as http:
        assert [row["email"] for row in suppressions(http, "bounces")] == [f"{n}@example.com" for n in range(1100)]
        assert sendgrid_api.requests.by_route() == {"bounces": 3}
        assert len(http.get("/v3/suppression/bounces").json()) == 500
        assert error(http.get("/v3/suppression/bounces", params={"limit": "501"}))[::2] == (400, "limit")
        user.lift("bounces", "0@example.com")
        clock.advance(1)
        assert http.get("/v3/suppression/bounces", params={"limit": 1}).json()[0]["email"] == "1@example.com"


def test_six_requests_a_minute_by_key(sendgrid_api: SendGridApi, user: SendGridUser, clock: Clock) -> None:
    key, other = user.key(), user.key()
    mail = user.mail("a@example.com", [(clock.now(), "processed")])
    reset = str(int(clock.now().timestamp()) + 60)
    with client(sendgrid_api, key) as http, client(sendgrid_api, other) as second:
        for left in (5, 4, 3, 2, 1):
            answer = http.get("/v3/messages")
            assert answer.status_code == 200
            assert answer.headers["X-RateLimit-Limit"] == "6"
            assert answer.headers["X-RateLimit-Remaining"] == str(left)
            assert answer.headers["X-RateLimit-Reset"] == reset
        assert http.get(f"/v3/messages/{mail.msg_id}").status_code == 200
        for _ in range(2):
            answer = http.get("/v3/messages")
            assert error(answer) == (429, "too many requests", None)
            assert (answer.headers["X-RateLimit-Remaining"], answer.headers["X-RateLimit-Reset"]) == ("0", reset)
        assert second.get("/v3/messages").status_code == 200
        assert http.get("/v3/suppression/bounces").headers["X-RateLimit-Limit"] == "600"
        clock.advance(60)
        assert http.get("/v3/messages").status_code == 200
    name = key.split(".")[1]
    requests = sendgrid_api.requests
    assert requests.by_key() == {name: 10, other.split(".")[1]: 1}
    assert requests.most_within(60, key=name, route="messages") == 7
    assert requests.count(status=429) == 2


def test_suppressions_have_a_limit_too(clock: Clock) -> None:
    with SendGridApi(clock=clock, suppressions_limit=2) as api:
        user = api.user("main")
        with client(api, user.key()) as http:
            found = [http.get(f"/v3/suppression/{name}").status_code for name in ("bounces", "blocks", "bounces")]
            assert found == [200, 200, 429]


def test_only_who_may_reads(sendgrid_api: SendGridApi, user: SendGridUser, clock: Clock) -> None:
    below, stranger = user.subuser("below"), sendgrid_api.user("stranger")
    mine, theirs = (one.mail("a@example.com", [(clock.now(), "processed")]) for one in (user, below))
    below.suppress("bounces", "b@example.com")
    main, sub = user.key(), below.key()
    with client(sendgrid_api, main) as http:
        assert [row["msg_id"] for row in messages(http, "")] == [mine.msg_id]
        assert http.get(f"/v3/messages/{theirs.msg_id}").status_code == 404
        assert suppressions(http, "bounces") == []
    with client(sendgrid_api, main, **{"On-Behalf-Of": "below"}) as http:
        assert [row["msg_id"] for row in messages(http, "")] == [theirs.msg_id]
        assert [row["email"] for row in suppressions(http, "bounces")] == ["b@example.com"]
    with client(sendgrid_api, sub) as http:
        assert [row["msg_id"] for row in messages(http, "")] == [theirs.msg_id]
    forbidden = (403, "access forbidden", None)
    for key, behalf in ((sub, "main"), (main, "stranger"), (main, "nobody"), (stranger.key(), "below")):
        with client(sendgrid_api, key, **{"On-Behalf-Of": behalf}) as http:
            assert error(http.get("/v3/suppression/blocks")) == forbidden
    with client(sendgrid_api, user.key(activity=False)) as http:
        assert error(http.get("/v3/messages")) == error(http.get(f"/v3/messages/{mine.msg_id}")) == forbidden
        assert suppressions(http, "blocks") == []
    with client(sendgrid_api, user.key(suppressions=False)) as http:
        assert error(http.get("/v3/suppression/blocks")) == error(http.get("/v3/asm/suppressions")) == forbidden
        assert len(messages(http, "")) == 1
    revoked = (401, "The provided authorization grant is invalid, expired, or revoked", None)
    for wrong in ("SG.x.y", main[:-1] + ("A" if main[-1] != "A" else "B"), "nothing"):
        with client(sendgrid_api, wrong) as http:
            answer = http.get("/v3/messages")
            assert error(answer) == revoked
            assert "X-RateLimit-Limit" not in answer.headers
    assert error(httpx.get(f"{sendgrid_api.url}/v3/messages")) == (401, "authorization required", None)


def test_there_is_nothing_else(sendgrid_api: SendGridApi, user: SendGridUser) -> None:
    with client(sendgrid_api, user.key()) as http:
        assert error(http.get("/v3/nothing")) == (404, "not found", None)


def test_rows_come_and_go_while_a_list_is_read(sendgrid_api: SendGridApi, user: SendGridUser, clock: Clock) -> None:
    old = [f"{number}@example.com" for number in range(9)]
    for number, address in enumerate(old):
        user.suppress("blocks", address, at=clock.now() - timedelta(minutes=number + 1), reason="x", status="4.0.0")
    with client(sendgrid_api, user.key()) as http:
        sendgrid_api.misbehave("growing", times=1)
        read = [row["email"] for row in suppressions(http, "blocks", limit=4)]
        assert read == [*old[:4], old[3], *old[4:]]
        again = [row["email"] for row in suppressions(http, "blocks", limit=4)]
        assert (len(again), again[1:]) == (10, old)
        sendgrid_api.misbehave("vanishing", times=1)
        assert [row["email"] for row in suppressions(http, "blocks", limit=4)] == [*again[:4], *again[5:]]
        assert [row["email"] for row in suppressions(http, "blocks", limit=4)] == old


def test_faults_have_sendgrids_words(sendgrid_api: SendGridApi, user: SendGridUser, clock: Clock) -> None:
    mail = user.mail("a@example.com", [(clock.now(), "processed")])
    user.suppress("bounces", "b@example.com")
    with client(sendgrid_api, user.key()) as http:
        sendgrid_api.misbehave("too_many_requests", times=1)
        assert error(http.get("/v3/suppression/bounces")) == (429, "too many requests", None)
        sendgrid_api.misbehave("errors", times=1, status=503)
        assert error(http.get("/v3/suppression/bounces")) == (503, "internal server error", None)
        sendgrid_api.misbehave("late", seconds=10)
        assert (messages(http, ""), suppressions(http, "bounces")) == ([], [])
        assert http.get(f"/v3/messages/{mail.msg_id}").status_code == 200
        clock.advance(10)
        assert (len(messages(http, "")), len(suppressions(http, "bounces"))) == (1, 1)
        with pytest.raises(ValueError, match="'circular' is nothing"):
            sendgrid_api.misbehave("circular")
    assert user.states() == {mail.msg_id: "processed"}
