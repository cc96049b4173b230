"""The page of one message, while other services are away, slow, or not installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import httpx
import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_console.pages import message
from backhaul_local.nats_server import NatsServer
from backhaul_proto.normalizer.v1 import normalizer_pb2_grpc
from gateway_rig import GatewayFactory, Running
from reading_rig import FakeNormalizer
from stream_rig import event

SAME = {"sec-fetch-site": "same-origin"}
PAGE = "/console/t/acme/messages/twilio/SM1"


@asynccontextmanager
async def browsing(
    factory: GatewayFactory, nats_url: str, **settings: object
) -> AsyncIterator[tuple[Running, FakeNormalizer, httpx.AsyncClient]]:
    normalizer = FakeNormalizer()  # type: ignore[abstract]  # grpc answers the other calls with UNIMPLEMENTED
    server = grpc.aio.server()
    normalizer_pb2_grpc.add_NormalizerServiceServicer_to_server(normalizer, server)
    settings["gateway_normalizer_target"] = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with (
            factory(nats_url, **settings) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=60, headers=SAME) as browser,
        ):
            acme = await gateway.tenant()
            await browser.post("/console/sign-in", data={"credential": acme.api_key})
            yield gateway, normalizer, browser
    finally:
        await server.stop(0)


async def test_a_service_that_hangs_hides_nothing_of_what_the_others_know(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message, "PATIENCE_S", 0.2)
    leaves = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await leaves.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as hanging:
        target = f"127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
        async with browsing(gateway_factory, fresh_nats.uri, gateway_notifier_target=target) as (
            gateway,
            normalizer,
            browser,
        ):
            normalizer.events = [event(gateway, "acme", "1", error_text="<b>No</b>", error_code="30006")]
            page = await browser.get(PAGE, params={"view": "timeline"})
            assert page.status_code == 200, page.text
            assert "Not told now: deliveries" in page.text
            assert "&lt;b&gt;No&lt;/b&gt;" in page.text
            # The first view needs nobody else.
            page = await browser.get(PAGE)
            assert page.status_code == 200
            assert "Not told now" not in page.text
        leaves.set()


async def test_a_reference_that_several_have_leads_to_them(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with browsing(gateway_factory, fresh_nats.uri) as (_, normalizer, browser):
        normalizer.refusal = BackhaulError(Code.FAILED_PRECONDITION, "Several messages have this reference.")
        page = await browser.get("/console/t/acme/messages/twilio/a%2Fb%20c")
        assert page.status_code == 303
        assert page.headers["location"] == "/console/t/acme/messages?channel=twilio&message_id=a%2Fb+c"


async def test_a_long_history_is_cut_and_its_whole_is_a_file(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with browsing(gateway_factory, fresh_nats.uri) as (gateway, normalizer, browser):
        normalizer.events = [
            event(gateway, "acme", f"{number}", text="<script>" * 50, raw=b'{"a":"</pre><script>"}')
            for number in range(1000)
        ]
        for view in message.VIEWS:
            page = await browser.get(PAGE, params={"view": view})
            assert page.status_code == 200
            assert len(page.content) < 150_000, view
            assert "<script>" not in page.text.replace('<script src="', "")
        assert "This is its beginning." in page.text
        whole = await browser.get(PAGE, params={"view": "raw", "whole": "1"})
        assert whole.headers["content-type"] == "application/json"
        assert whole.headers["x-content-type-options"] == "nosniff"
        assert len(whole.json()["message"]["timeline"]) == 1000
