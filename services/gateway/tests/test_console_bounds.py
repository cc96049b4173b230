"""What strangers and visitors of the console may take: the process that it runs in takes callbacks in."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
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
async def peer(gateway: Running, data: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    with closing(writer):
        writer.write(data)
        await writer.drain()
        yield reader, writer


@asynccontextmanager
async def visiting(gateway: Running, credential: str = ADMIN_TOKEN) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as browser:
        answer = await browser.post("/console/sign-in", data={"credential": credential}, headers=SAME)
        assert answer.status_code == 303, answer.text
        yield browser


def begun(browser: httpx.AsyncClient, path: str, length: int, kind: str = FORM["content-type"]) -> bytes:
    """The head of a form of somebody who is signed in, and nothing of its body."""
    cookie = f"backhaul-console={browser.cookies['backhaul-console']}"
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\nSec-Fetch-Site: same-origin\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


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


async def test_a_name_of_no_file_is_none(gateway: Running) -> None:
    for name in ("x" * 300 + ".css", "." * 200 + ".js", "%00.css", "console.css%00.css"):
        assert (await gateway.client.get(f"/console/static/x/{name}")).status_code == 404, name


async def test_who_hangs_up_in_a_form_is_no_failure(gateway: Running) -> None:
    acme = await gateway.tenant("acme")
    async with visiting(gateway, acme.api_key) as browser:
        for head in (BEGUN, begun(browser, "/console/t/acme/keys", 100)):
            async with peer(gateway, head) as (_, writer):
                await asyncio.sleep(0.2)  # so that it is read, which nothing shows
                writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

        async def answered(status: int) -> list[str]:
            metrics = (await gateway.client.get("/metrics")).text
            return re.findall(rf'requests_total{{method="POST".*status="{status}"}} (.*)', metrics)

        async with asyncio.timeout(60):
            while await answered(400) != ["2.0"]:  # as above
                assert await answered(500) == []
                await asyncio.sleep(0.05)
