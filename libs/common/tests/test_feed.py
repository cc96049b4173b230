"""The feed alone, on a real broker: what waits stays here and is sent once, and nothing else is kept from anybody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from backhaul_common.feed import Durable, FairFeed, FeedConfig, PullLimits, StreamMessage
from backhaul_common.feed.formats import Place, place_of, stream_seq_of
from backhaul_common.feed.parking import Parking
from backhaul_common.feed.pull import PullConsumer
from backhaul_common.lifecycle import cancel
from backhaul_common.names import AGAIN_HEADER
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, StreamConfig
from structlog.testing import capture_logs

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
        async with asyncio.timeout(20):
            while len(taken) < count:
                taken += await self.feed.next_batch()
        return taken


async def until(probe: Callable[[], Awaitable[bool]], *, within_s: float = 20) -> None:
    """Returns when ``probe`` says so. The broker has no event for what is waited for here."""
    async with asyncio.timeout(within_s):
        while not await probe():
            await asyncio.sleep(0.02)


async def make_stream(client: Client) -> None:
    await client.jetstream().add_stream(StreamConfig(name=STREAM, subjects=["parcels.>"], allow_direct=True))


@pytest.fixture
def feeding(fresh_nats: NatsServer) -> Any:
    """``async with feeding(config) as fed``; the same broker each time."""

    @asynccontextmanager
    async def run(config: FeedConfig = CONFIG, **values: Any) -> AsyncIterator[Feeding]:
        async with AsyncExitStack() as stack:
            own, feeds = [await broker.connect(fresh_nats.uri) for _ in range(2)]
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

    return run


async def all_wait(fed: Feeding) -> None:
    """Have all of a backlog wait in the feed: some in the buffer, the others parked."""
    await fed.fill("acme")

    async def probe() -> bool:
        return bool((await fed.info()).num_ack_pending == MESSAGES and fed.feed.parked == MESSAGES - 4)

    await until(probe)


def acking_within(seconds: float, config: FeedConfig = SMALL) -> FeedConfig:
    return replace(config, durable=replace(config.durable, ack_wait_s=seconds))


async def test_what_waits_is_renewed_and_not_sent_again(feeding: Any) -> None:
    async with feeding(acking_within(2)) as fed:
        await all_wait(fed)

        async def probe() -> bool:
            # Twice within the ack wait: after the third time it has passed.
            return len(fed.renewals) == MESSAGES and min(fed.renewals.values()) >= 3

        await until(probe)
        assert not (await fed.info()).num_redelivered
        assert fed.feeds.stats["in_bytes"] < 1.5 * MESSAGES * 1000
        assert max(fed.renewals.values()) <= 6


async def test_what_is_handed_back_goes_to_another_at_once_and_not_to_the_same_again(feeding: Any) -> None:
    # The ack wait is longer than the test: what is parked is handed back too, and nothing stays with the open pull.
    async with feeding(acking_within(60)) as fed:
        await all_wait(fed)
        await fed.feed.hand_back(0.1)
        another = await fed.own.jetstream().pull_subscribe_bind(CONFIG.durable.name, stream=STREAM)
        got: list[int] = []
        async with asyncio.timeout(5):
            while len(got) < MESSAGES:
                got += [int.from_bytes(one.data[:2], "big") for one in await another.fetch(MESSAGES, timeout=2)]
        assert sorted(got) == list(range(MESSAGES))
        # What comes later is asked for again when this copy resumes.
        fed.feed.resume()
        await fed.put("acme", b"later")
        assert [one.data for one in await fed.take(1)] == [b"later"]


async def test_what_waits_in_a_copy_that_is_stopped_goes_to_another_at_once(feeding: Any) -> None:
    async with feeding(acking_within(60)) as fed:
        await all_wait(fed)
        other = FairFeed(fed.own, fed.own.jetstream(), acking_within(60))
        task = asyncio.create_task(other.run())
        try:
            await until(partial(_passes, other.check))
            await cancel(fed.task)
            taken: set[int] = set()
            async with asyncio.timeout(10):
                while len(taken) < MESSAGES:
                    for one in await other.next_batch():
                        taken.add(one.stream_seq)
                        await one.ack()
            assert taken == set(range(1, MESSAGES + 1))
            # The one that was stopped asks for nothing, and keeps nothing.
            await fed.put("acme", b"later")
            assert [one.data for one in await asyncio.wait_for(other.next_batch(), 5)] == [b"later"]
            assert fed.feed.parked == 0
        finally:
            await cancel(task)


async def test_a_copy_is_stopped_in_time_though_the_broker_does_not_answer(
    feeding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feeding(SMALL) as fed:
        await all_wait(fed)
        began = asyncio.get_running_loop().time()
        silent = asyncio.Event()
        monkeypatch.setattr(PullConsumer, "withdraw", lambda _: silent.wait())
        await cancel(fed.task)
        assert asyncio.get_running_loop().time() - began < 6
        assert fed.task.cancelled()


async def _passes(check: Callable[[], Awaitable[None]]) -> bool:
    try:
        await check()
    except ConnectionError:
        return False
    return True


async def test_what_is_handed_back_while_the_broker_is_away_comes_once_when_it_is_back(
    feeding: Any, fresh_nats: NatsServer
) -> None:
    came: Counter[int] = Counter()

    async def admit(message: StreamMessage) -> bool:
        came[message.stream_seq] += 1
        return True

    async with feeding(admit=admit) as fed:
        await fed.put("acme", b"first")
        (first,) = await fed.take(1)
        await first.ack()
        await fresh_nats.kill()
        await until(lambda: _is(not fed.feeds.is_connected))
        await fed.feed.hand_back(0.1)
        await fresh_nats.start()
        await until(lambda: _is(fed.feeds.is_connected and fed.own.is_connected))
        fed.feed.resume()
        await fed.feed.reconnected()
        await fed.put("acme", b"later")
        # The broker may have died before it wrote down that the first one was done with.
        while not (later := [message for message in await fed.take(1) if message.data == b"later"]):
            pass
        await fed.feeds.flush()
        await fed.feed.catch_up()
        assert [came[message.stream_seq] for message in later] == [1]


async def _is(value: bool) -> bool:
    return value


async def test_what_this_copy_does_not_come_to_is_not_kept_from_others(feeding: Any) -> None:
    async with feeding(replace(acking_within(2), stuck_s=1.0)) as fed:
        await all_wait(fed)

        async def probe() -> bool:
            return bool((await fed.info()).num_redelivered == MESSAGES)

        await until(probe)


async def test_what_was_parked_is_taken_once_and_in_order(feeding: Any) -> None:
    async with feeding(SMALL) as fed:
        await all_wait(fed)
        taken = await fed.take(MESSAGES)
        assert [int.from_bytes(one.data[:2], "big") for one in taken] == list(range(MESSAGES))
        assert {(one.subject, one.path) for one in taken} == {("parcels.acme.small", "acme")}
        assert not fed.feed.parked
        for one in taken:
            await one.ack()

        async def all_acknowledged() -> bool:
            return not (await fed.info()).num_ack_pending

        await until(all_acknowledged)


async def test_what_is_parked_and_leaves_the_stream_is_forgotten_and_holds_up_nothing(feeding: Any) -> None:
    async with feeding(SMALL) as fed:
        await all_wait(fed)
        for seq in (5, 6, 20, MESSAGES):
            await fed.own.jetstream().delete_msg(STREAM, seq)
        taken = await fed.take(MESSAGES - 4)
        assert [one.stream_seq for one in taken] == [n for n in range(1, MESSAGES) if n not in (5, 6, 20)]

        async def forgotten() -> bool:
            return bool(fed.feed.parked == 0)

        await until(forgotten)


async def test_what_is_parked_waits_for_a_server_that_reads_it(feeding: Any) -> None:
    async with feeding(SMALL) as fed:
        js = fed.own.jetstream()
        stream = (await js.stream_info(STREAM)).config
        await js.update_stream(stream.evolve(allow_direct=False))
        await all_wait(fed)
        with capture_logs() as lines:
            assert len(await fed.feed.next_batch()) == 4

            async def said() -> bool:
                return any(line["event"] == "parked_not_read" for line in lines)

            await until(said)
        assert fed.feed.parked == MESSAGES - 4
        await js.update_stream(stream)
        assert [one.stream_seq for one in await fed.take(MESSAGES - 4)] == list(range(5, MESSAGES + 1))


async def test_the_trace_survives_parking(feeding: Any) -> None:
    trace = "00-{:032x}-{:016x}-01"
    async with feeding(replace(SMALL, path_bytes=100)) as fed:
        for n in range(1, 4):
            await fed.put("acme", bytes(90), traceparent=trace.format(n, n))

        async def parked() -> bool:
            return bool(fed.feed.parked == 2)

        await until(parked)
        assert [one.traceparent for one in await fed.take(3)] == [trace.format(n, n) for n in range(1, 4)]


async def test_what_may_have_been_published_before_says_so_parked_or_not(feeding: Any) -> None:
    async with feeding(replace(SMALL, path_bytes=100)) as fed:
        for n in range(4):
            await fed.put("acme", bytes(90), **({AGAIN_HEADER: "1"} if n % 2 else {"traceparent": "none"}))

        async def parked() -> bool:
            return bool(fed.feed.parked == 3)

        await until(parked)
        assert [one.again for one in await fed.take(4)] == [False, True, False, True]


async def test_a_feed_may_park_nothing_and_still_shares(feeding: Any) -> None:
    async with feeding(replace(CONFIG, path_bytes=None, batch_bytes=10_000)) as fed:
        await fed.fill("acme")
        await fed.put("globex", bytes(1000))

        async def all_here() -> bool:
            return bool((await fed.info()).num_ack_pending == MESSAGES + 1)

        await until(all_here)
        first = await fed.feed.next_batch()
        assert fed.feed.parked == 0
        assert "globex" in {one.path for one in first}
        assert len(first) <= 11
        rest = await fed.take(MESSAGES + 1 - len(first))
        assert Counter(one.path for one in [*first, *rest]) == {"acme": MESSAGES, "globex": 1}


async def test_what_is_not_filtered_is_another_consumers(feeding: Any) -> None:
    large = replace(CONFIG, durable=replace(CONFIG.durable, filter_subjects=("parcels.*.large", "parcels.*.huge")))
    async with feeding(large) as fed:
        for kind in ("small", "large", "small", "huge"):
            await fed.put("acme", kind.encode(), kind=kind)
        assert [one.data for one in await fed.take(2)] == [b"large", b"huge"]
    # A filter that changes with a version reaches the consumer that is there.
    small = replace(CONFIG, durable=replace(CONFIG.durable, filter_subjects=("parcels.*.small",)))
    async with feeding(small) as fed:

        async def changed() -> bool:
            config = (await fed.info()).config
            return [config.filter_subject, *(config.filter_subjects or [])].count("parcels.*.small") == 1

        await until(changed)


@pytest.mark.parametrize("filters", [("parcels.*.small",), ("parcels.*.small", "parcels.*.huge"), ()])
async def test_a_filter_that_somebody_wrote_in_the_other_way_is_brought_in_line(
    fresh_nats: NatsServer, filters: tuple[str, ...]
) -> None:
    client = await broker.connect(fresh_nats.uri)
    try:
        await make_stream(client)
        js = client.jetstream()
        # As nats-py and the nats command write a single one.
        theirs = ConsumerConfig(
            durable_name=CONFIG.durable.name, ack_policy=AckPolicy.EXPLICIT, filter_subject="parcels.*.large"
        )
        await js.add_consumer(STREAM, theirs)
        for _ in range(2):
            await replace(CONFIG.durable, filter_subjects=filters).ensure(js)
        config = (await js.consumer_info(STREAM, CONFIG.durable.name)).config
        found = [config.filter_subject] if config.filter_subject else config.filter_subjects or []
        assert tuple(found) == filters
    finally:
        await client.close()


async def test_what_is_not_admitted_is_answered_by_whoever_says_so(feeding: Any) -> None:
    refused: list[bytes] = []

    async def admit(message: StreamMessage) -> bool:
        if message.data == b"good":
            return True
        refused.append(message.data)
        await message.term()
        return False

    async with feeding(CONFIG, admit=admit) as fed:
        await fed.put("acme", b"bad")
        await fed.put("acme", b"good")
        assert [one.data for one in await fed.take(1)] == [b"good"]
        assert refused == [b"bad"]

        async def one_waits() -> bool:
            return bool((await fed.info()).num_ack_pending == 1)

        await until(one_waits)


async def test_a_message_larger_than_the_pull_is_said_and_not_asked_for_in_circles(feeding: Any) -> None:
    with capture_logs() as lines:
        async with feeding(replace(CONFIG, pull=PullLimits(512, 2000))) as fed:
            await fed.put("acme", bytes(5000))

            async def said() -> bool:
                return any(line["event"] == "message_larger_than_pull" for line in lines)

            await until(said)
            before = fed.feeds.stats["out_msgs"]
            for _ in range(20):
                await fed.own.flush()  # A round trip each: circles at the speed of the network would show.
            assert fed.feeds.stats["out_msgs"] - before <= 2
    (line,) = [line for line in lines if line["event"] == "message_larger_than_pull"]
    assert (line["log_level"], line["pull_bytes"]) == ("error", 2000)


def test_what_the_subject_of_an_acknowledgement_says() -> None:
    plain = "$JS.ACK.CALLBACKS.normalizer.3.41.7.1700000000000000000.9"
    of_a_domain = "$JS.ACK.hub.ACCOUNT.CALLBACKS.normalizer.12.41.7.1700000000000000000.9.token"
    assert place_of(plain) == Place("normalizer", 3, 41, 7, 9)
    assert place_of(of_a_domain) == Place("normalizer", 12, 41, 7, 9)
    assert stream_seq_of(plain) == stream_seq_of(of_a_domain) == 41


async def test_changed_limits_reach_the_broker_and_leave_what_an_operator_set(feeding: Any) -> None:
    async with feeding(replace(CONFIG, durable=Durable(STREAM, "courier", max_pending=2000))) as fed:

        async def there() -> bool:
            return bool((await fed.own.jetstream().stream_info(STREAM)).state.consumer_count == 1)

        await until(there)
        config = (await fed.info()).config
        assert (config.ack_wait, config.max_ack_pending, config.max_deliver) == (30, 2000, -1)
        await fed.own.jetstream().add_consumer(STREAM, config.evolve(description="watched by Ada"))
    async with feeding(replace(CONFIG, durable=Durable(STREAM, "courier", ack_wait_s=5, max_pending=3000))) as fed:

        async def changed() -> bool:
            config = (await fed.info()).config
            return (config.ack_wait, config.max_ack_pending) == (5, 3000)

        await until(changed)
        assert (await fed.info()).config.description == "watched by Ada"


async def test_an_unexpected_error_in_reading_what_is_parked_ends_the_run_and_the_next_goes_on(
    feeding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Parking._read_some

    async def fail(self: Parking, path: str) -> None:
        monkeypatch.setattr(Parking, "_read_some", whole)
        raise ValueError("an answer that nobody expected")

    monkeypatch.setattr(Parking, "_read_some", fail)
    async with feeding(SMALL) as fed:
        await all_wait(fed)
        taken = len(await fed.feed.next_batch())
        with pytest.raises(ValueError, match="nobody expected"):
            await asyncio.wait_for(asyncio.shield(fed.task), 10)
        with pytest.raises(ConnectionError):
            await fed.feed.check()
        again = asyncio.create_task(fed.feed.run())
        try:
            await fed.take(MESSAGES - taken)
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
        await fed.own.jetstream().delete_stream(STREAM)
        assert not await ready()
        await make_stream(fed.own)
        await until(ready)
        await cancel(fed.task)
        assert not await ready()
