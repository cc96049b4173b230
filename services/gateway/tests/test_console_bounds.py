"""What strangers and visitors of the console may take: the process that it runs in takes callbacks in."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import TYPE_CHECKING

import httpx
import pytest
from backhaul_console import bounds
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


async def token_of(browser: httpx.AsyncClient, path: str) -> str:
    page = await browser.get(path)
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page.text)
    assert found, page.text
    return found[1]


def begun(browser: httpx.AsyncClient, path: str, length: int, kind: str = FORM["content-type"]) -> bytes:
    """The head of a form of somebody who is signed in, and nothing of its body."""
    cookie = f"backhaul-console={browser.cookies['backhaul-console']}"
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\nSec-Fetch-Site: same-origin\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


async def test_forms_that_never_come_take_no_callbacks_place(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_max_connections=32) as gateway, AsyncExitStack() as held:
        acme = await gateway.tenant("acme")
        await gateway.channel("acme")
        await gateway.client.aclose()
        for _ in range(64):
            await held.enter_async_context(peer(gateway, BEGUN))
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as gateway.client:
            assert (await gateway.post(acme)).status_code == 200


async def test_who_sends_a_form_signs_in_whoever_sends_none(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "STRANGERS", 4)
    monkeypatch.setattr(bounds, "STRANGERS_S", 60.0)
    async with AsyncExitStack() as held:
        first, *_ = [(await held.enter_async_context(peer(gateway, BEGUN)))[0] for _ in range(4)]
        async with visiting(gateway) as browser:
            assert (await browser.get("/console/admin")).status_code == 200
        # The oldest was given up for it.
        assert b" 408 " in await asyncio.wait_for(first.readline(), 60)


async def test_a_strangers_form_comes_soon_or_not_at_all(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "STRANGERS_S", 0.1)
    async with peer(gateway, BEGUN) as (reader, _):
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 60)


@pytest.mark.parametrize(
    ("body", "status"), [(b"credential=" + b"x" * 17_000, 413), (b"&" * 16_000, 400), (b"a=1&" * 100, 400)]
)
async def test_a_sign_in_is_small(gateway: Running, body: bytes, status: int) -> None:
    answer = await gateway.client.post("/console/sign-in", content=body, headers=FORM)
    assert answer.status_code == status
    async with visiting(gateway) as browser:
        out = await browser.post("/console/sign-out", content=body, headers=FORM)
        assert out.status_code == status
        assert (await browser.get("/console/admin")).status_code == 200


async def test_a_form_of_nothing_but_separators_is_not_taken_apart(gateway: Running) -> None:
    acme = await gateway.tenant("acme")
    async with visiting(gateway, acme.api_key) as browser:
        answer = await browser.post("/console/t/acme/keys", content=b"&" * 200_000, headers=FORM)
        assert answer.status_code == 400
        assert "more fields" in answer.text


FOREIGN = 403
"""What a form is answered that carries another session's token: it was read, and does nothing."""


async def until_status(browser: httpx.AsyncClient, path: str, status: int) -> httpx.Response:
    """Send forms that do nothing until one is answered so. The server reads the heads of others meanwhile: seen from
    outside, there is nothing else to wait for."""
    async with asyncio.timeout(60):
        while True:
            answer = await browser.post(path, data={"form_token": "0" * 64}, headers=SAME)
            if answer.status_code == status:
                return answer
            await asyncio.sleep(0.02)


async def test_a_session_has_few_forms_under_way(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "FORMS", 2)
    acme = await gateway.tenant("acme")
    path = "/console/t/acme/keys"
    async with visiting(gateway, acme.api_key) as browser, visiting(gateway, acme.api_key) as other:
        async with peer(gateway, begun(browser, path, 100)), peer(gateway, begun(browser, path, 100)):
            refused = await until_status(browser, path, 429)
            assert "Other forms of yours are still under way" in refused.text
            # Somebody else's are not theirs.
            await until_status(other, path, FOREIGN)
        await until_status(browser, path, FOREIGN)


async def test_forms_have_room_for_so_many_bytes(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "ROOM_BYTES", 500_000)
    monkeypatch.setattr(bounds, "SHARE_BYTES", 300_000)
    acme, other = await gateway.tenant("acme"), await gateway.tenant("other")
    async with visiting(gateway, acme.api_key) as browser, visiting(gateway, other.api_key) as neighbour:
        mine, theirs = "/console/t/acme/keys", "/console/t/other/keys"
        async with peer(gateway, begun(browser, mine, 250_000)):
            # A tenant has its share, which is not all of it.
            await until_status(browser, mine, 429)
            await until_status(neighbour, theirs, FOREIGN)
            async with peer(gateway, begun(neighbour, theirs, 200_000)):
                await until_status(neighbour, theirs, 503)
        await until_status(browser, mine, FOREIGN)


async def test_a_tenant_has_few_files_under_way(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "IMPORTS", 1)
    acme = await gateway.tenant("acme")
    path = "/console/t/acme/suppressions/import"
    async with visiting(gateway, acme.api_key) as browser:
        asked = f"{path}?form_token={await token_of(browser, '/console/t/acme/keys')}"
        async with peer(gateway, begun(browser, asked, 1000, "multipart/form-data; boundary=x")):
            refused = await until_status(browser, asked, 429)
            assert "Other files are still under way" in refused.text


async def test_a_form_has_its_time_until_its_file_begins(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    """However steadily bytes come that are none of a file."""
    async with gateway_factory(fresh_nats.uri, gateway_body_timeout_s=1) as gateway:
        acme = await gateway.tenant("acme")
        async with visiting(gateway, acme.api_key) as browser:
            token = await token_of(browser, "/console/t/acme/keys")
            path = f"/console/t/acme/suppressions/import?form_token={token}"
            head = begun(browser, path, 100_000, "multipart/form-data; boundary=x")
            field = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
            async with peer(gateway, head + field) as (reader, writer):
                answered = asyncio.create_task(reader.readline())
                async with asyncio.timeout(60):
                    while not answered.done():
                        writer.write(b"x")
                        await asyncio.wait({answered}, timeout=0.1)  # the drip
                assert b" 408 " in answered.result()


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
