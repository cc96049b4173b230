"""What a callback would be answered, judged as the ingest judges it; and that nothing comes of asking."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import grpc
import httpx
import pytest
from backhaul_channels import Adapter, Answer, ChannelSettings, Context, Ignored, NormalizedEvent, load_adapters
from backhaul_channels.adapter import Proof, RawCallback
from backhaul_client.adminmodels import NewTenant
from backhaul_gateway.reads import preview
from backhaul_local.nats_server import NatsServer
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_UNKNOWN, Event
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2_grpc
from gateway_rig import FORM, TWILIO_TOKEN, GatewayFactory, Running, sign
from test_console import SAME, browser_of, form_token, sign_in


class FakeNormalizer(normalizer_pb2_grpc.NormalizerServiceServicer):
    """Answers one part of each sort, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def PreviewCallback(self, request: Any, context: Any) -> pb.PreviewCallbackResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        await self.may_answer.wait()
        return pb.PreviewCallbackResponse(
            parts=[
                pb.PreviewPart(event=Event(id="e1", kind=EVENT_KIND_UNKNOWN, raw=b'{"a":1}')),
                pb.PreviewPart(ignored="typing"),
                pb.PreviewPart(dead_letter="It is nothing."),
            ],
            truncated=True,
        )


class Bot(Adapter[ChannelSettings]):
    """A provider that signs nothing, and asks first whether the address is the tenant's."""

    provider = "bot"
    labels = ("Bot",)
    proof = Proof.CREDENTIAL
    accepted = Answer(202, "text/plain", b"taken")

    def handshake(self, callback: RawCallback, secrets: Sequence[str], settings: ChannelSettings) -> Answer | None:
        return Answer(200, "application/json", b'{"proof":"a secret"}') if callback.body == b"hello?" else None

    def split(self, callback: RawCallback, settings: ChannelSettings) -> list[bytes]:
        return [callback.body]

    def normalize(self, part: bytes, context: Context[ChannelSettings]) -> NormalizedEvent | Ignored:
        return Ignored("never")


Looking = tuple[Running, FakeNormalizer]
Opened = Callable[..., AbstractAsyncContextManager[Looking]]


@pytest.fixture
def opened(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> Opened:
    """``async with opened() as (gateway, normalizer)``: the keyword arguments are settings."""

    @asynccontextmanager
    async def create(**settings: Any) -> AsyncIterator[Looking]:
        normalizer = FakeNormalizer()  # type: ignore[abstract]  # grpc answers the other calls with UNIMPLEMENTED
        server = grpc.aio.server()
        normalizer_pb2_grpc.add_NormalizerServiceServicer_to_server(normalizer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        adapters = {**load_adapters(), "bot": Bot()}
        target = f"127.0.0.1:{port}"
        try:
            async with gateway_factory(
                fresh_nats.uri, adapters=adapters, gateway_normalizer_target=target, **settings
            ) as gateway:
                yield gateway, normalizer
        finally:
            normalizer.may_answer.set()
            await server.stop(0)

    return create


async def asked(gateway: Running, tenant: NewTenant, label: str = "Twilio", **body: Any) -> httpx.Response:
    return await gateway.client.post(
        f"/v1/channels/{label}/preview", json=body, headers={"X-Api-Key": tenant.api_key}
    )  # fmt: skip


BODY = urlencode(FORM)


async def test_a_callback_is_judged_as_the_ingest_judges_it(opened: Opened) -> None:
    async with opened() as (gateway, normalizer):
        acme = await gateway.tenant()
        own = gateway.url + "/api/postevents?channelLabel=Twilio"
        by_token = f"{gateway.url}/in/{acme.ingest_token}/api/postevents?channelLabel=twilio&id=1"
        cases: list[tuple[str, dict[str, str], str]] = [
            (own, {}, own),
            (own + "&id=1&category=x", {"query": "id=1&category=x"}, own + "&id=1&category=x"),
            (by_token, {"url": by_token + "#rc=5"}, by_token.replace(acme.ingest_token, "***")),
        ]
        await gateway.channel()
        for url, where, shown in cases:
            headers = {"X-Twilio-Signature": sign(url, FORM), "X-Other": "é"}
            answer = await asked(gateway, acme, "TWILIO", body=BODY, headers=headers, **where)
            assert answer.status_code == 200, answer.text
            found = answer.json()
            assert found["verification"] == {"mode": "enforce", "result": "verified", "code": None, "detail": None}
            assert found["answer"] == {"status": 200, "content_type": "text/xml", "body": "<Response/>"}
            request = normalizer.asked[-1]
            assert (request.tenant_id, request.channel) == ("acme", "twilio")
            callback = request.callback
            assert (callback.method, callback.url, callback.body.decode()) == ("POST", shown, BODY)
            # As the ingest keeps it: nothing of the signature.
            assert callback.headers == "x-other: é\r\n".encode("latin-1")
            assert callback.verification == callback_pb2.VERIFICATION_VERIFIED
            assert (await gateway.post(acme, url.removeprefix(gateway.url))).status_code == 200
        assert list(found) == ["verification", "answer", "parts", "truncated"]
        event, ignored, letter = found["parts"]
        assert (event["event"]["kind"], event["event"]["data"]) == ("unknown", {"a": 1})
        assert ignored == {"event": None, "ignored": "typing", "dead_letter": None}
        assert letter == {"event": None, "ignored": None, "dead_letter": "It is nothing."}
        assert found["truncated"] is True


async def test_what_would_be_refused_is_shown_all_the_same(opened: Opened) -> None:
    async with opened() as (gateway, normalizer):
        acme = await gateway.tenant()
        for mode, result, status in (("enforce", "refused", 403), ("observe", "observed_invalid", 200)):
            await gateway.channel(verification=mode)
            found = (await asked(gateway, acme, body=BODY, headers={"x-twilio-signature": "bm8="})).json()
            assert found["verification"] == {
                "mode": mode,
                "result": result,
                "code": "signature_invalid",
                "detail": found["verification"]["detail"],
            }
            assert "public base URL" in found["verification"]["detail"]
            assert found["answer"]["status"] == status
            assert len(found["parts"]) == 3
            assert normalizer.asked[-1].callback.verification == callback_pb2.VERIFICATION_OBSERVED_INVALID
            real = await gateway.post(acme, signature="bm8=")
            assert real.status_code == status
            if status == 403:
                assert found["answer"]["content_type"] == real.headers["content-type"]
                assert gateway.problem(real, 403)["detail"] in found["answer"]["body"]
        await gateway.channel(verification="off")
        found = (await asked(gateway, acme, body=BODY)).json()
        assert (found["verification"]["result"], found["answer"]["status"]) == ("off", 200)
        # The name and the password of an address are sent in a header, and signed with it.
        await gateway.channel(verification="enforce")
        url = gateway.url.replace("//", "//us%65r:pass@") + "/api/postevents?channelLabel=Twilio"
        signed = sign(url.replace("us%65r", "user"), FORM)
        found = (await asked(gateway, acme, body=BODY, url=url, headers={"X-Twilio-Signature": signed})).json()
        assert found["verification"]["result"] == "verified"
        assert "pass" not in normalizer.asked[-1].callback.url


async def test_a_handshake_is_named_and_proves_nothing_to_whoever_asks(opened: Opened) -> None:
    async with opened() as (gateway, normalizer):
        acme = await gateway.tenant()
        await gateway.channel(label="Bot", secrets=[])
        found = (await asked(gateway, acme, "Bot", body="hello?")).json()
        assert found["verification"]["result"] == "handshake"
        assert found["answer"] == {"status": 200, "content_type": "application/json", "body": None}
        assert (found["parts"], found["truncated"]) == ([], False)
        assert normalizer.asked == []
        found = (await asked(gateway, acme, "Bot", body_base64=base64.b64encode(b"\xff\x00").decode())).json()
        assert found["verification"]["result"] == "credential"
        assert found["answer"] == {"status": 202, "content_type": "text/plain", "body": "taken"}
        assert normalizer.asked[-1].callback.body == b"\xff\x00"


async def test_nothing_is_stored_or_counted(opened: Opened) -> None:
    async with opened() as (gateway, _):
        acme = await gateway.tenant()
        await gateway.channel()
        for headers in ({"x-twilio-signature": "bm8="}, {}):
            assert (await asked(gateway, acme, body=BODY, headers=headers)).status_code == 200
        assert await gateway.stored() == []
        metrics = (await gateway.client.get("/metrics", headers=gateway.admin)).text
        assert "backhaul_gateway_requests_total" in metrics
        counted = [line for line in metrics.splitlines() if line.startswith("backhaul_gateway_callbacks")]
        assert not [line for line in counted if "acme" in line]
        status = await gateway.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": acme.api_key})
        assert status.json()["parts"]["verification"]["refused"] == 0


async def test_what_cannot_be_a_callback_of_the_channel_is_refused(opened: Opened) -> None:
    async with opened(gateway_public_base_url="https://callbacks.example.com") as (gateway, normalizer):
        acme, other = await gateway.tenant(), await gateway.tenant("other")
        await gateway.channel()
        await gateway.channel("other", "SendGrid", secrets=[], verification="off")
        gateway.problem(await asked(gateway, acme, "SendGrid", body=""), 404, "label")
        assert (await asked(gateway, other, "SendGrid", body="[]")).status_code == 200
        assert normalizer.asked.pop().tenant_id == "other"
        own = "https://callbacks.example.com/api/postevents"
        assert (await asked(gateway, acme, body="", url=own)).status_code == 200
        assert normalizer.asked.pop().callback.url == own
        refused: list[tuple[dict[str, Any], str]] = [
            ({}, "body"),
            ({"body": "", "body_base64": ""}, "body"),
            ({"body_base64": "AA=A"}, "body_base64"),
            ({"body": "", "query": "a=1", "url": own}, "body"),
            ({"body": "", "query": "a=é"}, "query"),
            ({"body": "", "url": own.replace("callbacks.", "")}, "url"),
            ({"body": "", "url": "https://callbacks.example.com.evil.test/api/postevents"}, "url"),
            ({"body": "", "headers": {"a:b": "c"}}, "headers"),
            ({"body": "", "headers": {"a": "b\r\nc: d"}}, "headers"),
            ({"body": "", "headers": {"a": "€"}}, "headers"),
            ({"body": "", "headers": {"X-Twilio-Signature": "a", "x-twilio-signature": "b"}}, "headers"),
            ({"body": "", "signature": "x"}, "signature"),
        ]
        for body, field in refused:
            gateway.problem(await asked(gateway, acme, **body), 422, field)
        gateway.problem(await asked(gateway, acme, body="", query="a=" + "b" * 5000), 413, "query")
        gateway.problem(await asked(gateway, acme, body="", headers={"a": "b" * 20_000}), 413, "headers")
        api = {"X-Api-Key": acme.api_key}
        path = "/v1/channels/Twilio/preview"
        for broken in (b"{", b'{"body": "\xff"}', b'{"body": "\\ud800"}', b""):
            gateway.problem(await gateway.client.post(path, content=broken, headers=api), 400, "body")
        assert normalizer.asked == []


async def test_a_body_may_be_as_large_as_a_callbacks_and_no_larger(opened: Opened) -> None:
    async with opened() as (gateway, normalizer):
        acme = await gateway.tenant(limits={"max_body_bytes": 1_000_000})
        await gateway.channel(verification="off")
        whole = base64.b64encode(bytes(1_000_000)).decode()
        assert (await asked(gateway, acme, body_base64=whole)).status_code == 200
        assert normalizer.asked.pop().callback.body == bytes(1_000_000)
        assert (await asked(gateway, acme, body='"' * 1_000_000)).status_code == 200
        normalizer.asked.clear()
        gateway.problem(await asked(gateway, acme, body="x" * 1_000_001), 413, "body")
        small = await gateway.tenant("small", limits={"max_body_bytes": 1024})
        await gateway.channel("small", verification="off")
        gateway.problem(await asked(gateway, small, body="x" * 1025), 413, "body")
        # It is not even read that far, however it is sent.
        gateway.problem(await asked(gateway, small, body="x" * 100_000), 413, "body")

        async def unannounced() -> AsyncIterator[bytes]:
            for _ in range(2):
                yield b" " * 50_000

        path = "/v1/channels/Twilio/preview"
        answer = await gateway.client.post(path, content=unannounced(), headers={"X-Api-Key": small.api_key})
        gateway.problem(answer, 413, "body")
        assert normalizer.asked == []
        # Whoever shows no credential is not read at all.
        gateway.problem(await gateway.client.post(path, content=whole[:100_000]), 401)


async def test_no_tenant_takes_up_all_the_memory_for_previews(opened: Opened) -> None:
    async with opened() as (gateway, normalizer):
        greedy, other = await gateway.tenant("greedy"), await gateway.tenant("other")
        for tenant_id in ("greedy", "other"):
            await gateway.channel(tenant_id, verification="off")
        large = "x" * 1_000_000
        most = preview.MAX_PREVIEWED_BYTES // 2 // 1_000_000
        await gateway.client.patch(
            "/admin/v1/tenants/greedy", headers=gateway.admin, json={"limits": {"concurrent_reads": 1000}}
        )
        normalizer.may_answer.clear()
        waiting = [asyncio.create_task(asked(gateway, greedy, body=large)) for _ in range(most)]
        async with asyncio.timeout(60):
            while len(normalizer.asked) < most:  # seen from outside there is nothing else to wait for
                await asyncio.sleep(0.01)
        answer = await asked(gateway, greedy, body=large)
        gateway.problem(answer, 503)
        assert "Retry-After" in answer.headers
        theirs = asyncio.create_task(asked(gateway, other, body=large))
        async with asyncio.timeout(60):
            while len(normalizer.asked) == most:
                await asyncio.sleep(0.01)
        normalizer.may_answer.set()
        assert {one.status_code for one in await asyncio.gather(*waiting, theirs)} == {200}
        assert (await asked(gateway, greedy, body=large)).status_code == 200


async def test_the_console_sends_a_sample_as_the_provider_would_however_its_visitor_comes(opened: Opened) -> None:
    public = "https://callbacks.example.com"
    async with (
        opened(gateway_public_base_url=public, gateway_plain_base_url="http://plain.example.com") as (gateway, _),
        browser_of(gateway) as browser,
    ):
        acme = await gateway.tenant()
        await gateway.channel(label="Our%20texts", provider="twilio")
        await sign_in(browser, acme.api_key)
        page = await browser.get("/console/t/acme/channels/Our%20texts/sample")
        sample = {"form_token": form_token(page), "event": "sent", "message": "SM" + "7" * 32, "secret": TWILIO_TOKEN}
        sent = await browser.post("/console/t/acme/channels/Our%20texts/sample/send", data=sample, headers=SAME)
        assert sent.status_code == 303, sent.text
        assert TWILIO_TOKEN not in repr(sent.headers)
        ((callback,),) = await gateway.stored()
        assert callback.url == f"{public}/api/postevents?channelLabel=Our%20texts"
        assert callback.verification == callback_pb2.VERIFICATION_VERIFIED
        assert b"SM" + b"7" * 32 in callback.body
        assert b"api-key" not in callback.headers.lower()
