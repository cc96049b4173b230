"""A consumer whose progress is a position: each message once and in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import nats.errors
import pytest
from backhaul_common import following
from backhaul_common.disposition import MAX_TRIES
from backhaul_common.errors import BackhaulError, unavailable
from backhaul_common.feed import PositionReader, PullLimits, ReaderConfig, StreamMessage
from backhaul_common.following import Follower
from backhaul_common.lifecycle import cancel, keep_running
from backhaul_common.names import AGAIN_HEADER
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from nats.aio.client import Client
from nats.js.api import StreamConfig
from structlog.testing import capture_logs

STREAM = "PARCELS"


@dataclass
class Ledger:
    """Progress in memory. What ``refuse`` says of a batch is raised before anything of it is stored."""

    at: int = 0
    applied: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    refuse: Callable[[list[bytes]], Exception | None] = lambda _: None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def position(self) -> int:
        return self.at

    async def keep(self) -> None:
        await asyncio.Event().wait()

    async def apply(self, messages: Sequence[StreamMessage]) -> None:
        error = self.refuse([message.data for message in messages])
        if error is not None:
            raise error
        self.applied += [int(message.data) for message in messages]
        self.sizes.append(len(messages))
        self.at = messages[-1].stream_seq
        self.changed.set()

    async def dead_letter(self, message: StreamMessage, error: Exception) -> None:
        self.dead.append(int(message.data))
        self.at = message.stream_seq
        self.changed.set()

    async def until(self, holds: Callable[[], bool], *, within_s: float = 60.0) -> None:
        async with asyncio.timeout(within_s):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Following:
    reader: PositionReader
    follower: Follower
    own: Client
    sent: int = 0

    async def put(self, count: int = 1, *, path: str = "acme") -> None:
        for _ in range(count):
            await self.own.jetstream().publish(f"parcels.{path}.small", str(self.sent).encode())
            self.sent += 1


@pytest.fixture
def following_of(fresh_nats: NatsServer) -> Any:
    """``async with following_of(ledger, …fields of the config) as it``; the same broker each time."""

    @asynccontextmanager
    async def run(ledger: Ledger, **values: Any) -> AsyncIterator[Following]:
        async with AsyncExitStack() as stack:
            reader: PositionReader | None = None

            async def reconnected() -> None:
                assert reader is not None
                await reader.reconnected()

            own = await broker.connect(fresh_nats.uri, reconnect_time_wait=0.05)
            follows = await broker.connect(fresh_nats.uri, reconnected_cb=reconnected, reconnect_time_wait=0.05)
            for connection in (own, follows):
                stack.push_async_callback(connection.close)
            await own.jetstream().add_stream(StreamConfig(name=STREAM, subjects=["parcels.>"]))
            reader = PositionReader(follows, follows.jetstream(), ReaderConfig(STREAM, "ledger", **values))
            follower = Follower(reader, ledger)
            for name, work in (("reader", reader.run), ("follower", follower.run)):
                stack.push_async_callback(cancel, asyncio.create_task(keep_running(name, work)))
            yield Following(reader, follower, own)

    return run


async def until(probe: Callable[[], Awaitable[bool]], *, within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not await probe():
            await asyncio.sleep(0.02)  # The broker has no event for what is waited for here.


async def test_it_begins_where_it_was_and_counts_each_once(following_of: Any) -> None:
    ledger = Ledger()
    async with following_of(ledger, batch_bytes=10) as it:
        await it.put(50)
        await ledger.until(lambda: len(ledger.applied) == 50)
        assert max(ledger.sizes) <= 10
        assert it.reader.pending == 0
    assert ledger.at == 50
    async with following_of(ledger) as it:
        it.sent = 50
        await it.put(5)
        await ledger.until(lambda: len(ledger.applied) == 55)
    assert ledger.applied == list(range(55))


async def test_whether_anything_lies_behind_a_position(following_of: Any) -> None:
    """Also what was sent and waits in memory does, and nothing does that was deleted."""
    held = asyncio.Event()

    class Holding(Ledger):
        async def apply(self, messages: Sequence[StreamMessage]) -> None:
            await super().apply(messages)
            if len(self.applied) >= 3:
                held.set()
                await asyncio.Event().wait()

    ledger = Holding()
    async with following_of(ledger, batch_bytes=1) as it:
        assert await it.reader.is_behind(0)  # Nobody has asked the broker for anything yet.
        await it.put(2)
        await ledger.until(lambda: len(ledger.applied) == 2)
        assert not await it.reader.is_behind(2)
        await it.put(3)
        await held.wait()

        async def all_sent() -> bool:
            return bool(it.reader.pending == 0)

        await until(all_sent)
        assert [await it.reader.is_behind(position) for position in (3, 4, 5)] == [True, True, False]
        # Before anybody asks for what follows 5: what was sent counts, also if it is deleted then.
        await it.put(1)
        await it.own.jetstream().delete_msg(STREAM, 6)
    later = Holding()
    later.at = 5
    async with following_of(later) as it:

        async def nothing_behind() -> bool:
            behind: bool = await it.reader.is_behind(5)
            return not behind

        await until(nothing_behind)


async def test_a_message_tells_whether_it_may_have_been_published_before(following_of: Any) -> None:
    told: list[bool] = []

    class Reading(Ledger):
        async def apply(self, messages: Sequence[StreamMessage]) -> None:
            told.extend(message.again for message in messages)
            await super().apply(messages)

    ledger = Reading()
    async with following_of(ledger) as it:
        for number, headers in enumerate((None, {AGAIN_HEADER: "1"}, {"Nats-Msg-Id": "x"})):
            await it.own.jetstream().publish("parcels.acme.small", str(number).encode(), headers=headers)
        await ledger.until(lambda: len(ledger.applied) == 3)
    assert told == [False, True, False]


async def test_whatever_is_lost_with_a_connection_is_read_again(following_of: Any, fresh_nats: NatsServer) -> None:
    ledger = Ledger()
    async with following_of(ledger, pull=PullLimits(messages=7)) as it:
        for _ in range(3):
            await it.put(20)
            await ledger.until(lambda: len(ledger.applied) == it.sent)
            await fresh_nats.kill()
            await fresh_nats.start()
            await until(lambda: _answers(it.own))
        await it.put(20)
        await ledger.until(lambda: len(ledger.applied) == it.sent)
    assert ledger.applied == list(range(80))


async def _answers(client: Client) -> bool:
    try:
        await client.jetstream().stream_info(STREAM)
    except (nats.errors.Error, OSError):
        return False
    return True


async def test_a_gap_is_noticed_and_read_again(following_of: Any) -> None:
    ledger = Ledger()
    with capture_logs() as lines:
        async with following_of(ledger) as it:
            await it.put(1)
            await ledger.until(lambda: len(ledger.applied) == 1)
            receive = it.reader._pull._receive
            lost: list[StreamMessage] = []

            async def lossy(message: StreamMessage) -> None:
                if message.data == b"3" and not lost:
                    lost.append(message)
                    return
                await receive(message)

            it.reader._pull._receive = lossy
            await it.put(9)
            await ledger.until(lambda: len(ledger.applied) == 10)
    assert ledger.applied == list(range(10))
    assert [line["event"] for line in lines].count("gap_in_messages") == 1


async def test_a_consumer_that_the_broker_forgot_is_made_again(following_of: Any) -> None:
    ledger = Ledger()
    async with following_of(ledger) as it:
        await it.put(3)
        await ledger.until(lambda: len(ledger.applied) == 3)
        js = it.own.jetstream()
        for info in await js.consumers_info(STREAM):
            await js.delete_consumer(STREAM, info.name)
        await it.put(3)
        await ledger.until(lambda: len(ledger.applied) == 6)
    assert ledger.applied == list(range(6))


async def test_only_what_is_filtered_is_read_and_nothing_stays_at_the_broker(
    following_of: Any, fresh_nats: NatsServer
) -> None:
    ledger = Ledger()
    async with following_of(ledger, filter_subjects=("parcels.globex.>", "parcels.umbrella.>")) as it:
        for path in ("acme", "globex", "acme", "umbrella", "acme"):
            await it.put(path=path)
        await ledger.until(lambda: len(ledger.applied) == 2)
        assert (ledger.applied, ledger.at) == ([1, 3], 4)
        assert len(await it.own.jetstream().consumers_info(STREAM)) == 1
    # A reader that is stopped takes its consumer along.
    client = await broker.connect(fresh_nats.uri)
    try:
        assert await client.jetstream().consumers_info(STREAM) == []
    finally:
        await client.close()


async def test_an_outage_of_the_store_is_waited_for_and_another_copys_progress_is_taken_up(following_of: Any) -> None:
    ledger, times = Ledger(), 0

    def refuse(_: list[bytes]) -> BackhaulError | None:
        nonlocal times
        times += 1
        if times == 3:
            ledger.at = 4  # Another copy went on.
        return unavailable("the store") if times <= 3 else None

    async with following_of(ledger) as it:
        await it.put(1)
        await ledger.until(lambda: ledger.applied == [0])
        ledger.refuse = refuse
        await it.put(9)
        await ledger.until(lambda: ledger.at == 10)
    assert ledger.applied == [0, *range(4, 10)]
    assert ledger.dead == []


async def test_what_always_fails_is_set_aside_and_the_others_keep_their_order(
    following_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "pause_s", lambda _: 0.01)
    tried = 0

    def refuse(bodies: list[bytes]) -> Exception | None:
        nonlocal tried
        tried += bodies == [b"6"]
        return ValueError("a defect") if b"6" in bodies else None

    ledger = Ledger(refuse=refuse)
    with capture_logs() as lines:
        async with following_of(ledger) as it:
            await it.put(12)
            await ledger.until(lambda: ledger.at == 12)
    assert ledger.applied == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert (ledger.dead, tried) == ([6], MAX_TRIES)
    (line,) = [line for line in lines if line["event"] == "message_given_up"]
    assert (line["stream_seq"], line["log_level"]) == (7, "error")


async def test_nothing_is_passed_over_while_a_dead_letter_cannot_be_kept(
    following_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "pause_s", lambda _: 0.01)

    class Unkept(Ledger):
        failures = 0

        async def dead_letter(self, message: StreamMessage, error: Exception) -> None:
            if self.failures < 2:
                self.failures += 1
                assert self.applied == [0, 1]
                raise ValueError("a defect in keeping it")
            await super().dead_letter(message, error)

    ledger = Unkept(refuse=lambda bodies: ValueError("a defect") if b"2" in bodies else None)
    with capture_logs() as lines:
        async with following_of(ledger) as it:
            await it.put(5)
            await ledger.until(lambda: ledger.at == 5)
    assert (ledger.applied, ledger.dead) == ([0, 1, 3, 4], [2])
    said = [line for line in lines if line["event"] == "task_failed" and "keeping it" in line["error"]]
    assert [line["log_level"] for line in said] == ["error", "error"]


async def test_it_is_said_when_messages_were_gone_before_they_were_read(following_of: Any) -> None:
    async with following_of(Ledger()) as it:
        await it.put(10)
        await it.own.jetstream().purge_stream(STREAM, seq=6)
    ledger = Ledger(at=2)
    with capture_logs() as lines:
        async with following_of(ledger):
            await ledger.until(lambda: ledger.at == 10)
    assert ledger.applied == list(range(5, 10))
    (line,) = [line for line in lines if line["event"] == "messages_gone_unread"]
    assert (line["log_level"], line["position"], line["first_seq"]) == ("error", 2, 6)


async def test_the_position_of_another_stream_is_not_taken_for_this_ones(following_of: Any) -> None:
    ledger = Ledger(at=90)
    async with following_of(ledger) as it:
        await it.put(10)

        async def says_so() -> bool:
            try:
                await it.reader.check()
            except ConnectionError as exc:
                return "ends at 10, before the position 90" in str(exc)
            return False

        await until(says_so)
        ledger.at = 5  # Somebody looked into it.
        it.reader.seek(5)
        await ledger.until(lambda: ledger.at == 10)
    assert ledger.applied == list(range(5, 10))
