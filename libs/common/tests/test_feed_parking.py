"""What has no room in a buffer is parked, and read again: on a real broker."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from backhaul_common.feed.parking import Parking
from backhaul_common.lifecycle import cancel
from backhaul_common.names import AGAIN_HEADER
from feed_rig import MESSAGES, SMALL, STREAM, all_wait, until
from structlog.testing import capture_logs


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
            await asyncio.wait_for(asyncio.shield(fed.task), 60)
        with pytest.raises(ConnectionError):
            await fed.feed.check()
        again = asyncio.create_task(fed.feed.run())
        try:
            await fed.take(MESSAGES - taken)
            await fed.feed.check()
        finally:
            await cancel(again)
