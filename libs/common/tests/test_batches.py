"""The pipeline over a feed and a work that are written by hand: what overlaps, and what becomes of what fails."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from backhaul_common import batches
from backhaul_common.batches import Batch, Batches
from backhaul_common.disposition import MAX_TRIES
from backhaul_common.errors import unavailable
from backhaul_common.lifecycle import cancel
from backhaul_common.tracing import Tracing
from structlog.testing import capture_logs


@dataclass
class Message:
    stream_seq: int
    feed: Feed
    path: str = "acme"
    subject: str = "parcels.acme.small"
    traceparent: str = ""

    async def ack(self) -> None:
        self.feed.acked.append(self.stream_seq)
        self.feed.changed.set()


@dataclass
class Feed:
    """Gives one batch after another. What is given back, and its delay, is delivered again at once."""

    waiting: deque[list[int]] = field(default_factory=deque)
    acked: list[int] = field(default_factory=list)
    given_back: list[tuple[list[int], float]] = field(default_factory=list)
    handed_back: int = 0
    paused: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    async def full(self) -> None:
        await self.until(lambda: bool(self.waiting))

    async def next_batch(self) -> Sequence[Any]:
        while self.paused or not self.waiting:
            await asyncio.sleep(0)
        return [Message(seq, self) for seq in self.waiting.popleft()]

    async def give_back(self, messages: Sequence[Any], delay_s: float) -> None:
        seqs = [message.stream_seq for message in messages]
        self.given_back.append((seqs, delay_s))
        self.waiting.append(seqs)
        self.changed.set()

    async def hand_back(self, delay_s: float) -> None:
        self.handed_back += 1
        self.paused = True
        self.changed.set()

    def resume(self) -> None:
        self.paused = False
        self.changed.set()


class Work:
    """Does as ``raises`` says, by step: an error for messages, or None. ``held`` keeps a step from ending."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.log: list[tuple[str, list[int]]] = []
        self.raises: dict[str, Callable[[list[int]], Exception | None]] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.away = False

    async def _do(self, step: str, messages: Sequence[Any]) -> None:
        seqs = [message.stream_seq for message in messages]
        self.log.append((step, seqs))
        self.feed.changed.set()
        if step in self.held:
            await self.held[step].wait()
        raising = self.raises.get(step)
        error = raising(seqs) if raising is not None else None
        if error is not None:
            raise error

    def steps(self, step: str) -> list[list[int]]:
        return [seqs for name, seqs in self.log if name == step]

    async def read(self, messages: Sequence[Any]) -> Batch:
        await self._do("read", messages)
        return Batch(messages)

    async def commit(self, batch: Batch) -> None:
        await self._do("commit", batch.messages)

    async def publish(self, batch: Batch) -> None:
        await self._do("publish", batch.messages)

    def done(self, batch: Batch) -> None:
        self.log.append(("done", [message.stream_seq for message in batch.messages]))
        self.feed.changed.set()

    async def dead_letter(self, message: Any, error: Exception) -> None:
        await self._do("dead_letter", [message])

    async def answers(self) -> None:
        self.feed.changed.set()
        if self.away:
            raise unavailable("the store")


@dataclass
class Running:
    feed: Feed
    work: Work
    batches: Batches[Batch]
    put_back: list[str]


@asynccontextmanager
async def running(*waiting: list[int]) -> AsyncIterator[Running]:
    feed = Feed(deque(waiting))
    work = Work(feed)
    put_back: list[str] = []
    pipeline = Batches("test", feed, work, Tracing("test", None), put_back.append)
    task = asyncio.create_task(pipeline.run())
    try:
        yield Running(feed, work, pipeline, put_back)
    finally:
        await cancel(task)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "pause_s", lambda _: 0.01)


async def test_everything_is_read_committed_published_and_acknowledged_in_order() -> None:
    async with running([1, 2], [3]) as run:
        await run.feed.until(lambda: len(run.feed.acked) == 3)
        assert run.feed.acked == [1, 2, 3]
        assert [step for step, seqs in run.work.log if seqs == [1, 2]] == ["read", "commit", "publish", "done"]
        assert run.feed.given_back == []


async def test_one_is_read_while_another_is_committed_and_a_third_is_published() -> None:
    async with running([1]) as run:
        run.work.held["publish"] = asyncio.Event()
        await run.feed.until(lambda: run.work.steps("publish") == [[1]])
        run.work.held["commit"] = asyncio.Event()
        run.feed.waiting.append([2])
        await run.feed.until(lambda: run.work.steps("commit") == [[1], [2]])
        run.feed.waiting.append([3])
        run.feed.changed.set()
        await run.feed.until(lambda: run.work.steps("read") == [[1], [2], [3]])
        # Commits follow one another, and what is committed but not published stays little.
        assert run.work.steps("commit") == [[1], [2]]
        run.work.held.pop("commit").set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert (run.work.steps("publish"), run.work.steps("commit"), run.feed.acked) == ([[1]], [[1], [2]], [])
        run.work.held.pop("publish").set()
        await run.feed.until(lambda: run.feed.acked == [1, 2, 3])


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("step", ["read", "commit", "publish"])
async def test_while_a_part_is_away_the_copy_rests_and_gives_everything_back(step: str) -> None:
    async with running() as run:
        run.work.away = True
        run.work.raises[step] = lambda _: unavailable("the store") if run.work.away else None
        run.feed.waiting.append([1, 2])
        await run.feed.until(lambda: run.feed.handed_back == 1)
        assert [seqs for seqs, _ in run.feed.given_back] == [[1, 2]]
        with pytest.raises(ConnectionError, match="the store"):
            await run.batches.check()
        reads = len(run.work.steps("read"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(run.work.steps("read")) == reads, "nothing is begun while it rests"
        run.work.away = False
        await run.feed.until(lambda: run.feed.acked == [1, 2])
        await run.batches.check()
        assert run.work.steps("dead_letter") == []
        assert len(run.put_back) == len(run.feed.given_back)


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("step", ["read", "commit", "publish"])
async def test_a_message_that_always_fails_becomes_a_dead_letter_and_takes_no_other_along(step: str) -> None:
    with capture_logs() as lines:
        async with running() as run:
            run.work.raises[step] = lambda seqs: ValueError("a defect") if 2 in seqs else None
            run.feed.waiting.append([1, 2, 3])
            await run.feed.until(lambda: sorted(run.feed.acked) == [1, 2, 3])
            assert run.work.steps("dead_letter") == [[2]]
            assert len(run.work.steps(step)) <= 2 * MAX_TRIES
            assert run.put_back == ["ValueError"] * MAX_TRIES
    (line,) = [line for line in lines if line["event"] == "message_given_up"]
    assert (line["stream_seq"], line["tries"], line["filed"], line["log_level"]) == (2, MAX_TRIES, True, "error")


@pytest.mark.usefixtures("quickly")
async def test_a_dead_letter_waits_for_its_store_and_for_nothing_else() -> None:
    with capture_logs() as lines:
        async with running() as run:
            answers = [unavailable("the store"), unavailable("the store"), ValueError("refused")]
            run.work.raises["commit"] = lambda _: ValueError("a defect")
            run.work.raises["dead_letter"] = lambda _: answers.pop(0)
            run.feed.waiting.append([1])
            await run.feed.until(lambda: run.feed.acked == [1])
            assert answers == []
    events = [line["event"] for line in lines if line["log_level"] == "error"]
    assert events.count("dead_letter_not_stored") == 1
    assert [line["filed"] for line in lines if line["event"] == "message_given_up"] == [False]


@pytest.mark.usefixtures("quickly")
async def test_what_was_read_when_the_copy_begins_to_rest_is_given_back_unbegun() -> None:
    async with running([1]) as run:
        run.work.held["commit"] = asyncio.Event()
        run.work.away = True
        run.work.raises["commit"] = lambda _: unavailable("the store") if run.work.away else None
        await run.feed.until(lambda: run.work.steps("commit") == [[1]])
        run.feed.waiting.append([2])
        run.feed.changed.set()
        await run.feed.until(lambda: [2] in run.work.steps("read"))
        run.work.held.pop("commit").set()
        await run.feed.until(lambda: len(run.feed.given_back) == 2)
        assert run.work.steps("commit") == [[1]]
        run.work.away = False
        await run.feed.until(lambda: sorted(run.feed.acked) == [1, 2])


async def test_an_error_in_what_must_not_raise_is_put_back_too() -> None:
    """A defect in counting costs repetitions, and no message."""
    async with running() as run:

        def done(batch: Batch) -> None:
            raise KeyError("a label")

        run.work.done = done  # type: ignore[method-assign]  # a work with a defect
        run.feed.waiting.append([1])
        await run.feed.until(lambda: bool(run.feed.given_back))
        assert run.feed.acked == [1]


@pytest.mark.parametrize("step", ["read", "commit", "publish"])
async def test_what_is_under_way_when_it_is_stopped_is_given_back(step: str) -> None:
    async with running([1, 2]) as run:
        run.work.held[step] = asyncio.Event()
        await run.feed.until(lambda: bool(run.work.steps(step)))
    assert [seqs for seqs, _ in run.feed.given_back] == [[1, 2]]
    assert not run.feed.acked


async def test_what_is_done_with_when_it_is_stopped_is_not_given_back() -> None:
    async with running([1, 2]) as run:
        await run.feed.until(lambda: len(run.feed.acked) == 2)
    assert not run.feed.given_back
