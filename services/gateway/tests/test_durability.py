"""Group commit, and what providers are told while JetStream is away or slow: 200 only for what is stored."""

from __future__ import annotations

import asyncio
import time

import pytest
from backhaul_gateway.ingest.lanes import MAX_CALLBACKS, MAX_MESSAGE_BYTES
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from gateway_rig import GatewayFactory, Running
from structlog.testing import capture_logs


async def test_group_commit(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_publish_timeout_s=4.5) as gateway:
        await _group_commit(gateway, fresh_nats)


async def _group_commit(gateway: Running, fresh_nats: NatsServer) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(verification="off")
    count = 150
    large = b"y" * 40_000

    async def one(number: int) -> str:
        body = b"n=%d" % number if number % 50 else large
        answer = await gateway.client.post(
            "/api/postevents?channelLabel=Twilio", content=body, headers={"X-Api-Key": tenant.api_key}
        )
        assert answer.status_code == 200
        identifier: str = answer.headers["backhaul-callback-id"]
        return identifier

    # While the server stands still, all but those of the first publishes gather.
    fresh_nats.pause()
    posts = [asyncio.create_task(one(number)) for number in range(count)]
    await gateway.until_waiting(count)
    fresh_nats.resume()
    ids = await asyncio.gather(*posts)
    batches = await gateway.stored()
    stored = {callback.id: callback.body for batch in batches for callback in batch}
    assert sum(len(batch) for batch in batches) == count == len(stored)
    assert [stored[identifier] for identifier in ids] == [
        b"n=%d" % number if number % 50 else large for number in range(count)
    ]
    assert len(batches) < count / 4
    assert max(len(batch) for batch in batches) <= MAX_CALLBACKS
    assert max(sum(len(callback.body) for callback in batch) for batch in batches) <= MAX_MESSAGE_BYTES
    assert gateway.publisher.idle


@pytest.mark.timed
async def test_jetstream_away_and_back(gateway: Running, fresh_nats: NatsServer) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    assert (await gateway.post(tenant)).status_code == 200
    await fresh_nats.kill()
    for _ in range(3):
        began = time.monotonic()
        answer = await gateway.post(tenant)
        gateway.problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        assert time.monotonic() - began < 5
    assert (await gateway.client.get("/healthz")).status_code == 200
    ready = await gateway.client.get("/readyz")
    assert ready.status_code == 503
    assert "jetstream" in ready.json()["failing"]
    status = await gateway.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": tenant.api_key})
    assert status.json()["parts"]["queue"]["state"] == "Error"
    # Tenants can be managed all the same.
    await gateway.tenant("other")
    await fresh_nats.start()
    await gateway.ready()
    assert (await gateway.post(tenant)).status_code == 200
    # What was refused was not stored behind anybody's back.
    assert len(await gateway.stored()) == 2


async def test_a_short_interruption_is_waited_out(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    # The longest that there may be: a busy machine takes some of it for starting the server again.
    async with gateway_factory(fresh_nats.uri, gateway_publish_timeout_s=4.5) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        assert (await gateway.post(tenant)).status_code == 200
        fresh_nats.pause()
        waiting = [asyncio.create_task(gateway.post(tenant)) for _ in range(20)]
        await gateway.until_waiting(20)
        await fresh_nats.kill()
        await fresh_nats.start()
        assert [(await task).status_code for task in waiting] == [200] * 20
        callbacks = [callback.id for batch in await gateway.stored() for callback in batch]
        assert len(callbacks) == len(set(callbacks)) == 21


@pytest.mark.timed
async def test_jetstream_slow(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_publish_timeout_s=0.5) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        fresh_nats.pause()
        began = time.monotonic()
        answers = await asyncio.gather(*(gateway.post(tenant) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {503}
        assert time.monotonic() - began < 3
        fresh_nats.resume()
        await gateway.ready()
        assert (await gateway.post(tenant)).status_code == 200
        assert gateway.publisher.idle


async def test_a_full_callback_log_is_one_line_however_many_callbacks_are_refused(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    with capture_logs() as lines:
        async with gateway_factory(fresh_nats.uri, stream_max_bytes=1 << 20) as gateway:
            tenant = await gateway.tenant()
            await gateway.channel(verification="off")

            async def post() -> int:
                answer = await gateway.client.post(
                    "/api/postevents?channelLabel=Twilio", content=b"x" * 400_000, headers={"X-Api-Key": tenant.api_key}
                )
                return answer.status_code

            client = await broker.connect(fresh_nats.uri)
            for _ in range(2):  # Others fill it, and not this tenant its share.
                await client.jetstream().publish("callbacks.somebody-else.twilio", b"x" * 400_000)
            answers = [await post() for _ in range(40)]
            assert answers.count(503) == 40
            await client.jetstream().purge_stream("CALLBACKS")
            await client.close()
            assert await post() == 200
    refused = [line for line in lines if line["event"].startswith("publish_refused")]
    assert [(line["event"], line["log_level"]) for line in refused] == [
        ("publish_refused", "error"),
        ("publish_refused_over", "info"),
    ]
    assert "maximum bytes exceeded" in refused[0]["error"]
    assert refused[1]["times"] == answers.count(503)
