"""Who shows wrong credentials again and again waits for each refusal; who shows a valid one never waits."""

from __future__ import annotations

import asyncio

import pytest
from backhaul_gateway.admission import attempts
from backhaul_gateway.admission.attempts import (
    FREE,
    FREE_PER_SECOND,
    MAX_ADDRESSES,
    MAX_WAITING,
    WrongCredentials,
    network_of,
)
from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory


class Pauses:
    """Pauses that last until they are let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()

    async def __call__(self, _: float) -> None:
        self.begun += 1
        await self.go.wait()


async def test_refusals_beyond_the_free_ones_wait_and_too_many_end_their_connections() -> None:
    now, pauses = 0.0, Pauses()
    wrong = WrongCredentials(lambda: now, pauses)
    for _ in range(FREE):
        assert await wrong.refused("192.0.2.1")
    assert pauses.begun == 0
    waiting = [asyncio.create_task(wrong.refused("192.0.2.1")) for _ in range(MAX_WAITING)]
    while pauses.begun < MAX_WAITING:  # each turn of the loop begins some
        await asyncio.sleep(0)
    assert not await wrong.refused("192.0.2.1")
    # Others are not kept waiting for it.
    assert await wrong.refused("192.0.2.2")
    # Who hangs up, waits no longer.
    waiting[0].cancel()
    pauses.go.set()
    assert [await one for one in waiting[1:]] == [True] * (MAX_WAITING - 1)
    assert await wrong.refused("192.0.2.1")
    assert pauses.begun == MAX_WAITING + 1
    now += 1 / FREE_PER_SECOND
    assert await wrong.refused("192.0.2.1")
    assert pauses.begun == MAX_WAITING + 1


async def test_a_network_counts_as_one_and_memory_is_bounded() -> None:
    pauses = Pauses()
    pauses.go.set()
    wrong = WrongCredentials(lambda: 0.0, pauses)
    for host in range(FREE + 1):
        await wrong.refused(f"2001:db8::{host:x}")
    assert pauses.begun == 1
    await wrong.refused("2001:db8:0:1::1")
    assert pauses.begun == 1
    for number in range(MAX_ADDRESSES + 10):
        await wrong.refused(f"nowhere-{number}")
    assert len(wrong._buckets) == MAX_ADDRESSES


async def test_every_door_holds_up_who_guesses_and_lets_in_who_knows(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "FREE", 1)
    monkeypatch.setattr(attempts, "FREE_PER_SECOND", 0.0001)
    # None may wait, so that a refusal that would have to says so.
    monkeypatch.setattr(attempts, "MAX_WAITING", 0)
    async with gateway_factory(fresh_nats.uri) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        first = await gateway.client.get("/admin/v1/tenants", headers={"Authorization": "Bearer guessed"})
        gateway.problem(first, 401)
        assert "connection" not in first.headers
        path = "/api/postevents?channelLabel=Twilio"
        for method, door in (
            ("GET", "/admin/v1/tenants"),
            ("GET", "/v1/messages"),
            ("POST", path),
            ("POST", f"/in/guessed{path}"),
            ("POST", "/in/guessed/oauth/token"),
        ):
            answer = await gateway.client.request(method, door, headers={"Authorization": "Bearer guessed"})
            gateway.problem(answer, 401)
            assert answer.headers["connection"] == "close", door
            # From the same address, at the same time.
            assert (await gateway.post(tenant)).status_code == 200
            assert (await gateway.client.get("/admin/v1/tenants", headers=gateway.admin)).status_code == 200


def test_addresses_of_the_older_family_are_told_apart_in_any_form() -> None:
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") != network_of("::ffff:192.0.2.2")
