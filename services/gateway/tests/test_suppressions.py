"""``/v1/suppressions``: what suppression is asked for a tenant, and how its answers are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_gateway.reads import checkbatch
from backhaul_gateway.twins.turns import finished
from backhaul_proto.event.v1.event_pb2 import ADDRESS_FAMILY_EMAIL, ADDRESS_FAMILY_PHONE, ADDRESS_FAMILY_UNSPECIFIED
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from suppression_rig import ROW, SHOWN, Rig, change

NUMBER = "+15005550001"


async def test_an_opt_out_from_anywhere_is_added_by_the_key_that_was_shown(rig: Rig) -> None:
    rig.suppression.answers["Add"] = pb.AddResponse(suppression=ROW, changed=True)
    body = {
        "address": NUMBER,
        "family": "phone",
        "kind": "stop",
        "scope": {"kind": "messaging_service", "id": "MG1"},
        "source": "web",
        "effective_at": "2026-11-01T00:00:00.000001+01:00",
        "evidence": {"source": "email", "at": "2026-11-01T00:00:00Z", "reference": "ticket 4711", "text": "No more."},
        "note": "by hand",
    }
    answer = await rig.post("", body, idempotency_key="once")
    assert (answer.status_code, answer.json()) == (201, {"suppression": SHOWN, "changed": True})
    assert rig.suppression.asked == [
        pb.AddRequest(
            tenant_id="acme",
            address=NUMBER,
            family=ADDRESS_FAMILY_PHONE,
            kind=pb.SUPPRESSION_KIND_STOP,
            scope=pb.Scope(kind=pb.SCOPE_KIND_MESSAGING_SERVICE, id="MG1"),
            source=pb.SOURCE_WEB,
            effective_at_us=1_793_487_600_000_001,
            evidence=pb.Evidence(
                source=pb.SOURCE_EMAIL, at_us=1_793_491_200_000_000, reference="ticket 4711", text="No more."
            ),
            note="by hand",
            idempotency_key="once",
            actor=pb.ACTOR_TENANT,
            author=rig.author,
        )
    ]
    rig.suppression.answers["Add"] = pb.AddResponse(suppression=ROW)
    answer = await rig.post("", {"address": "a@example.com", "kind": "manual"})
    assert (answer.status_code, answer.json()["changed"]) == (200, False)
    least = rig.suppression.asked[-1]
    assert (least.family, least.scope.kind, least.source) == (
        ADDRESS_FAMILY_UNSPECIFIED,
        pb.SCOPE_KIND_ALL,
        pb.SOURCE_API,
    )
    assert (least.effective_at_us, least.idempotency_key, least.HasField("evidence")) == (0, "", False)


async def test_the_author_is_the_key_whichever_header_carries_it(rig: Rig) -> None:
    rig.suppression.answers["Add"] = pb.AddResponse(suppression=ROW)
    key, path, body = rig.tenant.api_key, "/v1/suppressions", {"address": NUMBER, "kind": "manual"}
    ways: list[dict[str, Any]] = [
        {"headers": {"X-Api-Key": key}},
        {"headers": {"Authorization": f"Bearer {key}"}},
        {"auth": ("acme", key)},
    ]
    for options in ways:
        assert (await rig.gateway.client.post(path, json=body, **options)).status_code == 200
        assert rig.suppression.asked[-1].author == rig.author
    # Nobody acts for somebody else.
    for name in ("author", "actor", "tenant_id"):
        rig.gateway.problem(await rig.post("", {**body, name: "operator"}), 422, name)
    assert len(rig.suppression.asked) == 3


async def test_a_lift_and_a_reactivation(rig: Rig) -> None:
    rig.suppression.answers["Lift"] = pb.LiftResponse(suppression=ROW, changed=True)
    evidence = {"source": "web", "at": "2026-11-01T00:00:00Z", "reference": "form 1"}
    body = {"address": NUMBER, "kind": "stop", "evidence": evidence, "note": "They called."}
    answer = await rig.post("/lift", body, idempotency_key="lift")
    assert (answer.status_code, answer.json()) == (200, {"suppression": SHOWN, "changed": True})
    rig.suppression.answers["Reactivate"] = pb.ReactivateResponse(suppressions=[ROW])
    answer = await rig.post("/reactivate", {"address": NUMBER, "note": "They wrote."}, idempotency_key="again")
    assert (answer.status_code, answer.json()) == (200, {"suppressions": [SHOWN]})
    assert rig.suppression.asked == [
        pb.LiftRequest(
            tenant_id="acme",
            address=NUMBER,
            kind=pb.SUPPRESSION_KIND_STOP,
            scope=pb.Scope(kind=pb.SCOPE_KIND_ALL),
            evidence=pb.Evidence(source=pb.SOURCE_WEB, at_us=1_793_491_200_000_000, reference="form 1"),
            note="They called.",
            idempotency_key="lift",
            actor=pb.ACTOR_TENANT,
            author=rig.author,
        ),
        pb.ReactivateRequest(
            tenant_id="acme",
            address=NUMBER,
            note="They wrote.",
            idempotency_key="again",
            actor=pb.ACTOR_TENANT,
            author=rig.author,
        ),
    ]


async def test_a_refused_lift_is_409_and_names_the_rule_in_words_of_the_request(rig: Rig) -> None:
    rig.suppression.refusal = BackhaulError(
        Code.FAILED_PRECONDITION,
        "stop_by_recipient: A STOP is lifted by the person's own START.",
        violations=[Violation("evidence.at_us", "It is missing.", "Pass evidence: source, at_us and reference.")],
    )
    problem = rig.gateway.problem(await rig.post("/lift", {"address": NUMBER, "kind": "stop"}), 409, "evidence.at")
    assert (problem["code"], problem["detail"][:18]) == ("failed_precondition", "stop_by_recipient:")
    assert problem["errors"][0]["fix"] == "Pass evidence: source, at and reference."


async def test_fields_are_named_as_the_request_has_them(rig: Rig) -> None:
    def refused(field: str) -> None:
        rig.suppression.refusal = BackhaulError(Code.INVALID_ARGUMENT, "No.", field=field, fix="Mend it.")

    add = {"address": NUMBER, "kind": "stop"}
    for field, said in (("effective_at_us", "effective_at"), ("idempotency_key", "Idempotency-Key"), ("scope.id",) * 2):
        refused(field)
        rig.gateway.problem(await rig.post("", add), 422, said)
    for field, said in (("sending.group", "group"), ("address", "address")):
        refused(field)
        rig.gateway.problem(await rig.post("/check", {"address": NUMBER}), 422, said)
    for field, said in (("scope.id", "scope_id"), ("page_token", "cursor")):
        refused(field)
        rig.gateway.problem(await rig.get("", scope_kind="group", scope_id="1"), 422, said)


BAD_BODIES: list[tuple[str, dict[str, Any], str]] = [
    ("", {"kind": "stop"}, "address"),
    ("", {"address": NUMBER}, "kind"),
    ("", {"address": NUMBER, "kind": "nothing"}, "kind"),
    ("", {"address": NUMBER, "kind": "stop", "family": "fax"}, "family"),
    ("", {"address": NUMBER, "kind": "stop", "effective_at": "2026-11-01T00:00:00"}, "effective_at"),
    ("", {"address": NUMBER, "kind": "stop", "scope": {"kind": "some"}}, "scope.kind"),
    ("", {"address": NUMBER, "kind": "stop", "scope": {"knd": "all"}}, "scope.knd"),
    ("", {"address": f"{NUMBER}\x00", "kind": "stop"}, "address"),
    ("", {"address": "1" * 513, "kind": "stop"}, "address"),
    ("/lift", {"address": NUMBER, "kind": "stop", "evidence": {"source": "web"}}, "evidence.at"),
    ("/lift", {"address": NUMBER, "kind": "stop", "lifts": True}, "lifts"),
    ("/reactivate", {"address": NUMBER, "kind": "hard_bounce"}, "kind"),
    ("/check", {"address": NUMBER, "purpose": "spam"}, "purpose"),
    ("/check-batch", {"purpose": "marketing"}, "items"),
    ("/check-batch", {"items": [{"address": 1}]}, "items[0].address"),
    ("/check-batch", {"items": [{}]}, "items[0]"),
    ("/check-batch", {"items": [{"address": NUMBER, "correlation_id": "x" * 129}]}, "items[0].correlation_id"),
    ("/check-batch", {"items": [{"address": NUMBER, "other": 1}]}, "items[0]"),
    ("/check-batch", {"items": [{"address": NUMBER}] * 10_001}, "items"),
    ("/check-batch", {"items": [], "purpose": "spam"}, "purpose"),
    ("/check-batch", {"items": [], "family": "fax"}, "family"),
    ("/check-batch", {"items": [], "tenant_id": "other"}, "tenant_id"),
    ("/check-batch", {"items": "all"}, "items"),
]


async def test_what_does_not_fit_is_named(rig: Rig, subtests: pytest.Subtests) -> None:
    for path, body, field in BAD_BODIES:
        with subtests.test(path=path, field=field):
            rig.gateway.problem(await rig.post(path, body), 422, field)
    for path in ("", "/lift", "/reactivate", "/check", "/check-batch"):
        for content in (
            b"{",
            b"\xff",
            b'{"address": "\\ud800"}',
            b'{"address": "\xed\xa0\x80"}',
            b'{"items": [{"address": "\xff"}]}',
            b"[" * 50_000,
            b"[]",
            b"null",
            b'"x"',
        ):
            with subtests.test(path=path, content=content[:12]):
                answer = await rig.gateway.client.post(
                    f"/v1/suppressions{path}",
                    content=content,
                    headers={**rig.headers, "Content-Type": "application/json"},
                )
                assert answer.status_code in (400, 422), answer.text
                rig.gateway.problem(answer, answer.status_code)
    long = await rig.post("", {"address": NUMBER, "kind": "stop"}, idempotency_key="x" * 256)
    rig.gateway.problem(long, 422, "Idempotency-Key")
    assert rig.suppression.asked == []


async def test_who_tells_of_something_has_not_heard_of_it_by_an_event(rig: Rig) -> None:
    """Events are recorded by themselves, and suppression takes them for no caller's source."""
    taken = ["web", "agent", "email", "voice", "letter", "api", "file"]
    evidence = {"source": "Event", "at": "2026-11-01T00:00:00Z", "reference": "form 1"}
    said: dict[str, Any] = {"address": NUMBER, "kind": "stop"}
    refused = [
        ("", {**said, "source": "event"}, "source"),
        ("", {**said, "evidence": evidence}, "evidence.source"),
        ("/lift", {**said, "evidence": evidence}, "evidence.source"),
    ]
    for path, body, field in refused:
        problem = rig.gateway.problem(await rig.post(path, body), 422, field)
        assert f"one of: {', '.join(taken)}." in problem["errors"][0]["message"]
    assert rig.suppression.asked == []
    schemas = (await rig.gateway.client.get("/openapi.json")).json()["components"]["schemas"]
    assert schemas["AddIn"]["properties"]["source"]["enum"] == taken
    assert schemas["EvidenceIn"]["properties"]["source"]["enum"] == taken


async def test_a_check_says_what_it_knows_of_the_message(rig: Rig) -> None:
    blocking = pb.Blocking(
        suppression_id="1" * 32,
        kind=pb.SUPPRESSION_KIND_UNSUBSCRIBE,
        scope=pb.Scope(kind=pb.SCOPE_KIND_GROUP, id="news"),
        since_us=1_700_000_000_000_001,
        event_id="e" * 32,
    )
    rig.suppression.answers["Check"] = pb.CheckResponse(verdict=pb.VERDICT_SUPPRESSED, blocking=[blocking])
    body = {"address": "a@example.com", "purpose": "marketing", "messaging_service": "", "group": "news"}
    answer = await rig.post("/check", body)
    assert answer.json() == {
        "verdict": "suppressed",
        "blocking": [
            {
                "suppression_id": "1" * 32,
                "kind": "unsubscribe",
                "scope": {"kind": "group", "id": "news"},
                "since": "2023-11-14T22:13:20.000001Z",
                "event_id": "e" * 32,
            }
        ],
    }
    # What is absent may be any, and what is empty is none.
    sending = pb.Sending(purpose=pb.PURPOSE_MARKETING, messaging_service="", group="news")
    assert rig.suppression.asked == [pb.CheckRequest(tenant_id="acme", address="a@example.com", sending=sending)]
    assert not rig.suppression.asked[0].sending.HasField("sender")
    rig.suppression.answers["Check"] = pb.CheckResponse(verdict=pb.VERDICT_ALLOWED)
    assert (await rig.post("/check", {"address": NUMBER})).json() == {"verdict": "allowed", "blocking": []}
    rig.suppression.answers["Check"] = pb.CheckResponse()
    assert (await rig.post("/check", {"address": NUMBER})).json()["verdict"] == "unknown"


async def test_a_batch_is_answered_in_its_order(rig: Rig) -> None:
    error = pb.ItemError(field="address", message="It is no address.", fix="Send another.")
    rig.suppression.answers["CheckBatch"] = pb.CheckBatchResponse(
        results=[
            pb.CheckResult(verdict=pb.VERDICT_ALLOWED, correlation_id="first"),
            pb.CheckResult(verdict=pb.VERDICT_INVALID, error=error),
        ]
    )
    items = [{"address": NUMBER, "correlation_id": "first"}, {"address": "nobody"}]
    answer = await rig.post("/check-batch", {"items": items, "family": "phone", "sender": "+1"})
    assert answer.json() == {
        "results": [
            {"correlation_id": "first", "verdict": "allowed", "blocking": [], "error": None},
            {
                "correlation_id": "",
                "verdict": "invalid",
                "blocking": [],
                "error": {"field": "address", "message": "It is no address.", "fix": "Send another."},
            },
        ]
    }
    assert rig.suppression.asked == [
        pb.CheckBatchRequest(
            tenant_id="acme",
            items=[pb.CheckItem(address=NUMBER, correlation_id="first"), pb.CheckItem(address="nobody")],
            family=ADDRESS_FAMILY_PHONE,
            sending=pb.Sending(sender="+1"),
        )
    ]


async def test_ten_thousand_addresses_are_one_batch(rig: Rig) -> None:
    results = [pb.CheckResult(verdict=pb.VERDICT_ALLOWED)] * 10_000
    rig.suppression.answers["CheckBatch"] = pb.CheckBatchResponse(results=results)
    items = [{"address": f"+1500{number:07}", "correlation_id": "é" * 60} for number in range(10_000)]
    answer = await rig.post("/check-batch", {"items": items})
    assert (answer.status_code, len(answer.json()["results"])) == (200, 10_000)
    assert [item.address for item in rig.suppression.asked[0].items] == [item["address"] for item in items]
    padding = " " * checkbatch.MAX_BATCH_BYTES
    large = await rig.gateway.client.post(
        "/v1/suppressions/check-batch", content=f'{{"items": []{padding}}}', headers=rig.headers
    )
    rig.gateway.problem(large, 413, "body")


async def test_the_list_takes_every_filter(rig: Rig) -> None:
    rig.suppression.answers["List"] = pb.ListResponse(suppressions=[ROW], next_page_token="more")
    answer = await rig.get(
        "",
        family="email",
        kind="Complaint",
        origin="provider",
        scope_kind="sender",
        scope_id="+1500",
        standing="any",
        **{"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"},
        limit=7,
        cursor="here",
    )
    assert answer.json() == {"suppressions": [SHOWN], "next_cursor": "more"}
    assert rig.suppression.asked == [
        pb.ListRequest(
            tenant_id="acme",
            family=ADDRESS_FAMILY_EMAIL,
            kind=pb.SUPPRESSION_KIND_COMPLAINT,
            origin=pb.ORIGIN_PROVIDER,
            scope=pb.Scope(kind=pb.SCOPE_KIND_SENDER, id="+1500"),
            standing=pb.STANDING_ANY,
            from_us=1_793_491_200_000_000,
            to_us=1_793_577_600_000_000,
            page_size=7,
            page_token="here",
        )
    ]
    assert (await rig.get("")).status_code == 200
    assert not rig.suppression.asked[-1].HasField("scope")
    for name in ("family", "kind", "origin", "scope_kind", "standing"):
        rig.gateway.problem(await rig.get("", **{name: "nonsense"}), 422, name)
    rig.gateway.problem(await rig.get("", address=NUMBER), 422, "address")


@pytest.mark.parametrize("sent", ["%2B15005550001", "+15005550001"])
async def test_all_of_an_address_with_its_plus_as_it_is_or_escaped(rig: Rig, sent: str) -> None:
    rig.suppression.answers["Get"] = pb.GetResponse(
        address=NUMBER, family=ADDRESS_FAMILY_PHONE, suppressions=[ROW], history=[change(7)], next_page_token="more"
    )
    url = f"/v1/suppressions/address?address={sent}&family=phone&limit=3&cursor=here"
    answer = await rig.gateway.client.get(url, headers=rig.headers)
    found = answer.json()
    assert (found["address"], found["family"], found["next_cursor"]) == (NUMBER, "phone", "more")
    assert found["suppressions"] == [SHOWN]
    (only,) = found["history"]
    assert (only["position"], only["suppression"], only["fact"]["word"]) == (7, SHOWN, "STOP")
    assert rig.suppression.asked == [
        pb.GetRequest(tenant_id="acme", address=NUMBER, family=ADDRESS_FAMILY_PHONE, page_size=3, page_token="here")
    ]
    rig.gateway.problem(await rig.get("/address"), 422, "address")


def test_a_large_batch_is_taken_apart_in_turns() -> None:
    body = json.dumps({"items": [{"address": NUMBER}] * 10_000}).encode()
    assert len(list(checkbatch.batch_of(body, "acme"))) >= 100
    assert len(finished(checkbatch.batch_of(body, "acme")).items) == 10_000
