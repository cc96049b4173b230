"""What the status says of a tenant's subscriptions, as the notifier tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_local.nats_server import NatsServer
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from gateway_rig import GatewayFactory
from notifier_rig import AT_US, NotifierRig, notifying

NOBODY_SAYS = {
    "active": None,
    "paused": None,
    "disabled": None,
    "failing": None,
    "waiting": None,
    "held": None,
    "failed": None,
    "waiting_since": None,
}
AWAY = BackhaulError(Code.UNAVAILABLE, "MongoDB is away.")


@pytest.fixture
async def rig(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[NotifierRig]:
    async with notifying(gateway_factory, fresh_nats.uri) as made:
        await made.gateway.channel()
        yield made


async def status(rig: NotifierRig) -> dict[str, Any]:
    answer = await rig.gateway.client.get("/api/status?channelLabel=Twilio", headers=rig.headers)
    assert answer.status_code == 200, answer.text
    part: dict[str, Any] = answer.json()["parts"]["subscriptions"]
    return part


async def test_it_counts_what_waits_and_names_what_backhaul_has_stopped(rig: NotifierRig) -> None:
    state = pb.GetStateResponse(active=2, paused=1, failing=1, waiting=7, held=2, failed=3, oldest_waiting_at_us=AT_US)
    rig.notifier.answers["GetState"] = state
    counted = {
        "active": 2,
        "paused": 1,
        "disabled": 0,
        "failing": 1,
        "waiting": 7,
        "held": 2,
        "failed": 3,
        "waiting_since": "2023-11-14T22:13:20Z",
    }
    # That the tenant has paused one, or that an attempt has failed, is no error.
    assert await status(rig) == {"state": "OK", "detail": None, **counted}
    state.problem = "The subscription CRM is paused: it has failed for a day."
    assert await status(rig) == {"state": "Error", "detail": state.problem, **counted}
    assert rig.notifier.asked == [pb.GetStateRequest(tenant_id="acme")] * 2


async def test_a_notifier_that_is_away_is_an_error_for_who_has_subscriptions(rig: NotifierRig) -> None:
    rig.notifier.refusal = AWAY
    assert await status(rig) == {"state": "OK", "detail": None, **NOBODY_SAYS}

    rig.notifier.refusal, rig.notifier.answers["GetState"] = None, pb.GetStateResponse(active=1)
    assert (await status(rig))["active"] == 1
    rig.notifier.refusal = AWAY
    assert await status(rig) == {"state": "Error", "detail": "MongoDB is away.", **NOBODY_SAYS}

    rig.notifier.refusal, rig.notifier.answers["GetState"] = None, pb.GetStateResponse()
    assert (await status(rig))["active"] == 0
    rig.notifier.refusal = AWAY
    assert (await status(rig))["state"] == "OK"
