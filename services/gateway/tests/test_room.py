"""Shares of the callback log, room by what is processed, and the trial that shows whether it stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import nats.js.errors
import pytest
from backhaul_client.adminmodels import NewTenant
from backhaul_common.names import CALLBACKS_STREAM, CANARY_SUBJECT, NORMALIZER_CONSUMER, held_subject
from backhaul_gateway import app
from backhaul_gateway.ingest.watch import LOOK_S, LogWatch
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from gateway_rig import GatewayFactory, Running
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from structlog.testing import capture_logs

SIZE = 8 << 20


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is looked at ten times as often as in earnest."""
    monkeypatch.setattr(app, "LogWatch", partial(LogWatch, look_s=LOOK_S / 10))


@asynccontextmanager
async def stream(url: str) -> AsyncIterator[JetStreamContext]:
    client = await broker.connect(url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def post(gateway: Running, tenant: NewTenant, size: int = 700_000) -> int:
    answer = await gateway.client.post(
        "/api/postevents?channelLabel=Twilio", content=b"x" * size, headers={"X-Api-Key": tenant.api_key}
    )
    if answer.status_code == 503:
        gateway.problem(answer, 503)
        assert int(answer.headers["Retry-After"]) >= 1
    return answer.status_code


async def metric(gateway: Running, name: str, *labels: str) -> float:
    text = (await gateway.client.get("/metrics")).text
    found = [line for line in text.splitlines() if line.startswith(name) and all(label in line for label in labels)]
    return sum(float(line.split()[-1]) for line in found)


async def until(what: Callable[[], Any]) -> None:
    """Ask until it is so: seen from outside, there is nothing else to wait for."""
    async with asyncio.timeout(60):
        while not await what():
            await asyncio.sleep(0.05)


async def tenants(gateway: Running, *names: str) -> list[NewTenant]:
    found = []
    for name in names:
        found.append(await gateway.tenant(name))
        await gateway.channel(name, verification="off")
    return found


async def flood(gateway: Running, tenant: NewTenant) -> int:
    """Post until refused; how many were taken."""
    taken = 0
    while await post(gateway, tenant) == 200:
        taken += 1
        assert taken < 3 * SIZE // 700_000
    return taken


async def known(gateway: Running) -> None:
    """The limit is known to the gateway."""

    async def full_enough() -> bool:
        return await metric(gateway, "backhaul_gateway_callback_log_fill") > 0

    await until(full_enough)


async def test_one_tenants_flood_leaves_the_log_to_others(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    with capture_logs() as lines:
        await _flooded(gateway_factory, fresh_nats)
    crossings = [line for line in lines if line["event"] == "callback_log_share_full"]
    assert [line["log_level"] for line in crossings] == ["warning"] * len(crossings)
    # One of each gateway, however often it was refused.
    assert sum(line["tenant"] == "greedy" for line in crossings) == 2


async def _flooded(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri, stream_max_bytes=SIZE) as gateway:
        greedy, second, other = await tenants(gateway, "greedy", "second", "other")
        assert await post(gateway, greedy) == 200
        await known(gateway)
        taken = 1 + await flood(gateway, greedy)
        assert taken == SIZE // 2 // 700_000
        assert [await post(gateway, greedy) for _ in range(3)] == [503] * 3
        assert await metric(gateway, "backhaul_gateway_callbacks_total", 'outcome="quota"', 'tenant="greedy"') == 4
        # Many small ones fill a share like few large ones.
        assert await flood(gateway, second) >= 2
        assert await post(gateway, second, 10) in (200, 503)
        assert [await post(gateway, other, 100_000) for _ in range(3)] == [200] * 3
        # A second gateway knows of no publish of the first, and measures the same.
        async with gateway_factory(
            fresh_nats.uri, stream_max_bytes=SIZE, secret_keys=gateway.settings.secret_keys
        ) as copy:
            await known(copy)
            assert await post(copy, greedy) == 503
            assert await post(copy, other, 100_000) == 200
        # The other limits come first, and other calls are as before.
        assert (await gateway.client.get("/readyz")).status_code == 200


async def test_many_small_messages_are_counted_with_what_each_costs(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    size = 256 << 10
    async with gateway_factory(fresh_nats.uri, stream_max_bytes=size) as gateway:
        greedy, other = await tenants(gateway, "greedy", "other")
        assert await post(gateway, greedy, 1) == 200
        await known(gateway)
        taken = 1
        while await post(gateway, greedy, 1) == 200:
            taken += 1
            assert taken < 10_000
        async with stream(fresh_nats.uri) as js:
            state = (await js.stream_info(CALLBACKS_STREAM)).state
        assert state.messages == taken
        assert 0.4 < state.bytes / size < 0.6
        assert await post(gateway, other, 25_000) == 200


async def looks(url: str, count: int = 2) -> None:
    """Return when the gateway has begun to look at the stream ``count`` times more, and once again."""
    client = await broker.connect(url)
    asked = await client.subscribe(f"$JS.API.STREAM.INFO.{CALLBACKS_STREAM}")
    try:
        while count >= 0:
            # Tests ask for the stream's state, too, but never for its subjects.
            count -= b"subjects_filter" in (await asked.next_msg(timeout=60)).data
    finally:
        await client.close()


async def consume(js: JetStreamContext, messages: int, *, leave: tuple[int, ...] = ()) -> None:
    """Acknowledge the next ``messages`` as the normalizer does, but for those at the positions in ``leave``."""
    subscription = await js.pull_subscribe_bind(NORMALIZER_CONSUMER, CALLBACKS_STREAM)
    for _ in range(messages):
        (message,) = await subscription.fetch(1, timeout=60)
        if message.metadata.sequence.stream not in leave:
            await message.ack_sync()


async def with_consumer(js: JetStreamContext, name: str = NORMALIZER_CONSUMER) -> None:
    await js.add_consumer(
        CALLBACKS_STREAM, ConsumerConfig(durable_name=name, ack_policy=AckPolicy.EXPLICIT, ack_wait=600)
    )


async def positions(js: JetStreamContext) -> set[int]:
    state = (await js.stream_info(CALLBACKS_STREAM)).state
    found = set()
    for seq in range(state.first_seq, state.last_seq + 1):
        try:
            found.add((await js.get_msg(CALLBACKS_STREAM, seq)).seq or 0)
        except nats.js.errors.NotFoundError:
            continue
    return found


async def test_what_is_processed_makes_room_and_nothing_else_does(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri, stream_max_bytes=SIZE) as gateway, stream(fresh_nats.uri) as js:
        await with_consumer(js)
        greedy, other = await tenants(gateway, "greedy", "other")
        assert await post(gateway, other, 100_000) == 200
        await known(gateway)
        taken = await flood(gateway, greedy)
        before = await positions(js)
        assert len(before) == taken + 1
        # Nothing is processed: looking changes nothing.
        await looks(fresh_nats.uri)
        assert await positions(js) == before
        assert await post(gateway, greedy) == 503
        # All but one of the greedy one's is; what is parked, and what lies behind it, stays.
        await consume(js, taken + 1, leave=(4,))

        async def taken_again() -> bool:
            return await post(gateway, greedy) == 200

        await until(taken_again)
        left = await positions(js)
        assert {1, *range(4, taken + 2)} <= left  # The other tenant's, which is nearly nothing, as well.
        assert 2 not in left


@pytest.mark.usefixtures("looks_often")
async def test_small_messages_that_were_processed_make_no_room_for_large_ones(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri, stream_max_bytes=SIZE) as gateway, stream(fresh_nats.uri) as js:
        await with_consumer(js)
        greedy, other = await tenants(gateway, "greedy", "other")
        for _ in range(200):
            assert await post(gateway, greedy, 1) == 200
        await consume(js, 200)
        await known(gateway)
        taken = 0
        for _ in range(4):
            taken += await flood(gateway, greedy)
            await looks(fresh_nats.uri, 1)
        assert taken == SIZE // 2 // 700_000
        assert await post(gateway, other, 100_000) == 200


@pytest.mark.usefixtures("looks_often")
async def test_a_nearly_full_log_gives_up_the_oldest_of_what_everybody_has_processed(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    with capture_logs() as lines:
        await _nearly_full(gateway_factory, fresh_nats)
    filling = [line for line in lines if line["event"] == "callback_log_filling"]
    assert [line["log_level"] for line in filling] == ["warning"]
    assert filling[0]["fill"] >= 0.7


async def _nearly_full(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri, stream_max_bytes=SIZE) as gateway:
        everybody = await tenants(gateway, *(f"tenant-{n:02}" for n in range(10)))
        async with stream(fresh_nats.uri) as js:
            await with_consumer(js)
            await with_consumer(js, "audit")
            count = 0
            while (await js.stream_info(CALLBACKS_STREAM)).state.bytes < 0.86 * SIZE:
                assert await post(gateway, everybody[count % 10], 100_000) == 200
                count += 1
            await consume(js, count)

            # Another service has not had them yet.
            await looks(fresh_nats.uri)
            assert len(await positions(js)) == count
            await js.delete_consumer(CALLBACKS_STREAM, "audit")

            async def roomy() -> bool:
                return (await js.stream_info(CALLBACKS_STREAM)).state.bytes < 0.72 * SIZE

            await until(roomy)
            state = (await js.stream_info(CALLBACKS_STREAM)).state
            assert state.bytes > 0.65 * SIZE
            assert await positions(js) == set(range(state.first_seq, count + 1))
            assert [await post(gateway, tenant, 100_000) for tenant in everybody] == [200] * 10


@pytest.mark.usefixtures("looks_often")
async def test_what_is_held_is_no_room_for_anybody(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    """It is acknowledged, and the oldest: neither a full log nor a full share takes any of it."""
    async with (
        gateway_factory(fresh_nats.uri, stream_max_bytes=SIZE) as gateway,
        stream(fresh_nats.uri) as js,
    ):
        everybody = await tenants(gateway, *(f"tenant-{n:02}" for n in range(10)))
        await with_consumer(js)
        # Nothing is given up before all is processed, however often it is looked.
        await with_consumer(js, "audit")
        held = 20
        for _ in range(held):
            await js.publish(held_subject(everybody[0].queue_path, "twilio"), b"x" * 100_000)
        count = held
        while (await js.stream_info(CALLBACKS_STREAM)).state.bytes < 0.86 * SIZE:
            assert await post(gateway, everybody[1 + count % 9], 100_000) == 200
            count += 1
        await consume(js, count)
        await js.delete_consumer(CALLBACKS_STREAM, "audit")

        async def roomy() -> bool:
            return (await js.stream_info(CALLBACKS_STREAM)).state.bytes < 0.72 * SIZE

        await until(roomy)
        assert {*range(1, held + 1)} <= await positions(js)
        # Its share is taken by what is held.
        assert await flood(gateway, everybody[0]) < 4
        assert await post(gateway, everybody[1], 100_000) == 200
        await looks(fresh_nats.uri)
        assert {*range(1, held + 1)} <= await positions(js)


@pytest.mark.usefixtures("looks_often")
async def test_whether_the_log_stores_is_tried_when_callbacks_do_not_tell(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    with capture_logs() as lines:
        await _trials(gateway_factory, fresh_nats)
    told = [line["event"] for line in lines if line.get("component") == "callback_log"]
    assert told == ["callback_log_not_storing", "callback_log_storing", "callback_log_not_storing"]


async def _trials(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri) as gateway, stream(fresh_nats.uri) as js:

        async def stores() -> bool:
            return await metric(gateway, "backhaul_gateway_callback_log_storing") == 1

        async def does_not() -> bool:
            return not await stores()

        (tenant,) = await tenants(gateway, "acme")
        assert await post(gateway, tenant) == 200
        assert await stores()
        config = (await js.stream_info(CALLBACKS_STREAM)).config
        await js.update_stream(config.evolve(max_msgs=1))
        assert await post(gateway, tenant) == 503
        await until(does_not)
        # Everything else works, so the gateway stays in service.
        assert (await gateway.client.get("/readyz")).status_code == 200
        # There is room again: noticed without anybody's callback, and nothing is left of the trial.
        await js.update_stream(config)
        await until(stores)
        assert len(await positions(js)) == 1
        assert (await js.stream_info(CALLBACKS_STREAM, subjects_filter=CANARY_SUBJECT)).state.subjects is None
        # There is all the room that anybody wants, and the server stores nothing nevertheless.
        await js.update_stream((await js.stream_info(CALLBACKS_STREAM)).config.evolve(sealed=True))
        assert await post(gateway, tenant) == 503
        await until(does_not)
