"""The problems that the status of a channel tells: its own, all of them, and asked once for all who ask."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backhaul_gateway.reads import overview
from backhaul_local.nats_server import NatsServer
from backhaul_proto.audit.v1 import audit_pb2
from gateway_rig import GatewayFactory, Running
from overview_rig import overseeing

AUDITED = {"audit": {"enabled": True}}


async def status(gateway: Running, label: str, key: str) -> dict[str, Any]:
    answer = await gateway.client.get("/api/status", params={"channelLabel": label}, headers={"X-Api-Key": key})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def parts(told: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(one["part"], one["channel"]) for one in told["problems"]]


async def test_without_audit_each_channel_that_asks_for_files_says_so_and_no_other(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with overseeing(gateway_factory, fresh_nats.uri, gateway_audit_target="") as rig:
        gateway, tenant = rig.gateway, await rig.gateway.tenant()
        await gateway.channel(settings=AUDITED)
        await gateway.channel(label="Second", provider="twilio", settings=AUDITED)
        await gateway.channel(label="Plain", provider="twilio")
        for label in ("Twilio", "Second"):
            told = await status(gateway, label, tenant.api_key)
            assert (told["state"], parts(told)) == ("Error", [("audit", label)])
            assert told["problems"][0]["text"] == told["parts"]["audit"]["detail"]
        assert parts(await status(gateway, "Plain", tenant.api_key)) == []
        own = (await gateway.client.get("/v1/overview", headers={"X-Api-Key": tenant.api_key})).json()
        assert {one["label"]: one["state"] for one in own["channels"]} == {
            "Twilio": "error",
            "Second": "error",
            "Plain": "ok",
        }
        assert len(own["problems"]) == 2


async def test_the_problems_of_other_channels_leave_no_channel_without_its_own(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with overseeing(gateway_factory, fresh_nats.uri) as rig:
        gateway, tenant = rig.gateway, await rig.gateway.tenant()
        await gateway.channel(settings=AUDITED, processing="held")
        others = [audit_pb2.ChannelState(channel=f"c{number}", problem="No bucket.") for number in range(60)]
        rig.answers["audit", "acme"] = audit_pb2.GetStateResponse(channels=others)
        own = (await gateway.client.get("/v1/overview", headers={"X-Api-Key": tenant.api_key})).json()
        assert (len(own["problems"]), {one["severity"] for one in own["problems"]}) == (50, {"error"})
        assert parts(await status(gateway, "Twilio", tenant.api_key)) == [("processing", "Twilio")]


async def test_who_asks_of_many_channels_asks_the_services_once(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy the machine is.
    monkeypatch.setattr(overview, "TIMEOUT_S", 60.0)
    monkeypatch.setattr(overview, "KEPT_S", 3600.0)
    async with overseeing(gateway_factory, fresh_nats.uri) as rig:
        gateway, tenant, other = rig.gateway, await rig.gateway.tenant(), await rig.gateway.tenant("other")
        await gateway.channel(settings=AUDITED)
        await gateway.channel("other", processing="held")
        # One status asks each of them once, for its parts and for its problems.
        await status(gateway, "Twilio", tenant.api_key)
        once = {"normalizer": 1, "reconciler": 1, "audit": 1, "notifier": 1}
        assert rig.asked == once
        # What is wrong is told again to whoever asks soon.
        await asyncio.gather(*(status(gateway, "Twilio", tenant.api_key) for _ in range(6)))
        assert (await gateway.client.get("/v1/overview", headers={"X-Api-Key": tenant.api_key})).status_code == 200
        assert rig.asked["normalizer"] == 1
        assert max(rig.asked.values()) <= 7
        # Of another tenant it is asked anew, and of one that has changed.
        assert parts(await status(gateway, "Twilio", other.api_key)) == [("processing", "Twilio")]
        assert rig.asked["normalizer"] == 2
        await gateway.channel(settings=AUDITED, processing="held")
        assert parts(await status(gateway, "Twilio", tenant.api_key)) == [("processing", "Twilio")]
        assert rig.asked["normalizer"] == 3
