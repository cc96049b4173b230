"""The feed alone, on a real broker: what waits stays here and is sent once, and nothing else is kept from anybody."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from backhaul_common.feed import Durable, PullLimits, StreamMessage, fair, growth
from backhaul_common.feed.formats import Place, place_of, stream_seq_of
from backhaul_common.lifecycle import cancel
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from feed_rig import CONFIG, MESSAGES, STREAM, make_stream, passes, until
from nats.js.api import AckPolicy, ConsumerConfig
from structlog.testing import capture_logs


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


async def waiting(fed: Any, count: int) -> None:
    """Have ``count`` messages wait in the feed."""

    async def probe() -> bool:
        return len(list(fed.feed._buffers.positions())) == count

    await until(probe)


@pytest.mark.parametrize("beside_s", [0.0, 60.0])
async def test_a_backlog_is_taken_in_smaller_batches_while_others_come(
    feeding: Any, monkeypatch: pytest.MonkeyPatch, beside_s: float
) -> None:
    monkeypatch.setattr(fair, "_BESIDE_S", beside_s)
    config = replace(CONFIG, path_bytes=None, batch_bytes=12_000, beside_bytes=4_100)
    async with feeding(config) as fed:
        await fed.fill("acme")
        await waiting(fed, MESSAGES)
        assert Counter(one.path for one in await fed.feed.next_batch()) == {"acme": 12}, "nobody else waits"
        assert not fed.feed.beside
        await fed.put("globex", bytes(1000))
        await waiting(fed, MESSAGES - 12 + 1)
        if not beside_s:
            assert Counter(one.path for one in await fed.feed.next_batch()) == {"globex": 1, "acme": 11}
            return
        assert Counter(one.path for one in await fed.feed.next_batch()) == {"globex": 1}, "it does not wait for acme's"
        assert fed.feed.beside
        # Another one of globex may come at any moment, for as long as this.
        assert Counter(one.path for one in await fed.feed.next_batch()) == {"acme": 5}
        reading_ahead = asyncio.ensure_future(fed.feed.full())
        for name in ("globex", "initech"):
            await fed.put(name, bytes(1000))
        await waiting(fed, MESSAGES - 17 + 2)
        assert Counter(one.path for one in await fed.feed.next_batch()) == {"globex": 1, "initech": 1}
        await fed.put("globex", bytes(1000))
        await waiting(fed, MESSAGES - 17 + 1)
        assert Counter(one.path for one in await fed.feed.next_batch()) == {"acme": 5}, "it has its turn"
        assert not reading_ahead.done(), "nothing is read ahead of those who may come"
        reading_ahead.cancel()


async def test_while_a_backlog_grows_batches_are_whole(feeding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "JUDGED_S", 0.0)
    config = replace(CONFIG, path_bytes=40_100, batch_bytes=12_000, beside_bytes=4_100)
    async with feeding(config) as fed:
        await fed.put("globex", bytes(1000))
        await fed.fill("acme")
        await waiting(fed, MESSAGES + 1)
        assert len(await fed.feed.next_batch()) == 1, "how much there was before is not known"
        await fed.put("globex", bytes(1000))
        await fed.fill("acme")
        await waiting(fed, 2 * MESSAGES + 1)
        assert fed.feed.parked == 2 * MESSAGES - 40
        assert Counter(one.path for one in await fed.feed.next_batch()) == {"globex": 1, "acme": 11}
        await fed.put("globex", bytes(1000))
        await waiting(fed, 2 * MESSAGES + 1 - 12 + 1)
        # Less came than was taken.
        assert len(await fed.feed.next_batch()) == 1


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


async def test_a_consumer_knows_what_was_there_before_it_was_made(fresh_nats: NatsServer) -> None:
    client = await broker.connect(fresh_nats.uri)
    try:
        await make_stream(client)
        js, durable = client.jetstream(), CONFIG.durable
        assert await durable.ensure(js) == 0
        for _ in range(3):
            await js.publish("parcels.acme.large", b"a parcel")
        # Of one that goes on, whatever came since is new; also where it is brought in line.
        assert await replace(durable, ack_wait_s=7).ensure(js) == 0
        await js.delete_consumer(STREAM, durable.name)
        assert await durable.ensure(js) == 3
        await js.publish("parcels.acme.large", b"one more")
        assert await replace(durable, ack_wait_s=9).ensure(js) == 3
        # One that a version made which did not say it.
        await js.delete_consumer(STREAM, durable.name)
        await js.add_consumer(STREAM, ConsumerConfig(durable_name=durable.name, ack_policy=AckPolicy.EXPLICIT))
        assert await durable.ensure(js) == 0
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


async def test_asked_whether_it_is_ready_it_makes_a_consumer_anew_that_no_pull_has_missed(feeding: Any) -> None:
    async with feeding() as fed:

        async def ready() -> bool:
            return await passes(fed.feed.check)

        await until(ready)
        await fed.feed.hand_back(0)  # No pull is open, which the broker would end with the consumer.
        await fed.own.jetstream().delete_consumer(STREAM, CONFIG.durable.name)
        assert not await ready()
        await until(ready)
