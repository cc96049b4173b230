"""When keys were last used: written behind the requests, seldom, and changing nothing else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from backhaul_common.errors import unavailable
from backhaul_gateway.admin import uses
from backhaul_gateway.admin.uses import EVERY_S, KeyUses
from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory


class Index:
    """Credentials of which a test says that they were used."""

    def __init__(self) -> None:
        self.used: dict[str, str] = {}

    def take_used(self) -> dict[str, str]:
        used, self.used = self.used, {}
        return used


class Store:
    """Keeps what is written, unless it is away."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []
        self.away = False

    async def used(self, tenant_id: str, credential_id: str, _: datetime) -> None:
        if self.away:
            raise unavailable("MongoDB")
        self.written.append((tenant_id, credential_id))


async def test_each_is_written_once_in_an_hour() -> None:
    index: Any = Index()
    store: Any = Store()
    now = 0.0
    key_uses = KeyUses(index, store.used, lambda: now)
    for moment, used, written in (
        (0.0, ["a", "b"], ["a", "b"]),
        (60.0, ["a", "c"], ["c"]),
        (EVERY_S - 1, ["a", "b", "c"], []),
        (EVERY_S, ["a"], ["a"]),
        (EVERY_S + 1, [], []),
    ):
        now, store.written = moment, []
        index.used = dict.fromkeys(used, "acme")
        await key_uses.write()
        assert store.written == [("acme", one) for one in written]
    store.away, index.used = True, {"d": "acme"}
    await key_uses.write()
    store.away, store.written, index.used = False, [], {"d": "acme"}
    await key_uses.write()
    assert store.written == [("acme", "d")]


async def test_keys_and_tokens_tell_when_they_were_used(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uses, "PAUSE_S", 0.05)
    async with gateway_factory(fresh_nats.uri) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        unused = (await gateway.client.post("/admin/v1/tenants/acme/keys", headers=gateway.admin)).json()
        assert unused["last_used_at"] is None
        before = gateway.tenants.find_one({"_id": "acme"})
        assert (await gateway.post(tenant)).status_code == 200
        path = f"/in/{tenant.ingest_token}/api/postevents?channelLabel=Twilio"
        assert (await gateway.post(None, path)).status_code == 200

        async def told() -> dict[str, Any]:
            shown = (await gateway.client.get("/admin/v1/tenants/acme", headers=gateway.admin)).json()
            return {one["id"]: one["last_used_at"] for one in shown["keys"]}

        async with asyncio.timeout(60):
            while sum(1 for at in (await told()).values() if at) < 2:  # seen from outside, nothing else tells
                await asyncio.sleep(0.05)
        found = await told()
        assert found.pop(unused["id"]) is None
        for at in found.values():
            # No more precise than it is known.
            assert at.endswith(":00:00Z")
            assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(at) < timedelta(minutes=70)
        stored = gateway.tenants.find_one({"_id": "acme"})["credentials"]
        assert {bool(one["last_used_at"]) for one in stored} == {True, False}
        # Nothing else of the tenant has changed, so that no service reads it anew.
        after = gateway.tenants.find_one({"_id": "acme"})
        for credential in after["credentials"]:
            credential["last_used_at"] = None
        assert after == before
