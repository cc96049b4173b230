"""Connections of a normalizer that go silent and stay open: it does not wait for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backhaul_common import jetstream
from backhaul_common.connection import PING_INTERVAL_S, Connection
from backhaul_local.nats_server import NatsServer
from backhaul_local.proxy import SilentProxy
from backhaul_normalizer import app

CHUNK = 100_000


@pytest.mark.parametrize("unsent", [200_000, 9_000_000])
async def test_it_goes_on_over_another_address_when_its_connection_goes_silent(
    rig_factory: Any, fresh_nats: NatsServer, make: Any, monkeypatch: pytest.MonkeyPatch, unsent: int
) -> None:
    monkeypatch.setattr(jetstream, "PING_INTERVAL_S", PING_INTERVAL_S / 10)
    connections: list[Connection] = []

    class Watched(Connection):
        def __init__(self) -> None:
            super().__init__()
            connections.append(self)

    monkeypatch.setattr(app, "Connection", Watched)
    async with (
        SilentProxy(fresh_nats.port) as one,
        SilentProxy(fresh_nats.port) as two,
        rig_factory(copies=0, normalizer_ack_wait_s=1) as rig,
        rig.another(nats_url=f"nats://127.0.0.1:{one.port},nats://127.0.0.1:{two.port}"),
    ):
        acme = make.tenant("acme")
        await rig.register(acme)
        await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))
        await rig.drained()
        used = one if one.accepted else two
        used.go_silent()

        async def publish() -> None:
            for _ in range(unsent // CHUNK):
                await connections[0].publish("bulk", bytes(CHUNK))

        publishing = asyncio.create_task(publish())
        await rig.publish(acme, make.callback(acme, make.twilio("SM2", "sent")))
        await rig.drained(timeout_s=10)
        publishing.cancel()
        assert {row["message_id"] for row in await rig.rows("messages")} == {"SM1", "SM2"}
        assert {event.message_id for event in await rig.published()} == {"SM1", "SM2"}
