"""The gateway's connection to NATS goes silent and stays open, while another address of the server works."""

from __future__ import annotations

import asyncio

import pytest
from backhaul_common.jetstream import connection
from backhaul_common.jetstream.connection import PING_INTERVAL_S
from backhaul_local.nats_server import NatsServer
from backhaul_testing.proxy import SilentProxy
from gateway_rig import GatewayFactory

BODY = 900_000


@pytest.mark.parametrize("unsent", [200_000, 9_000_000])
async def test_callbacks_are_taken_again_over_another_address(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch, unsent: int
) -> None:
    monkeypatch.setattr(connection, "PING_INTERVAL_S", PING_INTERVAL_S / 10)
    async with (
        SilentProxy(fresh_nats.port) as one,
        SilentProxy(fresh_nats.port) as two,
        gateway_factory(
            f"nats://127.0.0.1:{one.port},nats://127.0.0.1:{two.port}", gateway_publish_timeout_s=0.3
        ) as gateway,
    ):
        tenant = await gateway.tenant()
        await gateway.channel(verification="off")

        async def post(size: int) -> int:
            answer = await gateway.client.post(
                "/api/postevents?channelLabel=Twilio", content=b"x" * size, headers={"X-Api-Key": tenant.api_key}
            )
            return answer.status_code

        async def taken() -> None:
            """Return when one has been stored. On a busy machine the time for publishing may pass a few times first."""
            async with asyncio.timeout(30):
                while await post(10) != 200:  # Seen from outside, there is nothing else to wait for.
                    await asyncio.sleep(0.05)

        await taken()
        used = one if one.accepted else two
        used.go_silent()
        # Asked all the time: on a busy machine the other address may be in use before the posts are answered.
        unready = asyncio.create_task(gateway.until_status("/readyz", lambda status: status == 503))
        bodies = [min(unsent, BODY)] * max(1, unsent // BODY)
        assert set(await asyncio.gather(*map(post, bodies))) == {503}
        await unready
        await taken()
        await gateway.ready()
        used.speak_to_newcomers()  # The stream is looked at through the same addresses.
        # What was answered 503 is not sent behind the provider's back once there is a connection.
        assert all(len(callback.body) == 10 for batch in await gateway.stored() for callback in batch)
