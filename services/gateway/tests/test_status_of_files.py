"""What the status of a channel says of its audit files."""

from __future__ import annotations

from typing import Any

from audit_rig import auditing
from backhaul_local.nats_server import NatsServer
from backhaul_proto.audit.v1 import audit_pb2 as pb
from gateway_rig import GatewayFactory, Running

NOTHING: dict[str, Any] = {
    "state": "OK",
    "detail": None,
    "asked": False,
    "waiting_since": None,
    "read_to": None,
    "weaknesses": [],
    "locked_files": 0,
    "locked_until": None,
}


async def part(gateway: Running, api_key: str) -> dict[str, Any]:
    """What is said of the audit files of the channel Twilio. Nothing else depends on it."""
    answer = await gateway.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": api_key})
    assert answer.status_code == 200, answer.text
    parts: dict[str, Any] = answer.json()["parts"]
    others = {name: one for name, one in parts.items() if name not in ("audit", "object_storage")}
    assert {name: one for name, one in others.items() if one["state"] != "OK"} == {}
    audit: dict[str, Any] = parts["audit"]
    return audit


async def test_what_audit_says_of_a_channels_files_is_told(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with auditing(gateway_factory, fresh_nats.uri) as rig:
        gateway, audit, tenant = rig.gateway, rig.audit, rig.tenant
        await gateway.channel()
        # It is not asked about a channel that asks for nothing.
        assert (await part(gateway, tenant.api_key), audit.asked) == (NOTHING, [])

        await gateway.channel(settings={"audit": {"enabled": True}})
        weakness = "The bucket takes an object where there is one."
        here = pb.ChannelState(
            channel="twilio",
            waiting_since_us=1_790_000_000_000_000,
            weaknesses=[weakness],
            locked_files=2,
            locked_until_us=1_800_000_000_000_000,
        )
        elsewhere = pb.ChannelState(channel="sendgrid", problem="not this one")
        audit.answers["GetState"] = pb.GetStateResponse(channels=[elsewhere, here], read_to_us=1_700_000_000_000_000)
        told = NOTHING | {
            "asked": True,
            "waiting_since": "2026-09-21T14:13:20Z",
            "read_to": "2023-11-14T22:13:20Z",
            "weaknesses": [weakness],
            "locked_files": 2,
            "locked_until": "2027-01-15T08:00:00Z",
        }
        assert (await part(gateway, tenant.api_key), audit.asked[:1]) == (told, [pb.GetStateRequest(tenant_id="acme")])

        here.problem = "The bucket acme-audit does not exist: make it."
        audit.answers["GetState"] = pb.GetStateResponse(channels=[elsewhere, here], read_to_us=1_700_000_000_000_000)
        assert await part(gateway, tenant.api_key) == told | {"state": "Error", "detail": here.problem}


async def test_without_audit_only_channels_that_ask_for_files_are_in_error(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        assert await part(gateway, tenant.api_key) == NOTHING
        await gateway.channel(settings={"audit": {"enabled": True}})
        away = await part(gateway, tenant.api_key)
        assert (away["state"], away["asked"]) == ("Error", True)
        assert away["detail"]
        assert "127.0.0.1" not in away["detail"]
        assert (await gateway.post(tenant)).status_code == 200
