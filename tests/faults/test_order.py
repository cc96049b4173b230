"""Servers and services started in any order become ready by themselves."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
from backhaul_local.service import Service
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from simulators.people import Town

if TYPE_CHECKING:
    from backhaul_local.pytest_plugin import StackFactory

pytestmark = pytest.mark.faults


async def _says_that_it_waits(service: Service) -> bool:
    """Whether the service answers, and says that it is not ready; AssertionError when it says that it is."""
    assert service.running, f"{service.name} ended: {service.log_tail()}"
    if service.spec.http_port is None:
        missing = await asyncio.to_thread(service.probe)
        assert missing is not None, f"{service.name} says that it is ready without what it needs"
        return "NOT_SERVING" in missing
    base = f"http://127.0.0.1:{service.ports[service.spec.http_port]}"
    async with httpx.AsyncClient(timeout=10) as http:
        try:
            live, ready = await http.get(f"{base}/healthz"), await http.get(f"{base}/readyz")
        except httpx.ConnectError:
            return False
    assert (live.status_code, ready.status_code) == (200, 503), ready.text
    assert ready.json()["failing"]
    return True


@pytest.mark.parametrize(
    "order",
    [
        ("audit", "normalizer", "gateway", "mongod", "nats"),
        ("gateway", "nats", "normalizer", "audit", "mongod"),
        ("mongod", "audit", "normalizer", "gateway", "nats"),
    ],
    ids="-".join,
)
async def test_started_in_any_order_all_become_ready(stack_factory: StackFactory, order: tuple[str, ...]) -> None:
    async with stack_factory(start=False, log_level="info") as stack:
        for name in order:
            member = stack.member(name)
            member.launch()
            if name == "gateway" and stack.member("mongod").running:
                # It knows its tenants, and has a disk for what comes before JetStream is there.
                await member.wait_ready()
            elif isinstance(member, Service):
                what = f"{name} to answer that it is not ready"
                await until(what, partial(_says_that_it_waits, member), within_s=120)
            else:
                await member.wait_ready()
        pids = [stack.member(name).pid for name in order]
        for name in order:
            await stack.member(name).wait_ready(120)

        async with Town(stack.gateway_url, stack.admin_token) as town:
            tenant = await town.platform.register()
            sid = new_sid()
            assert (await tenant.send(tenant.twilio.status(tenant.address("Twilio"), sid, "sent"))).status_code == 200
            assert (await tenant.message_with("twilio", sid, 1)).state == "sent"
        assert [stack.member(name).pid for name in order if stack.member(name).running] == pids
