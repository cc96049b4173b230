"""``/v1/subscriptions`` and ``/v1/event-types`` over a notifier that answers what it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code, Violation, unavailable
from backhaul_local.nats_server import NatsServer
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_DELIVERED, EVENT_KIND_FAILED, Attribute
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from gateway_rig import GatewayFactory
from notifier_rig import AT, AT_US, SUBSCRIPTION_ID, NotifierRig, notifying

ONE = f"/subscriptions/{SUBSCRIPTION_ID}"
BODY: dict[str, Any] = {
    "name": "Reports",
    "types": ["message.*"],
    "filter": {
        "channels": ["Twilio"],
        "communication_ids": ["spring-sale"],
        "error_codes": ["30006"],
        "attributes": [{"name": "region", "value": "eu"}],
        "kinds": ["delivered", "Failed"],
    },
    "http": {
        "method": "GET",
        "url": "https://example.com/sent?member=${memberId}",
        "headers": [{"name": "X-Env", "value": "live"}],
        "credentials": {"basic": {"username": "backhaul", "password": "secret"}},
    },
    "payload": {"form": "thin", "max_events": 10, "max_wait_s": 2, "with_raw": True},
    "policy": {"kind": "custom", "retry_after_s": [5, 60], "timeout_s": 9, "only_200": True},
    "ordering": "message",
    "rate_per_s": 50,
    "concurrency": 4,
    "alert_addresses": ["ops@example.com"],
}
DEFINITION = pb.Definition(
    name="Reports",
    types=["message.*"],
    filter=pb.Filter(
        channels=["Twilio"],
        communication_ids=["spring-sale"],
        error_codes=["30006"],
        attributes=[Attribute(name="region", value="eu")],
        kinds=[EVENT_KIND_DELIVERED, EVENT_KIND_FAILED],
    ),
    http=pb.HttpDestination(
        method=pb.HTTP_METHOD_GET,
        url="https://example.com/sent?member=${memberId}",
        headers=[Attribute(name="X-Env", value="live")],
        credentials=pb.Credentials(basic=pb.BasicCredentials(username="backhaul", password="secret")),
    ),
    payload=pb.Payload(form=pb.PAYLOAD_FORM_THIN, max_events=10, max_wait_s=2, with_raw=True),
    policy=pb.Policy(kind=pb.POLICY_KIND_CUSTOM, retry_after_s=[5, 60], timeout_s=9, only_200=True),
    ordering=pb.ORDERING_MESSAGE,
    rate_per_s=50,
    concurrency=4,
    alert_addresses=["ops@example.com"],
)
_STORED = pb.Definition()
_STORED.CopyFrom(DEFINITION)
_STORED.http.credentials.basic.password = ""
SUBSCRIPTION = pb.Subscription(
    id=SUBSCRIPTION_ID,
    revision=3,
    definition=_STORED,
    state=pb.SUBSCRIPTION_STATE_PAUSED,
    state_text="It has failed for a day.",
    state_since_us=AT_US,
    created_at_us=AT_US,
    updated_at_us=AT_US,
    secrets=[
        pb.Secret(kind=pb.SECRET_KIND_HMAC, secret="whsec_bmV3", created_at_us=AT_US),
        pb.Secret(kind=pb.SECRET_KIND_ED25519, public_key="whpk_a2V5", created_at_us=AT_US, expires_at_us=AT_US),
    ],
    standing=pb.Standing(
        waiting=7, held=2, oldest_waiting_at_us=AT_US, last_failure_at_us=AT_US, last_failure="Status 500."
    ),
)
SHOWN: dict[str, Any] = {
    "id": SUBSCRIPTION_ID,
    "revision": 3,
    **BODY,
    "filter": {**BODY["filter"], "kinds": ["delivered", "failed"]},
    "http": {
        **BODY["http"],
        "credentials": {
            "basic": {"username": "backhaul", "password": ""},
            "bearer_token": None,
            "header": None,
            "oauth": None,
            "mutual_tls": None,
        },
    },
    "mail": None,
    "state": "paused",
    "state_text": "It has failed for a day.",
    "state_since": AT,
    "created_at": AT,
    "updated_at": AT,
    "secrets": [
        {"kind": "hmac", "secret": "whsec_bmV3", "public_key": None, "created_at": AT, "expires_at": None},
        {"kind": "ed25519", "secret": None, "public_key": "whpk_a2V5", "created_at": AT, "expires_at": AT},
    ],
    "standing": {
        "waiting": 7,
        "oldest_waiting_at": AT,
        "held": 2,
        "failing_since": None,
        "last_success_at": None,
        "last_failure_at": AT,
        "last_failure": "Status 500.",
        "resting_until": None,
    },
}
MAIL = pb.Subscription(
    id=SUBSCRIPTION_ID,
    definition=pb.Definition(
        types=["*"],
        mail=pb.MailDestination(addresses=["team@example.com"], every_minutes=30),
        policy=pb.Policy(kind=pb.POLICY_KIND_STANDARD),
        ordering=pb.ORDERING_NONE,
    ),
    state=pb.SUBSCRIPTION_STATE_ACTIVE,
)


@pytest.fixture
async def rig(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[NotifierRig]:
    async with notifying(gateway_factory, fresh_nats.uri) as found:
        yield found


async def test_one_is_made(rig: NotifierRig) -> None:
    rig.notifier.answers["CreateSubscription"] = pb.CreateSubscriptionResponse(subscription=SUBSCRIPTION)
    answer = await rig.send("POST", "/subscriptions", {**BODY, "secret": "whsec_own"}, **{"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()) == (201, SHOWN)
    assert answer.headers["location"] == f"/v1{ONE}"
    assert (await rig.send("POST", "/subscriptions", {"types": ["*"]})).status_code == 201
    assert rig.notifier.asked == [
        pb.CreateSubscriptionRequest(tenant_id="acme", definition=DEFINITION, idempotency_key="k", secret="whsec_own"),
        pb.CreateSubscriptionRequest(tenant_id="acme", definition=pb.Definition(types=["*"])),
    ]


async def test_what_is_read_can_be_put(rig: NotifierRig) -> None:
    rig.notifier.answers["GetSubscription"] = pb.GetSubscriptionResponse(subscription=SUBSCRIPTION)
    rig.notifier.answers["UpdateSubscription"] = pb.UpdateSubscriptionResponse(subscription=SUBSCRIPTION)
    shown = (await rig.get(ONE)).json()
    assert shown == SHOWN
    body = {name: shown[name] for name in (*BODY, "revision")}
    answer = await rig.send("PUT", ONE, body)
    assert (answer.status_code, answer.json()) == (200, SHOWN)
    assert rig.notifier.asked == [
        pb.GetSubscriptionRequest(tenant_id="acme", id=SUBSCRIPTION_ID),
        pb.UpdateSubscriptionRequest(tenant_id="acme", id=SUBSCRIPTION_ID, definition=_STORED, revision=3),
    ]


async def test_one_that_tells_by_mail(rig: NotifierRig) -> None:
    rig.notifier.answers["ListSubscriptions"] = pb.ListSubscriptionsResponse(
        subscriptions=[MAIL, SUBSCRIPTION], next_page_token="t"
    )
    page = (await rig.get("/subscriptions", limit=2, cursor="c")).json()
    assert (page["subscriptions"][1], page["next_cursor"]) == (SHOWN, "t")
    mail = page["subscriptions"][0]
    assert (mail["mail"], mail["http"]) == ({"addresses": ["team@example.com"], "every_minutes": 30}, None)
    assert (mail["payload"], mail["ordering"], mail["policy"]["kind"]) == (None, "none", "standard")
    assert mail["filter"] == {name: [] for name in BODY["filter"]}
    rig.notifier.answers["CreateSubscription"] = pb.CreateSubscriptionResponse(subscription=MAIL)
    body = {"types": ["*"], "mail": {"addresses": ["team@example.com"], "every_minutes": 30}}
    assert (await rig.send("POST", "/subscriptions", body)).status_code == 201
    assert rig.notifier.asked == [
        pb.ListSubscriptionsRequest(tenant_id="acme", page_size=2, page_token="c"),
        pb.CreateSubscriptionRequest(
            tenant_id="acme", definition=pb.Definition(types=["*"], mail=MAIL.definition.mail)
        ),
    ]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"bearer_token": "t"}, pb.Credentials(bearer_token="t")),
        ({"bearer_token": ""}, pb.Credentials(bearer_token="")),
        ({"header": {"name": "X-K", "value": "v"}}, pb.Credentials(header=pb.HeaderCredentials(name="X-K", value="v"))),
        (
            {
                "oauth": {
                    "token_url": "https://example.com/token",
                    "client_id": "c",
                    "client_secret": "s",
                    "scope": "a b",
                    "audience": "d",
                }
            },
            pb.Credentials(
                oauth=pb.OAuthCredentials(
                    token_url="https://example.com/token",
                    client_id="c",
                    client_secret="s",
                    scope="a b",
                    audience="d",
                )
            ),
        ),
        (
            {"mutual_tls": {"certificate": "PEM", "private_key": "KEY"}},
            pb.Credentials(mutual_tls=pb.MutualTls(certificate="PEM", private_key="KEY")),
        ),
    ],
)
async def test_each_way_to_show_who_calls(rig: NotifierRig, given: dict[str, Any], sent: pb.Credentials) -> None:
    stored = pb.Subscription(definition=pb.Definition(types=["*"], http=pb.HttpDestination(credentials=sent)))
    rig.notifier.answers["CreateSubscription"] = pb.CreateSubscriptionResponse(subscription=stored)
    body = {"types": ["*"], "http": {"url": "https://example.com", "credentials": given}}
    answer = await rig.send("POST", "/subscriptions", body)
    (asked,) = rig.notifier.asked
    assert asked.definition.http.credentials == sent
    shown = {name: value for name, value in answer.json()["http"]["credentials"].items() if value is not None}
    assert shown == given


async def test_calls_about_one(rig: NotifierRig) -> None:
    for name in ("PauseSubscription", "ResumeSubscription", "RotateSecret"):
        rig.notifier.answers[name] = getattr(pb, f"{name}Response")(subscription=SUBSCRIPTION)
    rig.notifier.answers["DeleteSubscription"] = pb.DeleteSubscriptionResponse()
    for call, body in (
        ("pause", None),
        ("resume", None),
        ("resume", {"rate_per_s": 5}),
        ("rotate-secret", None),
        ("rotate-secret", {"kind": "ed25519", "grace_s": 0}),
        ("rotate-secret", {"secret": "whsec_own"}),
    ):
        answer = await rig.send("POST", f"{ONE}/{call}", body)
        assert (answer.status_code, answer.json()) == (200, SHOWN)
    gone = await rig.send("DELETE", ONE)
    assert (gone.status_code, gone.content) == (204, b"")
    who: Any = {"tenant_id": "acme", "id": SUBSCRIPTION_ID}
    assert rig.notifier.asked == [
        pb.PauseSubscriptionRequest(**who),
        pb.ResumeSubscriptionRequest(**who),
        pb.ResumeSubscriptionRequest(**who, rate_per_s=5),
        pb.RotateSecretRequest(**who, kind=pb.SECRET_KIND_HMAC),
        pb.RotateSecretRequest(**who, kind=pb.SECRET_KIND_ED25519, grace_s=0),
        pb.RotateSecretRequest(**who, kind=pb.SECRET_KIND_HMAC, secret="whsec_own"),
        pb.DeleteSubscriptionRequest(**who),
    ]
    assert [one.HasField("grace_s") for one in rig.notifier.asked[3:6]] == [False, True, False]


async def test_a_test_call(rig: NotifierRig) -> None:
    attempt = pb.Attempt(number=1, at_us=AT_US, duration_us=1_500, status=500, text="Status 500.", answer=b"No \xff")
    attempt.request = "POST https://example.com/sent"
    rig.notifier.answers["TestSubscription"] = pb.TestSubscriptionResponse(attempt=attempt)
    answer = await rig.send("POST", f"{ONE}/test", {"type": "message.delivered"})
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "number": 1,
            "at": AT,
            "duration_ms": 1.5,
            "status": 500,
            "error": None,
            "text": "Status 500.",
            "answer_text": "No \N{REPLACEMENT CHARACTER}",
            "request": "POST https://example.com/sent",
            "redelivery": 0,
        },
    )
    assert (await rig.send("POST", f"{ONE}/test")).status_code == 200
    who: Any = {"tenant_id": "acme", "id": SUBSCRIPTION_ID}
    assert rig.notifier.asked == [
        pb.TestSubscriptionRequest(**who, type="message.delivered"),
        pb.TestSubscriptionRequest(**who),
    ]
    rig.notifier.refusal = BackhaulError(Code.RATE_LIMITED, "Too many tests.", fix="Wait.", retry_after_s=7)
    refused = await rig.send("POST", f"{ONE}/test")
    rig.gateway.problem(refused, 429)
    assert refused.headers["retry-after"] == "7"


@pytest.mark.parametrize(("which", "number"), [("failed", 1), ("All", 2), ("never_attempted", 3)])
async def test_what_is_sent_again(rig: NotifierRig, which: str, number: Any) -> None:
    rig.notifier.answers["Redeliver"] = pb.RedeliverResponse(deliveries=1_234)
    body = {"which": which, "from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00+01:00"}
    about = {"channel": "Twilio", "message_id": "SM1", "event_id": "e1"}
    more = {"types": ["message.failed"], **about, "communication": "spring-sale", "rate_per_s": 20, "dry_run": True}
    answer = await rig.send("POST", f"{ONE}/redeliver", {**body, **more})
    assert (answer.status_code, answer.json()) == (202, {"deliveries": 1_234})
    assert rig.notifier.asked == [
        pb.RedeliverRequest(
            tenant_id="acme",
            subscription_id=SUBSCRIPTION_ID,
            which=number,
            from_us=1_793_491_200_000_000,
            to_us=1_793_574_000_000_000,
            types=["message.failed"],
            rate_per_s=20,
            dry_run=True,
            communication_id="spring-sale",
            **about,
        )
    ]


async def test_the_catalogue(rig: NotifierRig) -> None:
    types = [
        pb.EventType(
            type="message.delivered",
            title="Message delivered",
            description="It arrived.",
            kinds=[EVENT_KIND_DELIVERED],
            schema=b'{"type":"object"}',
            sample=b'{"type":"message.delivered"}',
        ),
        pb.EventType(type="audit.digest", schema=b"{}", sample=b"{}"),
    ]
    rig.notifier.answers["ListEventTypes"] = pb.ListEventTypesResponse(types=types)
    first, second = (await rig.get("/event-types")).json()["event_types"]
    assert first == {
        "type": "message.delivered",
        "title": "Message delivered",
        "description": "It arrived.",
        "kinds": ["delivered"],
        "json_schema": {"type": "object"},
        "sample": {"type": "message.delivered"},
    }
    assert (second["type"], second["kinds"]) == ("audit.digest", [])
    assert rig.notifier.asked == [pb.ListEventTypesRequest(tenant_id="acme")]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "types"),
        ({"types": ["*"], "url": "https://example.com"}, "url"),
        ({"types": ["*"], "http": {}}, "http.url"),
        ({"types": ["*"], "http": {"url": "\0"}}, "http.url"),
        ({"types": ["*"], "http": {"url": "u", "method": "PATCH"}}, "http.method"),
        ({"types": ["*"], "http": {"url": "u", "headers": [{"name": "n"}]}}, "http.headers[0].value"),
        ({"types": ["*"], "http": {"url": "u"}, "mail": {"addresses": []}}, "body"),
        (
            {"types": ["*"], "http": {"url": "u", "credentials": {"bearer_token": "t", "header": {"name": "n"}}}},
            "http.credentials",
        ),
        ({"types": ["*"], "filter": {"kinds": ["arrived"]}}, "filter.kinds[0]"),
        ({"types": ["*"], "payload": {"form": "xml"}}, "payload.form"),
        ({"types": ["*"], "payload": {"max_events": 101}}, "payload.max_events"),
        ({"types": ["*"], "policy": {"retry_after_s": ["5"]}}, "policy.retry_after_s[0]"),
        ({"types": ["*"], "ordering": "sometimes"}, "ordering"),
    ],
)
async def test_what_is_no_subscription(rig: NotifierRig, body: dict[str, Any], field: str) -> None:
    problem = rig.gateway.problem(await rig.send("POST", "/subscriptions", body), 422, field)
    assert "item after validation" not in problem["errors"][0]["message"], "a library's own words"
    assert rig.notifier.asked == []


async def test_refusals_are_named_as_the_request_has_it(rig: NotifierRig) -> None:
    rig.notifier.refusal = BackhaulError(
        Code.INVALID_ARGUMENT,
        "It is not valid.",
        violations=[
            Violation("definition.http.url", "It leads to a private address.", "Use another."),
            Violation("definition", "It has no destination.", "Pass http or mail."),
        ],
    )
    problem = rig.gateway.problem(await rig.send("POST", "/subscriptions", {"types": ["*"]}), 422, "http.url")
    assert [error["field"] for error in problem["errors"]] == ["http.url", "body"]
    for code, field, status, named in (
        (Code.NOT_FOUND, "id", 404, "subscription_id"),
        (Code.FAILED_PRECONDITION, "revision", 409, "revision"),
        (Code.CONFLICT, "idempotency_key", 409, "Idempotency-Key"),
    ):
        rig.notifier.refusal = BackhaulError(code, "No.", field=field, fix="Change it.")
        rig.gateway.problem(await rig.send("PUT", ONE, {"types": ["*"]}), status, named)
    rig.notifier.refusal = BackhaulError(Code.INVALID_ARGUMENT, "from_us is late.", field="from_us", fix="Earlier.")
    body = {"which": "all", "from": "2026-11-01T00:00:00Z"}
    problem = rig.gateway.problem(await rig.send("POST", f"{ONE}/redeliver", body), 422, "from")
    assert problem["detail"] == "from is late."
    rig.notifier.refusal = BackhaulError(Code.INVALID_ARGUMENT, "No token.", field="page_token", fix="None.")
    rig.gateway.problem(await rig.get("/subscriptions", cursor="wrong"), 422, "cursor")
    rig.notifier.refusal = unavailable("The notifier")
    problem = rig.gateway.problem(await rig.send("DELETE", ONE), 503)
    assert "look at it" in problem["errors"][0]["fix"]
    problem = rig.gateway.problem(await rig.send("POST", "/subscriptions", {"types": ["*"]}), 503)
    assert "Idempotency-Key" in problem["errors"][0]["fix"]


@pytest.mark.parametrize("path", ["/subscriptions/1", "/subscriptions/sub_" + "G" * 24])
async def test_what_is_no_id(rig: NotifierRig, path: str) -> None:
    rig.gateway.problem(await rig.get(path), 422, "subscription_id")
    assert rig.notifier.asked == []


async def test_nobody_asks_without_a_key(rig: NotifierRig) -> None:
    for path in ("/v1/event-types", "/v1/subscriptions", f"/v1{ONE}"):
        rig.gateway.problem(await rig.gateway.client.get(path), 401)
    rig.gateway.problem(await rig.gateway.client.delete(f"/v1{ONE}"), 401)
    rig.gateway.problem(await rig.gateway.client.post("/v1/subscriptions", json=BODY), 401)
    assert rig.notifier.asked == []
