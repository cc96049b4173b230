"""A feed alone, on a real broker, and what tests of it need around it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from backhaul_common.feed import Durable, FairFeed, FeedConfig, StreamMessage
from backhaul_common.feed.formats import stream_seq_of
from backhaul_common.lifecycle import cancel
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo, StreamConfig

STREAM = "PARCELS"
MESSAGES = 30
CONFIG = FeedConfig(Durable(STREAM, "courier"))
SMALL = replace(CONFIG, path_bytes=4096)
"""A buffer for four of the messages that ``Feeding.fill`` publishes: the others are parked."""


@dataclass
class Feeding:
    """A feed that runs, and what a test needs around it. ``renewals`` counts by position in the stream."""

    feed: FairFeed
    task: asyncio.Task[None]
    own: Client
    feeds: Client
    renewals: Counter[int] = field(default_factory=Counter)

    async def put(self, path: str, data: bytes, *, kind: str = "small", **headers: str) -> None:
        await self.own.jetstream().publish(f"parcels.{path}.{kind}", data, headers=headers or None)

    async def fill(self, path: str) -> None:
        for n in range(MESSAGES):
            await self.put(path, n.to_bytes(2, "big") + bytes(1000))

    async def info(self) -> ConsumerInfo:
        info: ConsumerInfo = await self.own.jetstream().consumer_info(STREAM, CONFIG.durable.name)
        return info

    async def renewed(self, message: Msg) -> None:
        if message.data == b"+WPI":
            self.renewals[stream_seq_of(message.subject)] += 1

    async def take(self, count: int) -> list[StreamMessage]:
        taken: list[StreamMessage] = []
        async with asyncio.timeout(60):
            while len(taken) < count:
                taken += await self.feed.next_batch()
        return taken


async def until(probe: Callable[[], Awaitable[bool]], *, within_s: float = 60.0) -> None:
    """Returns when ``probe`` says so. The broker has no event for what is waited for here."""
    async with asyncio.timeout(within_s):
        while not await probe():
            await asyncio.sleep(0.02)


async def make_stream(client: Client) -> None:
    await client.jetstream().add_stream(StreamConfig(name=STREAM, subjects=["parcels.>"], allow_direct=True))


@asynccontextmanager
async def feeding_from(server: NatsServer, config: FeedConfig = CONFIG, **values: Any) -> AsyncIterator[Feeding]:
    """A feed that runs, with a stream, which is made where it is not there."""
    async with AsyncExitStack() as stack:
        own, feeds = [await broker.connect(server.uri) for _ in range(2)]
        for connection in (own, feeds):
            stack.push_async_callback(connection.close)
        await make_stream(own)
        feed = FairFeed(feeds, feeds.jetstream(), config, **values)
        task = asyncio.create_task(feed.run())
        stack.push_async_callback(cancel, task)
        fed = Feeding(feed, task, own, feeds)
        await own.subscribe(f"$JS.ACK.{STREAM}.{CONFIG.durable.name}.>", cb=fed.renewed)
        await own.flush()
        yield fed


async def all_wait(fed: Feeding) -> None:
    """Have all of a backlog wait in the feed: some in the buffer, the others parked."""
    await fed.fill("acme")

    async def probe() -> bool:
        return bool((await fed.info()).num_ack_pending == MESSAGES and fed.feed.parked == MESSAGES - 4)

    await until(probe)


def acking_within(seconds: float, config: FeedConfig = SMALL) -> FeedConfig:
    return replace(config, durable=replace(config.durable, ack_wait_s=seconds))


async def passes(check: Callable[[], Awaitable[None]]) -> bool:
    try:
        await check()
    except ConnectionError:
        return False
    return True


async def settled(value: bool) -> bool:
    return value
