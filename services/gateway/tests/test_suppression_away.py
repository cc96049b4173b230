"""What callers of ``/v1/suppressions`` are told while suppression cannot answer."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc import client
from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory
from suppression_rig import suppressing

NUMBER = "+15005550001"


QUESTIONS: list[tuple[str, Any]] = [
    ("/check", {"address": NUMBER}),
    ("/check-batch", {"items": [{"address": NUMBER}]}),
]
STATEMENTS: list[tuple[str, Any]] = [
    ("", {"address": NUMBER, "kind": "stop"}),
    ("/lift", {"address": NUMBER, "kind": "manual"}),
    ("/reactivate", {"address": NUMBER}),
]
READS = ("", "/address?address=1", "/changes", "/export")


async def test_nobody_is_told_that_they_may_while_suppression_cannot_tell(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "DEADLINE_S", 1.0)
    async with suppressing(gateway_factory, fresh_nats.uri) as rig:
        rig.suppression.refusal = BackhaulError(
            Code.UNAVAILABLE, "This copy cannot vouch for what it holds.", fix="Ask again.", retry_after_s=2
        )
        for path, body in (*QUESTIONS, *STATEMENTS):
            answer = await rig.post(path, body)
            rig.gateway.problem(answer, 503)
            assert answer.headers["retry-after"] == "2"
            assert "allowed" not in answer.text
        rig.suppression.answers["Watch"] = []
        rig.gateway.problem(await rig.get("/changes", wait=1), 503)


async def test_where_suppression_is_away_its_callers_hear_what_that_means_for_them(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_suppression_target="127.0.0.1:9") as gateway:
        acme = await gateway.tenant("alone")
        key: dict[str, Any] = {"X-Api-Key": acme.api_key}
        operator = "/admin/v1/tenants/alone/suppressions"
        sent: list[tuple[str, Any, str, dict[str, Any]]] = [
            *((f"/v1/suppressions{path}", body, "Do not send", key) for path, body in QUESTIONS),
            *((f"/v1/suppressions{path}", body, "Idempotency-Key", key) for path, body in STATEMENTS),
            *((path, {"address": NUMBER}, "Idempotency-Key", gateway.admin) for path in (operator, f"{operator}/lift")),
        ]
        for path, body, means, headers in sent:
            answer = await gateway.client.post(path, json=body, headers=headers)
            problem = gateway.problem(answer, 503)
            assert problem["detail"] == "Suppression is away."
            assert means in problem["errors"][0]["fix"]
            assert int(answer.headers["retry-after"]) >= 1
        for path in READS:
            answer = await gateway.client.get(f"/v1/suppressions{path}", headers=key)
            assert gateway.problem(answer, 503)["detail"] == "Suppression is away."


async def test_a_question_that_is_not_answered_in_time_is_no_yes_either(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "DEADLINE_S", 0.2)
    async with suppressing(gateway_factory, fresh_nats.uri) as rig:
        rig.suppression.may_answer.clear()
        for path, body in QUESTIONS:
            problem = rig.gateway.problem(await rig.post(path, body), 504)
            assert problem["detail"] == "Suppression did not answer in time."
            assert "Do not send" in problem["errors"][0]["fix"]
