"""What waits in a copy stays there, and is anybody's when this copy cannot have it: on a real broker."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from backhaul_common.feed import FairFeed, StreamMessage
from backhaul_common.feed.pull import PullConsumer
from backhaul_common.lifecycle import cancel
from backhaul_local.nats_server import NatsServer
from feed_rig import CONFIG, MESSAGES, SMALL, STREAM, acking_within, all_wait, passes, settled, until


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
        async with asyncio.timeout(60):
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
            await until(partial(passes, other.check))
            await cancel(fed.task)
            taken: set[int] = set()
            async with asyncio.timeout(60):
                while len(taken) < MESSAGES:
                    for one in await other.next_batch():
                        taken.add(one.stream_seq)
                        await one.ack()
            assert taken == set(range(1, MESSAGES + 1))
            # The one that was stopped asks for nothing, and keeps nothing.
            await fed.put("acme", b"later")
            assert [one.data for one in await asyncio.wait_for(other.next_batch(), 60)] == [b"later"]
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
        await until(lambda: settled(not fed.feeds.is_connected))
        await fed.feed.hand_back(0.1)
        await fresh_nats.start()
        await until(lambda: settled(fed.feeds.is_connected and fed.own.is_connected))
        fed.feed.resume()
        await fed.feed.reconnected()
        await fed.put("acme", b"later")
        # The broker may have died before it wrote down that the first one was done with.
        while not (later := [message for message in await fed.take(1) if message.data == b"later"]):
            pass
        await fed.feeds.flush()
        await fed.feed.catch_up()
        assert [came[message.stream_seq] for message in later] == [1]


async def test_what_this_copy_does_not_come_to_is_not_kept_from_others(feeding: Any) -> None:
    async with feeding(replace(acking_within(2), stuck_s=1.0)) as fed:
        await all_wait(fed)

        async def probe() -> bool:
            return bool((await fed.info()).num_redelivered == MESSAGES)

        await until(probe)
