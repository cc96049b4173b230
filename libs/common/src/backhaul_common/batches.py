"""Batches of stream messages, on their way through a service: read, committed, published, acknowledged.

While one batch is being committed the next is read and the one before is published, so the processor works while the
database and the broker do. Commits of one process follow one another: two of its batches never conflict.

``disposition`` decides what becomes of a batch that fails. While a part is away the copy rests: it gives back all that
it holds, so that another copy may do it, and says that it is not ready.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind

from backhaul_common.disposition import FIRST_PAUSE_S, Disposition, Tries, disposition, pause_s
from backhaul_common.errors import BackhaulError
from backhaul_common.feed import StreamMessage
from backhaul_common.lifecycle import cancel, until_done
from backhaul_common.logs import get_logger
from backhaul_common.outages import Repeated
from backhaul_common.tracing import Tracing

MAX_LINKS = 127
"""Traces that a batch's span links to, beside the one that it belongs to."""


@dataclass(slots=True)
class Batch:
    """What was read of ``messages``; a service adds what it made of them.

    ``began`` is when reading began, by the monotonic clock. ``traceparents`` are those of what the batch brings: the
    first is the parent of ``span``, which is there from the commit on, and the others are linked.
    """

    messages: Sequence[StreamMessage]
    began: float = field(default_factory=time.perf_counter)
    traceparents: list[str] = field(default_factory=list)
    span: Span = INVALID_SPAN


B = TypeVar("B", bound=Batch)


class Work(Protocol[B]):
    """What a service does with its messages. Whatever it raises, ``disposition`` decides about it."""

    async def read(self, messages: Sequence[StreamMessage]) -> B:
        """Make a batch of ``messages``, or of some of them, having given the others back to the feed. Nothing is stored
        yet: the batch before may still be being committed."""
        ...

    async def commit(self, batch: B) -> None:
        """Store it, all or nothing, so that storing it again changes nothing: a message may always come again."""
        ...

    async def publish(self, batch: B) -> None:
        """Do what follows from the commit. It is done again where this process dies before the acknowledgements."""
        ...

    def done(self, batch: B) -> None:
        """All of it is acknowledged: count it, and log it. Must not raise."""
        ...

    async def dead_letter(self, message: StreamMessage, error: Exception) -> None:
        """Keep ``message``, which failed with ``error`` too often, for people to look at. It is acknowledged then."""
        ...

    async def answers(self) -> None:
        """Returns when the store answers; raises otherwise."""
        ...


class Feed(Protocol):
    """Where the messages come from: see ``FairFeed``."""

    async def full(self) -> None:
        """Waits until there is enough for a whole batch."""
        ...

    async def next_batch(self) -> Sequence[StreamMessage]:
        """Waits until there is at least one."""
        ...

    async def give_back(self, messages: Sequence[StreamMessage], delay_s: float) -> None:
        """Give back what was taken, to be delivered again not before ``delay_s``."""
        ...

    async def hand_back(self, delay_s: float) -> None:
        """Give back what waits, to be delivered again not before ``delay_s``, and ask for nothing more."""
        ...

    def resume(self) -> None:
        """Ask again."""
        ...


class Batches(Generic[B]):
    """Takes batches from ``feed`` and has ``work`` done with them. ``name`` is the service's, for its spans.

    ``count_put_back`` is told the reason whenever a batch is put back.
    """

    def __init__(
        self, name: str, feed: Feed, work: Work[B], tracing: Tracing, count_put_back: Callable[[str], None]
    ) -> None:
        self._name = name
        self._feed = feed
        self._work = work
        self._tracing = tracing
        self._count_put_back = count_put_back
        self._committing: asyncio.Task[None] | None = None
        self._publishing: asyncio.Task[None] | None = None
        self._tries = Tries()
        self._resting = asyncio.Event()
        self._resters = 0
        self._reason = ""
        self._away = Repeated("batch_put_back", component="batches")
        self._log = get_logger(component="batches")

    async def run(self) -> None:
        """Process until cancelled. What is under way then is given back: whatever of it is stored stays stored."""
        try:
            while True:
                await self._worth_reading()
                for messages in self._tries.apart(await self._feed.next_batch()):
                    await self._take(messages)
        finally:
            for task in (self._committing, self._publishing):
                if task is not None:
                    await cancel(task)
            # Forget the failed tasks, so that a restarted run() does not await them.
            self._committing = self._publishing = None

    async def check(self) -> None:
        """A readiness check: batches can be committed and published. ConnectionError otherwise."""
        if self._resting.is_set():
            raise ConnectionError(f"batches are put back: {self._reason}")

    async def _worth_reading(self) -> None:
        """Returns when a whole batch waits, or nothing is being committed.

        Under load the next batch is read while one is committed. Otherwise what arrives meanwhile is better read
        together when that is done: read at once, it would keep those who come after it waiting for one commit more.
        """
        committing = self._committing
        if committing is None or committing.done():
            return
        full = asyncio.ensure_future(self._feed.full())
        try:
            await asyncio.wait({committing, full}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            full.cancel()

    async def _take(self, messages: Sequence[StreamMessage]) -> None:
        async with self._given_back_if_cancelled(messages):
            try:
                batch = await self._work.read(messages)
            except Exception as exc:  # noqa: BLE001  # whatever it is, nothing was acknowledged and all is delivered again
                await self._put_back(messages, exc)
                return
            if await self._turn_comes():
                self._committing = asyncio.create_task(self._commit(batch), name="commit")
            else:
                await self._feed.give_back(batch.messages, FIRST_PAUSE_S)

    @asynccontextmanager
    async def _given_back_if_cancelled(self, messages: Sequence[StreamMessage]) -> AsyncIterator[None]:
        """Another copy has ``messages`` soon then, and not after the ack wait. What was acknowledged stays so."""
        try:
            yield
        except asyncio.CancelledError:
            await self._feed.give_back(messages, FIRST_PAUSE_S)
            raise

    async def _turn_comes(self) -> bool:
        """Wait until nothing is being committed. False, at once, when this copy rests: then nothing is to be begun."""
        committing = self._committing
        if committing is not None and not self._resting.is_set():
            resting = asyncio.ensure_future(self._resting.wait())
            try:
                await asyncio.wait({committing, resting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                resting.cancel()
        if self._resting.is_set():
            return False
        if committing is not None:
            await committing  # Raises what went wrong in it.
        return True

    async def _commit(self, batch: B) -> None:
        """Commit, and leave publishing and acknowledging to a task of its own."""
        parents = list(dict.fromkeys(batch.traceparents))
        batch.span = self._tracing.start(
            f"{self._name}.batch",
            parent=parents[0] if parents else None,
            kind=SpanKind.CONSUMER,
            links=parents[1 : MAX_LINKS + 1],
        )
        async with self._given_back_if_cancelled(batch.messages):
            try:
                await self._work.commit(batch)
            except Exception as exc:  # noqa: BLE001  # as above
                batch.span.end()
                await self._put_back(batch.messages, exc)
                return
            # The next batch is committed while this one is published, and no further: what is committed but not
            # published must stay little, because it is what a crash makes this process do again.
            if self._publishing is not None:
                await self._publishing
            self._publishing = asyncio.create_task(self._finish(batch), name="publish")

    async def _finish(self, batch: B) -> None:
        """Publish and acknowledge; or have all of it delivered again, which then is found to be stored."""
        try:
            async with self._given_back_if_cancelled(batch.messages):
                await self._work.publish(batch)
                for message in batch.messages:
                    await message.ack()
            self._away.over()
            self._tries.done(batch.messages)
            self._work.done(batch)
        except Exception as exc:  # noqa: BLE001  # the store has it, and it is published when it is delivered again
            await self._put_back(batch.messages, exc)
        finally:
            batch.span.end()

    async def _put_back(self, messages: Sequence[StreamMessage], exc: Exception) -> None:
        """Have ``messages`` delivered again: for ever while a part is away, else a bounded number of times."""
        what = exc.message if isinstance(exc, BackhaulError) else type(exc).__name__
        self._count_put_back(what)
        if disposition(exc) is Disposition.AWAY:
            self._away.warning(repr(exc.__cause__ or exc), stream_messages=len(messages))
            await self._rest(messages, what)
            return
        self._log.error("batch_failed", stream_messages=len(messages), exc_info=exc)
        for message in messages:
            tries = self._tries.failed(message.stream_seq)
            if disposition(exc, tries) is Disposition.LATER or not await self._set_aside(message, exc, tries):
                await self._feed.give_back([message], pause_s(tries))

    async def _set_aside(self, message: StreamMessage, exc: Exception, tries: int) -> bool:
        """Make a dead letter of ``message``. False while that cannot be stored because a part is away."""
        filed = True
        try:
            await self._work.dead_letter(message, exc)
        except Exception as failure:  # noqa: BLE001  # whatever it is, this message must not come again for ever
            if disposition(failure) is Disposition.AWAY:
                return False
            filed = False
            self._log.error("dead_letter_not_stored", stream_seq=message.stream_seq, exc_info=failure)
        # It stays in the stream for its age.
        self._log.error(
            "message_given_up",
            subject=message.subject,
            path=message.path,
            stream_seq=message.stream_seq,
            tries=tries,
            filed=filed,
        )
        self._tries.done([message])
        with suppress(BackhaulError):  # An acknowledgement that is lost costs more tries.
            await message.ack()
        return True

    async def _rest(self, messages: Sequence[StreamMessage], reason: str) -> None:
        """Give back all that this copy holds, and take nothing until the store answers and a pause is over."""
        self._reason = reason
        self._resting.set()
        self._resters += 1  # One batch may fail to be published while the next one fails to be committed.
        try:
            pause = pause_s(self._away.times)
            await self._feed.give_back(messages, pause)
            await self._feed.hand_back(pause)
            await until_done("store_answers", self._work.answers, longest_pause_s=2.0)
            if self._away.times > 1:
                await asyncio.sleep(pause)
        finally:
            self._resters -= 1
            if not self._resters:
                self._resting.clear()
                self._feed.resume()
