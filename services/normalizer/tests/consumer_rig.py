"""A consumer with a part exchanged, and parts that fail: what tests of what becomes of a batch share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from backhaul_channels import load_adapters
from backhaul_common.directory import TenantDirectory, TenantDocuments
from backhaul_common.errors import unavailable
from backhaul_common.feed import StreamMessage
from backhaul_common.lifecycle import cancel
from backhaul_common.metering import Counter, Metrics
from backhaul_common.metrics import MESSAGES_UNOWNED
from backhaul_common.names import (
    TENANTS_COLLECTION,
)
from backhaul_common.tracing import Tracing
from backhaul_normalizer.activity import Activity
from backhaul_normalizer.consumer import Consumer
from backhaul_normalizer.feed import CallbacksFeed, feed_config
from backhaul_normalizer.model import Committed, Fact, Outgoing, Rejection
from backhaul_normalizer.normalize import Normalizer
from backhaul_normalizer.ports import EventStore, Holding, Publisher
from backhaul_normalizer.settings import NormalizerSettings
from backhaul_normalizer.store import MongoEventStore
from backhaul_normalizer.unowned import Unowned
from backhaul_proto.callback.v1.callback_pb2 import Callback
from normalizer_rig import Rig

Wrap = Callable[[Any], Any]


class FailingPublisher:
    """Publishes, but not the first time: as if the process had died between commit and publish."""

    def __init__(self, inner: Publisher) -> None:
        self._inner = inner
        self.refused = 0

    async def publish(self, events: Sequence[Outgoing], traceparent: str, *, again: bool = False) -> None:
        if not self.refused:
            self.refused = len(events)
            raise unavailable("JetStream")
        await self._inner.publish(events, traceparent, again=again)


class OtherStore:
    """Another store in front of a real one, which does the work."""

    def __init__(self, inner: EventStore) -> None:
        self._inner = inner

    async def ping(self) -> None:
        await self._inner.ping()

    async def takes_writes(self) -> None:
        await self._inner.takes_writes()

    async def commit(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> Committed:
        return await self._inner.commit(facts, rejections)


class FailingStore(OtherStore):
    """Stores, but fails without hope on one message: as if MongoDB refused a document."""

    async def commit(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> Committed:
        if any(fact.event.message_id == "SMpoison" for fact in facts):
            raise ValueError("a document that MongoDB does not take")
        return await super().commit(facts, rejections)


class NothingIsHeld:
    """``Holds`` where every channel's callbacks are processed."""

    def holds(self, registration: str, channel: str, subject: str) -> bool:
        return False

    async def set_aside(self, held: Sequence[Holding]) -> Sequence[StreamMessage]:
        raise AssertionError(held)


def facts(normalizer: Normalizer, callback: Callback, stream_seq: int, queue_path: str) -> list[Fact]:
    """What a callback tells, all of which can be read."""
    told = list(normalizer.read(callback, stream_seq, queue_path))
    assert all(isinstance(one, Fact) for one in told)
    return [one for one in told if isinstance(one, Fact)]


@asynccontextmanager
async def consuming_with(
    rig: Rig,
    *,
    wrap_store: Wrap = lambda it: it,
    wrap_publisher: Wrap = lambda it: it,
    ack_wait_s: float = 30.0,
) -> AsyncIterator[Any]:
    """A consumer that runs on the rig's callbacks, with its store or its publisher exchanged. Yields the publisher."""
    settings: NormalizerSettings = rig.settings
    async with AsyncExitStack() as stack:
        metrics = Metrics("test")
        stack.callback(metrics.close)
        directory = TenantDirectory(TenantDocuments(rig.database[TENANTS_COLLECTION]))
        await directory.refresh()
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        inner = await rig.publisher()
        feed = CallbacksFeed(
            rig.nats,
            rig.nats.jetstream(),
            feed_config(settings),
            directory,
            Unowned(directory, Counter(MESSAGES_UNOWNED)),
        )
        publisher = wrap_publisher(inner)
        consumer = Consumer(
            feed,
            directory,
            Normalizer(load_adapters(), directory),
            wrap_store(store),
            publisher,
            NothingIsHeld(),
            Activity(rig.database),
            metrics,
            Tracing("test", None),
            ack_wait_s=ack_wait_s,
        )
        for work in (feed.run(), consumer.run()):
            stack.push_async_callback(cancel, asyncio.create_task(work))
        yield publisher
