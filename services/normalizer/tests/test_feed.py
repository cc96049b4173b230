"""The feed alone, on a real broker: what waits stays here and is sent once, and nothing else is kept from anybody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import nats
import pytest
from backhaul_common import jetstream
from backhaul_common.lifecycle import cancel
from backhaul_common.metrics import MESSAGES_UNOWNED
from backhaul_common.metrics import Counter as MetricCounter
from backhaul_common.names import CALLBACKS_STREAM, CANARY_SUBJECT, NORMALIZER_CONSUMER, callbacks_subject
from backhaul_local.nats_server import NatsServer
from backhaul_normalizer import feed as feed_module
from backhaul_normalizer.delivery import deliveries_of, stream_seq_of
from backhaul_normalizer.feed import FairFeed
from backhaul_normalizer.parking import Parking, Source
from backhaul_normalizer.settings import NormalizerSettings
from backhaul_normalizer.unowned import DELIVERIES, Unowned
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo
from structlog.testing import capture_logs

MESSAGES = 30
SMALL = {"normalizer_tenant_bytes": 4096}
"""A buffer for four of the messages that ``Feeding.fill`` publishes: the others are parked."""


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
    """A feed that runs, and what a test needs around it. ``renewals`` counts by position in the stream."""

    feed: FairFeed
    task: asyncio.Task[None]
    directory: Directory
    own: Client
    feeds: Client
    given_up: MetricCounter
    renewals: Counter[int] = field(default_factory=Counter)

    async def fill(self, of: Any) -> None:
        for n in range(MESSAGES):
            await self.own.jetstream().publish(
                callbacks_subject(of.queue_path, "twilio"), n.to_bytes(2, "big") + bytes(1000)
            )

    async def info(self) -> ConsumerInfo:
        info: ConsumerInfo = await self.own.jetstream().consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
        return info

    async def renewed(self, message: Msg) -> None:
        if message.data == b"+WPI":
            self.renewals[stream_seq_of(message.subject)] += 1


async def until(probe: Callable[[], Awaitable[bool]], *, within_s: float = 20) -> None:
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
            own, feeds = [await nats.connect(fresh_nats.uri) for _ in range(2)]
            for connection in (own, feeds):
                stack.push_async_callback(connection.close)
            await jetstream.ensure_streams(own.jetstream(), settings)
            directory = Directory()
            given_up = MetricCounter(MESSAGES_UNOWNED)
            unowned = Unowned(directory, given_up)
            feed = FairFeed(feeds, feeds.jetstream(), directory, settings, unowned)  # type: ignore[arg-type]  # what it uses of it
            task = asyncio.create_task(feed.run())
            stack.push_async_callback(cancel, task)
            fed = Feeding(feed, task, directory, own, feeds, given_up)
            await own.subscribe(f"$JS.ACK.{CALLBACKS_STREAM}.{NORMALIZER_CONSUMER}.>", cb=fed.renewed)
            await own.flush()
            yield fed

    return run


async def all_wait(fed: Feeding, of: Any) -> None:
    """Have all of a backlog wait in the feed: some in the buffer, the others parked."""
    fed.directory.tell(of.id, of)
    await fed.fill(of)

    async def probe() -> bool:
        return (await fed.info()).num_ack_pending == MESSAGES and fed.feed.parked == MESSAGES - 4

    await until(probe)


async def test_what_waits_is_renewed_and_not_sent_again(feeding: Any, make: Any) -> None:
    async with feeding(normalizer_ack_wait_s=2, **SMALL) as fed:
        await all_wait(fed, make.tenant("acme"))

        async def probe() -> bool:
            # Twice within the ack wait: after the third time it has passed.
            return len(fed.renewals) == MESSAGES and min(fed.renewals.values()) >= 3

        await until(probe)
        assert not (await fed.info()).num_redelivered
        assert fed.feeds.stats["in_bytes"] < 1.5 * MESSAGES * 1000
        assert max(fed.renewals.values()) <= 6


async def test_what_is_handed_back_goes_to_another_at_once_and_not_to_the_same_again(feeding: Any, make: Any) -> None:
    # The ack wait is longer than the test: what is parked is handed back too, and nothing stays with the open pull.
    async with feeding(normalizer_ack_wait_s=60, **SMALL) as fed:
        acme = make.tenant("acme")
        await all_wait(fed, acme)
        await fed.feed.hand_back(0.1)
        another = await fed.own.jetstream().pull_subscribe_bind(NORMALIZER_CONSUMER, stream=CALLBACKS_STREAM)
        got: list[int] = []
        async with asyncio.timeout(5):
            while len(got) < MESSAGES:
                got += [int.from_bytes(one.data[:2], "big") for one in await another.fetch(MESSAGES, timeout=2)]
        assert sorted(got) == list(range(MESSAGES))
        # What comes later is asked for again when this copy resumes.
        fed.feed.resume()
        await fed.own.jetstream().publish(callbacks_subject(acme.queue_path, "twilio"), b"later")
        async with asyncio.timeout(5):
            assert [one.data for one in await fed.feed.next_batch()] == [b"later"]


async def test_what_this_copy_does_not_come_to_is_not_kept_from_others(
    feeding: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "STUCK_S", 1.0)
    async with feeding(normalizer_ack_wait_s=2, **SMALL) as fed:
        await all_wait(fed, make.tenant("acme"))

        async def probe() -> bool:
            return bool((await fed.info()).num_redelivered == MESSAGES)

        await until(probe)


async def test_what_was_parked_is_taken_once_and_in_order(feeding: Any, make: Any) -> None:
    async with feeding(**SMALL) as fed:
        await all_wait(fed, make.tenant("acme"))
        taken: list[int] = []
        async with asyncio.timeout(20):
            while len(taken) < MESSAGES:
                taken += [int.from_bytes(one.data[:2], "big") for one in await fed.feed.next_batch()]
        assert taken == list(range(MESSAGES))
        assert not fed.feed.parked


async def test_the_deletion_of_a_tenant_leaves_its_path_to_whoever_took_it(feeding: Any, make: Any) -> None:
    old, new = make.tenant("old"), make.tenant("new").model_copy(update={"queue_path": make.tenant("old").queue_path})
    async with feeding() as fed:
        fed.directory.tell(old.id, old)
        fed.directory.tell(new.id, new)
        fed.directory.tell(old.id, None)  # Heard of last: its change message was missed.
        await fed.fill(new)
        async with asyncio.timeout(10):
            assert {one.path for one in await fed.feed.next_batch()} == {new.queue_path}


async def test_a_path_is_fed_whatever_its_tenants_status(feeding: Any, make: Any) -> None:
    # What is dropped of a tenant that is being deleted is said by the fence of the commit, and by nothing before it.
    acme = make.tenant("acme")
    async with feeding() as fed:
        fed.directory.tell(acme.id, acme.model_copy(update={"status": "deleting"}))
        await fed.fill(acme)
        async with asyncio.timeout(10):
            assert {one.path for one in await fed.feed.next_batch()} == {acme.queue_path}


async def test_a_path_changes_hands_without_losing_what_waits(feeding: Any, make: Any) -> None:
    old = make.tenant("old")
    new = make.tenant("new").model_copy(update={"queue_path": old.queue_path})
    async with feeding(**SMALL) as fed:
        await all_wait(fed, old)
        fed.directory.tell(new.id, new)
        fed.directory.tell(old.id, None)
        taken: list[int] = []
        async with asyncio.timeout(20):
            while len(taken) < MESSAGES:
                taken += [one.stream_seq for one in await fed.feed.next_batch()]
        assert taken == list(range(1, MESSAGES + 1))


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has is delivered again after 20 ms."""
    monkeypatch.setattr(feed_module, "_UNKNOWN_TENANT_S", 0.02)


async def _deliveries(fed: Feeding) -> int:
    """How often messages were delivered so far."""
    info = await fed.info()
    return info.delivered.consumer_seq if info.delivered is not None else 0


@pytest.mark.usefixtures("quickly")
async def test_what_nobody_has_is_given_up_once_the_tenants_were_read_after_it(feeding: Any, make: Any) -> None:
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
        async with asyncio.timeout(10):
            assert min(one.stream_seq for one in await fed.feed.next_batch()) == MESSAGES + 1


@pytest.mark.usefixtures("quickly")
async def test_what_is_new_is_waited_for_and_not_given_up(feeding: Any, make: Any) -> None:
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
        async with asyncio.timeout(10):
            while len(taken) < MESSAGES:
                taken |= {one.stream_seq for one in await fed.feed.next_batch()}


def test_how_often_a_message_was_delivered() -> None:
    assert deliveries_of("$JS.ACK.CALLBACKS.normalizer.3.41.7.1700000000000000000.0") == 3
    assert deliveries_of("$JS.ACK.hub.ACCOUNT.CALLBACKS.normalizer.12.41.7.1700000000000000000.0.token") == 12
    assert stream_seq_of("$JS.ACK.hub.ACCOUNT.CALLBACKS.normalizer.12.41.7.1700000000000000000.0.token") == 41


async def test_changed_settings_reach_the_broker_and_leave_what_an_operator_set(feeding: Any) -> None:
    async with feeding(normalizer_ack_wait_s=30, normalizer_max_pending=2000) as fed:

        async def there() -> bool:
            return bool((await fed.own.jetstream().stream_info(CALLBACKS_STREAM)).state.consumer_count == 1)

        await until(there)
        config = (await fed.info()).config
        assert (config.ack_wait, config.max_ack_pending, config.max_deliver) == (30, 2000, -1)
        await fed.own.jetstream().add_consumer(CALLBACKS_STREAM, config.evolve(description="watched by Ada"))
    async with feeding(normalizer_ack_wait_s=5, normalizer_max_pending=3000) as fed:

        async def changed() -> bool:
            config = (await fed.info()).config
            return (config.ack_wait, config.max_ack_pending) == (5, 3000)

        await until(changed)
        assert (await fed.info()).config.description == "watched by Ada"


async def test_an_unexpected_error_in_reading_what_is_parked_ends_the_run_and_the_next_goes_on(
    feeding: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Parking._read_some

    async def fail(self: Parking, source: Source) -> None:
        monkeypatch.setattr(Parking, "_read_some", whole)
        raise ValueError("an answer that nobody expected")

    monkeypatch.setattr(Parking, "_read_some", fail)
    async with feeding(**SMALL) as fed:
        await all_wait(fed, make.tenant("acme"))
        taken = len(await fed.feed.next_batch())
        with pytest.raises(ValueError, match="nobody expected"):
            await asyncio.wait_for(asyncio.shield(fed.task), 10)
        with pytest.raises(ConnectionError):
            await fed.feed.check()
        again = asyncio.create_task(fed.feed.run())
        try:
            async with asyncio.timeout(20):
                while taken < MESSAGES:
                    taken += len(await fed.feed.next_batch())
            await fed.feed.check()
        finally:
            await cancel(again)


async def test_it_is_ready_while_it_runs_and_its_consumer_exists(feeding: Any) -> None:
    async with feeding() as fed:

        async def ready() -> bool:
            try:
                await fed.feed.check()
            except ConnectionError:
                return False
            return True

        await until(ready)
        await fed.own.jetstream().delete_stream(CALLBACKS_STREAM)
        assert not await ready()
        await jetstream.ensure_streams(fed.own.jetstream(), NormalizerSettings())
        await until(ready)
        await cancel(fed.task)
        assert not await ready()


async def test_a_gateways_trial_is_nobodys_callback(rig: Any, make: Any) -> None:
    """It is deleted at once; where that failed, it must not keep what lies behind it from counting as processed."""
    acme = make.tenant("acme")
    await rig.register(acme)
    js = rig.nats.jetstream()
    await js.publish(CANARY_SUBJECT, b"\x00" * 10)
    await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))
    await rig.drained()
    info = await js.consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
    assert (info.num_ack_pending, info.ack_floor.stream_seq) == (0, 2)
