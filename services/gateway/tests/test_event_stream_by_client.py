"""``GET /v1/events/stream`` as the client follows it."""

from __future__ import annotations

import pytest
from backhaul_client import AsyncTenantClient, UnauthenticatedError
from backhaul_local.nats_server import NatsServer
from cryptography.fernet import Fernet
from gateway_rig import GatewayFactory
from stream_rig import event, publish


async def test_it_is_followed_over_a_restart_of_the_gateway_until_the_key_is_revoked(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    key = Fernet.generate_key().decode()
    async with gateway_factory(fresh_nats.uri, secret_keys=key) as gateway:
        acme = await gateway.tenant()
        port = int(gateway.url.rpartition(":")[2])
        events = [event(gateway, "acme", f"{number}") for number in range(8)]
        await publish(gateway, "acme", [events[:3], events[3:5]])
        client = AsyncTenantClient(gateway.url, acme.api_key)
        stream = aiter(client.follow_events(kind="delivered", after="0"))
        told = [await anext(stream) for _ in range(4)]
        # The gateway stops while it is read from.
        gateway.server.should_exit = True
    async with client, gateway_factory(fresh_nats.uri, secret_keys=key, gateway_port=port) as gateway:
        await publish(gateway, "acme", [events[5:]])
        told += [await anext(stream) for _ in range(4)]
        assert [one.event.id for one in told if one.event is not None] == [str(number) for number in range(8)]
        revoked = await gateway.client.delete(
            f"/admin/v1/tenants/acme/keys/{acme.api_key.split('_')[1]}", headers=gateway.admin
        )
        assert revoked.status_code == 204
        with pytest.raises(UnauthenticatedError):
            await anext(stream)
