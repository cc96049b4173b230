"""Whose callbacks are fed, on a real broker: a path is its tenant's, whoever that is, and nobody's are given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from backhaul_common import jetstream
from backhaul_common.lifecycle import cancel
from backhaul_common.metering import Counter as MetricCounter
from backhaul_common.metrics import MESSAGES_UNOWNED
from backhaul_common.names import CALLBACKS_STREAM, CANARY_SUBJECT, NORMALIZER_CONSUMER, callbacks_subject
from backhaul_local.nats_server import NatsServer
from backhaul_normalizer.feed import CallbacksFeed, feed_config
from backhaul_normalizer.settings import NormalizerSettings
from backhaul_normalizer.unowned import DELIVERIES, Unowned
from backhaul_testing import broker, make
from nats.aio.client import Client
from nats.js.api import ConsumerInfo
from normalizer_rig import Rig
from structlog.testing import capture_logs

MESSAGES = 30
SMALL = {"normalizer_tenant_bytes": 4096}
"""A buffer for four of the messages that ``Feeding.fill`` publishes: the others are parked."""


UNKNOWN_PAUSE_S = 0.02
"""What nobody has is delivered again after this."""


class Directory:
    """Tells one listener of tenants, as a TenantDirectory would."""

    tell: Callable[[str, Any], None]

    def __init__(self) -> None:
        self.reads_begun = 0
        self.full_read = 0
        self.paths: set[str] = set()

    def nobody_has(self, path: str, since: int) -> bool:
        return self.full_read > since and path not in self.paths

    def read_all(self, *paths: str) -> None:
        """A full read, which finds tenants with these queue paths and no others."""
        self.reads_begun += 1
        self.full_read = self.reads_begun
        self.paths = set(paths)

    def listen(self, listener: Callable[[str, Any], None]) -> None:
        self.tell = listener


@dataclass
class Feeding:
    """A feed that runs, and what a test needs around it."""

    feed: CallbacksFeed
    task: asyncio.Task[None]
    directory: Directory
    own: Client
    given_up: MetricCounter

    async def fill(self, of: Any) -> None:
        for n in range(MESSAGES):
            await self.own.jetstream().publish(
                callbacks_subject(of.queue_path, "twilio"), n.to_bytes(2, "big") + bytes(1000)
            )

    async def info(self) -> ConsumerInfo:
        info: ConsumerInfo = await self.own.jetstream().consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
        return info


async def until(probe: Callable[[], Awaitable[bool]], *, within_s: float = 60.0) -> None:
    """Returns when ``probe`` says so. The broker has no event for what is waited for here."""
    async with asyncio.timeout(within_s):
        while not await probe():
            await asyncio.sleep(0.02)


@pytest.fixture
def feeding(fresh_nats: NatsServer) -> Any:
    """``async with feeding(normalizer_ack_wait_s=…) as fed``; the same broker each time."""

    @asynccontextmanager
    async def run(**overrides: Any) -> AsyncIterator[Feeding]:
        settings = NormalizerSettings(nats_url=fresh_nats.uri, **overrides)
        async with AsyncExitStack() as stack:
            own, feeds = [await broker.connect(fresh_nats.uri) for _ in range(2)]
            for connection in (own, feeds):
                stack.push_async_callback(connection.close)
            await jetstream.ensure_streams(own.jetstream(), settings)
            directory = Directory()
            given_up = MetricCounter(MESSAGES_UNOWNED)
            unowned = Unowned(directory, given_up)
            feed = CallbacksFeed(
                feeds,
                feeds.jetstream(),
                feed_config(settings),
                directory,  # type: ignore[arg-type]  # what it uses of it
                unowned,
                unknown_pause_s=UNKNOWN_PAUSE_S,
            )
            task = asyncio.create_task(feed.run())
            stack.push_async_callback(cancel, task)
            yield Feeding(feed, task, directory, own, given_up)

    return run


async def all_wait(fed: Feeding, of: Any) -> None:
    """Have all of a backlog wait in the feed: some in the buffer, the others parked."""
    fed.directory.tell(of.id, of)
    await fed.fill(of)

    async def probe() -> bool:
        return (await fed.info()).num_ack_pending == MESSAGES and fed.feed.parked == MESSAGES - 4

    await until(probe)


async def test_the_deletion_of_a_tenant_leaves_its_path_to_whoever_took_it(feeding: Any) -> None:
    old, new = make.tenant("old"), make.tenant("new").model_copy(update={"queue_path": make.tenant("old").queue_path})
    async with feeding() as fed:
        fed.directory.tell(old.id, old)
        fed.directory.tell(new.id, new)
        fed.directory.tell(old.id, None)  # Heard of last: its change message was missed.
        await fed.fill(new)
        async with asyncio.timeout(60):
            assert {one.path for one in await fed.feed.next_batch()} == {new.queue_path}


async def test_a_path_is_fed_whatever_its_tenants_status(feeding: Any) -> None:
    # What is dropped of a tenant that is being deleted is said by the fence of the commit, and by nothing before it.
    acme = make.tenant("acme")
    async with feeding() as fed:
        fed.directory.tell(acme.id, acme.model_copy(update={"status": "deleting"}))
        await fed.fill(acme)
        async with asyncio.timeout(60):
            assert {one.path for one in await fed.feed.next_batch()} == {acme.queue_path}


async def test_a_path_changes_hands_without_losing_what_waits(feeding: Any) -> None:
    old = make.tenant("old")
    new = make.tenant("new").model_copy(update={"queue_path": old.queue_path})
    async with feeding(**SMALL) as fed:
        await all_wait(fed, old)
        fed.directory.tell(new.id, new)
        fed.directory.tell(old.id, None)
        taken: list[int] = []
        async with asyncio.timeout(60):
            while len(taken) < MESSAGES:
                taken += [one.stream_seq for one in await fed.feed.next_batch()]
        assert taken == list(range(1, MESSAGES + 1))


async def _deliveries(fed: Feeding) -> int:
    """How often messages were delivered so far."""
    info = await fed.info()
    return info.delivered.consumer_seq if info.delivered is not None else 0


async def test_what_nobody_has_is_given_up_once_the_tenants_were_read_after_it(feeding: Any) -> None:
    gone, acme = make.tenant("gone"), make.tenant("acme")
    async with feeding() as fed:
        fed.directory.tell(acme.id, acme)
        fed.directory.read_all(acme.queue_path)
        with capture_logs() as lines:
            await fed.fill(gone)

            async def delivered_often() -> bool:
                return await _deliveries(fed) > 2 * DELIVERIES * MESSAGES

            # However often: no read of the tenants has begun since they were first seen.
            await until(delivered_often)
            assert fed.given_up.value() == 0
            assert (await fed.info()).num_ack_pending == MESSAGES
            fed.directory.read_all(acme.queue_path)

            async def given_up() -> bool:
                return not (await fed.info()).num_ack_pending

            await until(given_up)
        assert fed.given_up.value() == MESSAGES
        assert [line["queue_path"] for line in lines if line["event"] == "callbacks_of_a_deleted_tenant"] == [
            gone.queue_path
        ]
        # Nothing is taken out of the stream, and whoever has the path later begins behind it.
        assert (await fed.own.jetstream().stream_info(CALLBACKS_STREAM)).state.messages == MESSAGES
        fed.directory.tell(gone.id, gone)
        await fed.fill(gone)
        async with asyncio.timeout(60):
            assert min(one.stream_seq for one in await fed.feed.next_batch()) == MESSAGES + 1


async def test_what_is_new_is_waited_for_and_not_given_up(feeding: Any) -> None:
    new = make.tenant("new")
    async with feeding() as fed:
        fed.directory.read_all()
        await fed.fill(new)

        async def seen() -> bool:
            return await _deliveries(fed) >= MESSAGES

        await until(seen)
        # A full read finds it, and this copy cannot read what it found: a newer copy wrote it.
        fed.directory.read_all(new.queue_path)

        async def delivered_often() -> bool:
            return await _deliveries(fed) > 2 * DELIVERIES * MESSAGES

        await until(delivered_often)
        assert fed.given_up.value() == 0
        fed.directory.tell(new.id, new)
        taken: set[int] = set()
        async with asyncio.timeout(60):
            while len(taken) < MESSAGES:
                taken |= {one.stream_seq for one in await fed.feed.next_batch()}


async def test_a_gateways_trial_is_nobodys_callback(rig: Rig) -> None:
    """It is deleted at once; where that failed, it must not keep what lies behind it from counting as processed."""
    acme = make.tenant("acme")
    await rig.register(acme)
    js = rig.nats.jetstream()
    await js.publish(CANARY_SUBJECT, b"\x00" * 10)
    await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))
    await rig.drained()
    info = await js.consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
    assert (info.num_ack_pending, info.ack_floor.stream_seq) == (0, 2)
