"""``/v1/audits/recount`` over an audit service that answers what it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from audit_rig import AuditRig, auditing
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_local.nats_server import NatsServer
from backhaul_proto.audit.v1 import audit_pb2 as pb
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_DELIVERED, EVENT_KIND_INBOUND
from gateway_rig import GatewayFactory

LAST = pb.RecountResponse(
    events=7,
    done=True,
    kinds=[
        pb.KindRecount(kind=EVENT_KIND_DELIVERED, counted=6, listed=5, audited=2),
        pb.KindRecount(kind=EVENT_KIND_INBOUND, counted=2, listed=2),
    ],
    not_asked=2,
    waiting=2,
    missing=1,
    expired=1,
    missing_event_ids=["ab" * 16],
    channels_not_asked=["twilio"],
)
SHOWN: dict[str, Any] = {
    "equal": False,
    "events": 7,
    "kinds": [
        {"kind": "delivered", "counted": 6, "listed": 5, "audited": 2},
        {"kind": "inbound", "counted": 2, "listed": 2, "audited": 0},
    ],
    "not_asked": 2,
    "channels_not_asked": ["twilio"],
    "waiting": 2,
    "missing": 1,
    "missing_event_ids": ["ab" * 16],
    "expired": 1,
    "moving": False,
    "done": True,
}


@pytest.fixture
async def rig(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[AuditRig]:
    async with auditing(gateway_factory, fresh_nats.uri) as found:
        found.audit.answers["Recount"] = [pb.RecountResponse(events=5), LAST]
        yield found


async def test_a_recount_as_one_answer(rig: AuditRig) -> None:
    answer = await rig.get("/recount", communication_id="spring & more")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == SHOWN
    assert rig.audit.asked == [pb.RecountRequest(tenant_id="acme", communication_id="spring & more")]
    for wrong in ({}, {"communication_id": ""}, {"communication_id": "x" * 513}, {"communication_id": "\0"}):
        rig.gateway.problem(await rig.get("/recount", **wrong), 422, "communication_id")
    # What was not counted to its end is no answer.
    rig.audit.answers["Recount"] = [pb.RecountResponse(events=5)]
    rig.gateway.problem(await rig.get("/recount", communication_id="spring"), 503)


async def test_a_recount_line_by_line(rig: AuditRig) -> None:
    answer = await rig.get("/recount", communication_id="spring", progress="true")
    assert answer.headers["content-type"] == "application/x-ndjson"
    first, last = map(json.loads, answer.text.splitlines())
    assert (first["events"], first["done"], last) == (5, False, SHOWN)
    rig.audit.answers["Recount"] = [pb.RecountResponse(events=5)]
    rig.audit.breaks = unavailable("The normalizer")
    with pytest.raises(httpx.RemoteProtocolError):
        await rig.get("/recount", communication_id="spring", progress="true")


@pytest.mark.parametrize("progress", ["true", "false"])
async def test_why_nothing_was_counted(rig: AuditRig, progress: str) -> None:
    asked = {"communication_id": "spring", "progress": progress}
    rig.audit.refusal = BackhaulError(Code.NOT_FOUND, "No event has named it.", field="communication_id", fix="Check.")
    rig.gateway.problem(await rig.get("/recount", **asked), 404, "communication_id")
    rig.audit.refusal = unavailable("The normalizer")
    rig.gateway.problem(await rig.get("/recount", **asked), 503)


async def test_who_hangs_up_ends_the_recount(rig: AuditRig) -> None:
    rig.audit.answers["Recount"] = [pb.RecountResponse(events=5)]
    rig.audit.hangs = True
    path, params = "/v1/audits/recount", {"communication_id": "spring", "progress": "true"}
    async with rig.gateway.client.stream("GET", path, params=params, headers=rig.headers):
        await rig.audit.hanging.wait()
        assert not rig.audit.ended.is_set()
    async with asyncio.timeout(60):
        await rig.audit.ended.wait()
