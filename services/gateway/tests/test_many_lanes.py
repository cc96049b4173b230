"""The publisher with many tenants at once: their messages share batches, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from backhaul_common import jetstream
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.metering import Metrics
from backhaul_common.names import CALLBACKS_STREAM
from backhaul_common.settings import CommonSettings
from backhaul_common.tracing import Tracing
from backhaul_gateway.ingest.publisher import COUNTED_S, MAX_SINGLES, GroupCommitPublisher
from backhaul_local.nats_server import NatsServer
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from backhaul_testing import broker
from backhaul_testing.waiting import until
from nats.aio.client import Client
from nats.js.api import StreamConfig
from structlog.testing import capture_logs

TIMEOUT_S = 10.0


@dataclass
class Many:
    """A publisher, and what became of the callbacks that were given to it."""

    server: NatsServer
    client: Client
    publisher: GroupCommitPublisher
    told: Counter[str] = field(default_factory=Counter)
    """What ``on_stored`` said: messages by subject."""

    def post(self, tenant: str, number: int, size: int = 100) -> asyncio.Task[None]:
        callback = Callback(id=f"{tenant}-{number}", tenant_id=tenant, body=b"x" * size)
        subject = f"callbacks.{tenant}.twilio"
        return asyncio.create_task(
            self.publisher.publish(subject, callback.id, callback.SerializeToString(), "00-trace")
        )

    async def until_waiting(self, count: int) -> None:
        async def waits() -> bool:
            return self.publisher.waiting >= count

        await until(f"{count} callbacks that wait", waits, within_s=20)

    async def stored(self) -> tuple[Counter[str], int]:
        """The ids of all stored callbacks, and how many messages came in batches. Each message is one tenant's."""
        client = await broker.connect(self.server.uri)
        ids: Counter[str] = Counter()
        batched = 0
        try:
            js = client.jetstream()
            state = (await js.stream_info(CALLBACKS_STREAM)).state
            for seq in range(1, state.last_seq + 1):
                message = await js.get_msg(CALLBACKS_STREAM, seq)
                batched += "Nats-Batch-Id" in (message.headers or {})
                callbacks = CallbackBatch.FromString(message.data or b"").callbacks
                assert {f"callbacks.{one.tenant_id}.twilio" for one in callbacks} == {message.subject}
                ids.update(one.id for one in callbacks)
        finally:
            await client.close()
        return ids, batched


Making = Callable[..., AbstractAsyncContextManager[Many]]


@pytest.fixture
def making(fresh_nats: NatsServer) -> Making:
    @asynccontextmanager
    async def make(*, timeout_s: float = TIMEOUT_S, **stream: object) -> AsyncIterator[Many]:
        settings = CommonSettings(nats_url=fresh_nats.uri)
        told: Counter[str] = Counter()
        publisher = GroupCommitPublisher(
            timeout_s=timeout_s,
            metrics=Metrics("gateway"),
            tracing=Tracing("gateway", None),
            on_stored=lambda subject, _: told.update([subject]),
        )
        client = jetstream.Connection(keep_unsent=False)
        await jetstream.connect(
            settings,
            "test",
            client=client,
            buffer_while_away=False,
            on_reconnect=lambda: publisher.connected(client),
        )
        if stream:
            config = StreamConfig(name=CALLBACKS_STREAM, subjects=["callbacks.>"])
            await client.jetstream().add_stream(config.evolve(**stream))
        else:
            await jetstream.ensure_streams(client.jetstream(), settings)
        await publisher.connected(client)
        try:
            yield Many(fresh_nats, client, publisher, told)
        finally:
            await client.close()

    return make


def tenants(count: int) -> list[str]:
    return [f"t{number:04d}" for number in range(count)]


async def test_a_thousand_tenants_share_batches_and_each_message_is_its_tenants(making: Making) -> None:
    async with making() as many:
        many.server.pause()
        posts = []
        for number in range(3):
            posts += [many.post(tenant, number) for tenant in tenants(1000)]
            await many.until_waiting(len(posts))
        before = many.client.stats["in_msgs"]
        many.server.resume()
        await asyncio.gather(*posts)
        answers = many.client.stats["in_msgs"] - before
        ids, batched = await many.stored()
        assert ids == {f"{tenant}-{number}": 1 for number in range(3) for tenant in tenants(1000)}
        # A thousand in the first turn, and what gathered behind them.
        assert batched >= 2000
        assert answers < 50
        assert many.told.keys() == {f"callbacks.{tenant}.twilio" for tenant in tenants(1000)}
        assert many.publisher.idle


async def test_few_lanes_go_singly_and_what_gathers_behind_them_shares_their_messages(making: Making) -> None:
    async with making() as many:
        many.server.pause()
        posts = [many.post(tenant, number) for number in range(50) for tenant in tenants(20)]
        await many.until_waiting(1000)
        many.server.resume()
        await asyncio.gather(*posts)
        ids, batched = await many.stored()
        assert (len(ids), ids.total(), batched) == (1000, 1000, 0)
        assert sum(many.told.values()) <= 60
        assert many.publisher.idle


async def test_large_callbacks_of_some_are_stored_beside_the_batch(making: Making) -> None:
    async with making() as many:
        posts = [many.post(tenant, 1, 200_000 if n % 20 == 0 else 100) for n, tenant in enumerate(tenants(200))]
        await asyncio.gather(*posts)
        ids, batched = await many.stored()
        assert ids == {f"{tenant}-1": 1 for tenant in tenants(200)}
        assert batched <= 190


async def test_where_the_stream_takes_no_batches_all_are_stored_singly(making: Making) -> None:
    async with making(allow_atomic=False) as many:
        with capture_logs() as lines:
            await asyncio.gather(*(many.post(tenant, 1) for tenant in tenants(200)))
            await asyncio.gather(*(many.post(tenant, 2) for tenant in tenants(200)))
        ids, batched = await many.stored()
        assert (len(ids), ids.total(), batched) == (400, 400, 0)
        assert [line["event"] for line in lines] == ["batch_refused"]


async def test_one_tenants_refusal_is_not_the_others(making: Making) -> None:
    async with making(allow_atomic=True, max_msg_size=10_000) as many:
        with capture_logs():
            posts = {tenant: many.post(tenant, 1, 20_000 if tenant == "t0050" else 100) for tenant in tenants(100)}
            answers = dict(zip(posts, await asyncio.gather(*posts.values(), return_exceptions=True), strict=True))
        refused = answers.pop("t0050")
        assert isinstance(refused, BackhaulError)
        assert refused.code is Code.UNAVAILABLE
        assert set(answers.values()) == {None}
        ids, _ = await many.stored()
        assert ids == {f"{tenant}-1": 1 for tenant in answers}
        assert many.publisher.idle


async def test_a_full_stream_is_said_to_those_whose_callbacks_it_has_no_room_for(making: Making) -> None:
    async with making(allow_atomic=True, max_msgs=60, discard="new") as many:
        with capture_logs():
            posts = {tenant: many.post(tenant, 1) for tenant in tenants(100)}
            answers = dict(zip(posts, await asyncio.gather(*posts.values(), return_exceptions=True), strict=True))
        ids, _ = await many.stored()
        assert ids == {f"{tenant}-1": 1 for tenant, answer in answers.items() if answer is None}
        assert len(ids) == 60
        assert many.publisher.failed_at >= many.publisher.stored_at > 0


async def test_what_was_in_flight_when_the_server_died_is_stored_once(making: Making) -> None:
    async with making(timeout_s=20) as many:
        await asyncio.gather(*(many.post(tenant, 0) for tenant in tenants(300)))
        for round_ in range(1, 4):
            posts = [many.post(tenant, round_) for tenant in tenants(300)]
            await asyncio.sleep(0.004 * round_)  # Anywhere in a batch's way: nothing tells where it is.
            with capture_logs():
                await many.server.kill()
                await many.server.start()
                answers = await asyncio.gather(*posts, return_exceptions=True)
            assert set(answers) == {None}
        ids, _ = await many.stored()
        assert ids == {f"{tenant}-{round_}": 1 for round_ in range(4) for tenant in tenants(300)}
        assert many.publisher.idle


@pytest.mark.timed
async def test_while_nothing_is_acknowledged_each_is_answered_in_time_and_nothing_is_kept(making: Making) -> None:
    async with making(timeout_s=3) as many:
        many.server.pause()
        began = time.monotonic()
        with capture_logs():
            posts = []
            for number in range(4):
                posts += [many.post(tenant, number) for tenant in tenants(300)]
                await many.until_waiting(len(posts))
            answers = await asyncio.gather(*posts, return_exceptions=True)
        assert {answer.code for answer in answers if isinstance(answer, BackhaulError)} == {Code.UNAVAILABLE}
        assert len(answers) == 1200
        assert None not in answers
        assert time.monotonic() - began < 8
        assert many.publisher.idle
        many.server.resume()
        await many.post("t0001", 99)
        ids, _ = await many.stored()
        # What was in flight is stored after all, and what waited behind it where it still had time.
        assert ids.keys() >= {"t0001-99"} | {f"{tenant}-{number}" for number in range(2) for tenant in tenants(300)}
        assert set(ids.values()) == {1}


@pytest.mark.timed
async def test_tenants_whose_messages_are_never_answered_keep_nobody_waiting(making: Making) -> None:
    async with making() as many:
        # Somebody takes them who says nothing, as where the server's permissions miss some subjects.
        await many.client.subscribe("elsewhere.>")
        lost = [
            asyncio.create_task(many.publisher.publish(f"elsewhere.{n}", f"id-{n}", b"", ""))
            for n in range(MAX_SINGLES)
        ]
        await many.until_waiting(MAX_SINGLES)
        await asyncio.sleep(0)
        began = time.monotonic()
        await many.post("t0001", 1)
        assert time.monotonic() - began < TIMEOUT_S / 2
        assert COUNTED_S < TIMEOUT_S / 10
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
