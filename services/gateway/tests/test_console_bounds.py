"""What strangers and visitors of the console may take: the process that it runs in takes callbacks in."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
from backhaul_gateway.console import store
from gateway_rig import ADMIN_TOKEN, GatewayFactory, Running

if TYPE_CHECKING:
    from backhaul_local.nats_server import NatsServer

SAME = {"sec-fetch-site": "same-origin"}
FORM = {**SAME, "content-type": "application/x-www-form-urlencoded"}
BEGUN = (
    b"POST /console/sign-in HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 100\r\n\r\nc"
)


@asynccontextmanager
async def visiting(gateway: Running, credential: str = ADMIN_TOKEN) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as browser:
        answer = await browser.post("/console/sign-in", data={"credential": credential}, headers=SAME)
        assert answer.status_code == 303, answer.text
        yield browser


async def test_made_up_cookies_are_looked_for_so_often_and_keep_nobody_out(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "UNKNOWN_PER_SECOND", 0.001)
    monkeypatch.setattr(store, "UNKNOWN_AT_ONCE", 3)
    async with gateway_factory(fresh_nats.uri) as gateway, visiting(gateway) as browser:

        async def made_up(token: str) -> int:
            cookie = {"cookie": f"backhaul-console={token}"}
            return (await gateway.client.get("/console/admin", headers=cookie)).status_code

        # What is no token of anybody's is looked for nowhere.
        assert [await made_up(token) for token in ("x", "x" * 44, "x" * 42 + ".", "x" * 4000)] == [303] * 4
        assert [await made_up(secrets.token_urlsafe(32)) for _ in range(5)] == [303] * 3 + [503] * 2
        for _ in range(5):
            assert (await browser.get("/console/admin")).status_code == 200
        # Neither is anybody kept from signing in.
        async with visiting(gateway) as other:
            assert (await other.get("/console/admin")).status_code == 200
