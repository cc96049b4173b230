"""``/v1/deliveries`` over a notifier that answers what it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_local.nats_server import NatsServer
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from gateway_rig import GatewayFactory
from notifier_rig import AT, AT_US, DELIVERY_ID, SUBSCRIPTION_ID, NotifierRig, notifying

FAILED = pb.Attempt(number=1, at_us=AT_US, duration_us=9_000_250, error="timeout", text="No answer in 9 s.")
TOLD = pb.Attempt(number=2, at_us=AT_US, duration_us=12_000, status=200, text="Status 200.", answer=b"ok")
DELIVERY = pb.Delivery(
    id=DELIVERY_ID,
    subscription_id=SUBSCRIPTION_ID,
    webhook_id="msg_1",
    type="message.delivered",
    event_id="e1",
    revision=2,
    channel="twilio",
    message_id="SM1",
    state=pb.DELIVERY_STATE_DELIVERED,
    attempts=2,
    created_at_us=AT_US,
    ended_at_us=AT_US,
    last_attempt=TOLD,
)
TOLD_SHOWN: dict[str, Any] = {
    "number": 2,
    "at": AT,
    "duration_ms": 12.0,
    "status": 200,
    "error": None,
    "text": "Status 200.",
    "answer_text": "ok",
    "request": "",
    "redelivery": 0,
}
FAILED_SHOWN = {
    **TOLD_SHOWN,
    "number": 1,
    "duration_ms": 9_000.25,
    "status": 0,
    "error": "timeout",
    "text": "No answer in 9 s.",
    "answer_text": "",
}
SHOWN: dict[str, Any] = {
    "id": DELIVERY_ID,
    "subscription_id": SUBSCRIPTION_ID,
    "webhook_id": "msg_1",
    "type": "message.delivered",
    "event_id": "e1",
    "revision": 2,
    "channel": "twilio",
    "message_id": "SM1",
    "communication_id": None,
    "state": "delivered",
    "attempts": 2,
    "created_at": AT,
    "next_attempt_at": None,
    "when_resumed": False,
    "ended_at": AT,
    "last_attempt": TOLD_SHOWN,
}


@pytest.fixture
async def rig(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[NotifierRig]:
    async with notifying(gateway_factory, fresh_nats.uri) as found:
        yield found


async def test_deliveries_are_listed(rig: NotifierRig) -> None:
    waiting = pb.Delivery(state=pb.DELIVERY_STATE_WAITING, next_attempt_at_us=AT_US)
    whole = pb.Delivery(history=[DELIVERY.last_attempt])
    whole.MergeFrom(DELIVERY)
    rig.notifier.answers["ListDeliveries"] = pb.ListDeliveriesResponse(deliveries=[waiting, whole], next_page_token="t")
    params: dict[str, Any] = {"from": "2026-11-01T00:00:00Z", "limit": 5, "cursor": "c"}
    page = await rig.get(
        "/deliveries",
        subscription_id=SUBSCRIPTION_ID,
        state="Failed",
        type="message.failed",
        event_id="e1",
        channel="Twilio",
        message_id="SM1",
        communication="spring-sale",
        never_attempted="true",
        undelivered="true",
        reason="5xx",
        history="true",
        to="2026-11-02T00:00:00+01:00",
        **params,
    )
    assert page.status_code == 200
    first, second = page.json()["deliveries"]
    assert (second, page.json()["next_cursor"]) == ({**SHOWN, "history": [TOLD_SHOWN]}, "t")
    assert first["history"] == []
    assert (first["state"], first["next_attempt_at"], first["last_attempt"]) == ("waiting", AT, None)
    await rig.get("/deliveries")
    assert rig.notifier.asked == [
        pb.ListDeliveriesRequest(
            tenant_id="acme",
            subscription_id=SUBSCRIPTION_ID,
            state=pb.DELIVERY_STATE_FAILED,
            type="message.failed",
            event_id="e1",
            channel="Twilio",
            message_id="SM1",
            communication_id="spring-sale",
            never_attempted=True,
            undelivered=True,
            reason="5xx",
            with_history=True,
            from_us=1_793_491_200_000_000,
            to_us=1_793_574_000_000_000,
            page_size=5,
            page_token="c",
        ),
        pb.ListDeliveriesRequest(tenant_id="acme", page_size=50),
    ]
    rig.gateway.problem(await rig.get("/deliveries", state="lost"), 422, "state")
    rig.gateway.problem(await rig.get("/deliveries", status="failed"), 422, "status")
    rig.notifier.refusal = BackhaulError(Code.INVALID_ARGUMENT, "No token.", field="page_token", fix="None.")
    rig.gateway.problem(await rig.get("/deliveries", cursor="wrong"), 422, "cursor")
    rig.notifier.refusal = BackhaulError(Code.INVALID_ARGUMENT, "Too many.", field="page_size", fix="Ask for fewer.")
    rig.gateway.problem(await rig.get("/deliveries", history="true", limit=51), 422, "limit")
    rig.notifier.refusal = BackhaulError(Code.INVALID_ARGUMENT, "Which channel?", field="channel", fix="Name it.")
    rig.gateway.problem(await rig.get("/deliveries", message_id="SM1"), 422, "channel")


async def test_one_with_its_history(rig: NotifierRig) -> None:
    rig.notifier.answers["GetDelivery"] = pb.GetDeliveryResponse(delivery=DELIVERY, attempts=[FAILED, TOLD])
    answer = await rig.get(f"/deliveries/{DELIVERY_ID}")
    assert (answer.status_code, answer.json()) == (200, {**SHOWN, "history": [FAILED_SHOWN, TOLD_SHOWN]})
    assert rig.notifier.asked == [pb.GetDeliveryRequest(tenant_id="acme", id=DELIVERY_ID)]
    rig.gateway.problem(await rig.get("/deliveries/1"), 422, "delivery_id")
    rig.notifier.refusal = BackhaulError(Code.NOT_FOUND, "There is no such delivery.", field="id", fix="Another.")
    rig.gateway.problem(await rig.get(f"/deliveries/{DELIVERY_ID}"), 404, "delivery_id")


async def test_one_is_sent_again(rig: NotifierRig) -> None:
    rig.notifier.answers["Redeliver"] = pb.RedeliverResponse(deliveries=1)
    answer = await rig.send("POST", f"/deliveries/{DELIVERY_ID}/redeliver")
    assert (answer.status_code, answer.json()) == (202, {"deliveries": 1})
    assert rig.notifier.asked == [pb.RedeliverRequest(tenant_id="acme", delivery_id=DELIVERY_ID)]
    rig.notifier.refusal = BackhaulError(Code.FAILED_PRECONDITION, "It waits.", field="delivery_id", fix="Wait.")
    rig.gateway.problem(await rig.send("POST", f"/deliveries/{DELIVERY_ID}/redeliver"), 409, "delivery_id")
    rig.notifier.refusal = unavailable("The notifier")
    problem = rig.gateway.problem(await rig.send("POST", f"/deliveries/{DELIVERY_ID}/redeliver"), 503)
    assert "look at it" in problem["errors"][0]["fix"]


async def test_nobody_asks_without_a_key(rig: NotifierRig) -> None:
    for path in ("/v1/deliveries", f"/v1/deliveries/{DELIVERY_ID}"):
        rig.gateway.problem(await rig.gateway.client.get(path), 401)
    rig.gateway.problem(await rig.gateway.client.post(f"/v1/deliveries/{DELIVERY_ID}/redeliver"), 401)
    assert rig.notifier.asked == []
