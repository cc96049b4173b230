"""Group commit: callbacks of one tenant and channel that arrive while a publish is in flight share the next message.

No timer delays anything: an idle lane publishes at once, a busy one publishes what has gathered as soon as JetStream
acknowledges. One acknowledgement (and one fsync on the server) then stands for many callbacks, and the more there is
to do, the more each carries. docs/decisions tells the measurements.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeAlias, TypeVar

from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.jetstream import AWAY, Message, Publisher, headers_of
from backhaul_common.metrics import PUBLISH_CALLBACKS, PUBLISH_SECONDS, Metrics
from backhaul_common.names import CALLBACKS_STREAM
from backhaul_common.outages import Repeated
from backhaul_common.sizes import MESSAGE_HEADER_BYTES
from backhaul_common.tracing import Tracing
from backhaul_common.wire import repeated
from backhaul_proto.callback.v1.callback_pb2 import CallbackBatch
from nats.aio.client import Client
from opentelemetry.trace import SpanKind

MAX_CALLBACKS = 256
MAX_MESSAGE_BYTES = 512 * 1024
"""Large bodies share messages too: sixteen SendGrid posts in one took a third less CPU here, and two thirds less in the
server, than one message each, because every message costs an fsync. A larger body is a message of its own."""

IN_FLIGHT = 2
"""One is stored while the next one gathers, and a second hides the way to the server and back."""

RECONNECT_GRACE_S = 1.0
"""A shorter interruption is waited out within the callback's own deadline, a longer one is answered at once."""
MAX_UNSENT_BYTES = 8 << 20
"""What nats-py may hold that the socket does not take. A server that stalls and stays connected takes nothing, and what
has timed out meanwhile cannot be taken back from there."""

_HEADER_BYTES = 180
"""What the headers of a stored message take, about."""
_LEAST_LEFT_S = 0.05
"""What has less time left is refused instead of published: its acknowledgement would come too late."""

_T = TypeVar("_T")


class _Waiter:
    """One callback and who waits for it."""

    __slots__ = ("callback_id", "deadline", "encoded", "future", "traceparent")

    def __init__(
        self,
        callback_id: str,
        encoded: bytes,
        traceparent: str,
        deadline: float,
        future: asyncio.Future[None],
    ) -> None:
        self.callback_id = callback_id
        self.encoded = encoded
        self.traceparent = traceparent
        self.deadline = deadline
        self.future = future


class _Lane:
    """The callbacks of one tenant and channel."""

    __slots__ = ("in_flight", "scheduled", "subject", "waiting")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.waiting: deque[_Waiter] = deque()
        self.in_flight = 0
        self.scheduled = False
        """A task is about to pump."""


_Answered: TypeAlias = "Callable[[_Message, Exception | None], Awaitable[None]]"


class _Message(Message):
    """One message that JetStream has not acknowledged."""

    __slots__ = ("_on_answer", "lane", "timer", "waiters")

    def __init__(self, lane: _Lane, waiters: list[_Waiter], on_answer: _Answered) -> None:
        first = waiters[0]
        super().__init__(
            lane.subject,
            repeated(CallbackBatch.CALLBACKS_FIELD_NUMBER, [waiter.encoded for waiter in waiters]),
            # Random for each callback, so what the id suppresses is only this gateway's own repetition of a publish.
            headers_of(CALLBACKS_STREAM, first.callback_id, first.traceparent),
        )
        self.lane = lane
        self.waiters = waiters
        self._on_answer = on_answer
        self.timer: asyncio.TimerHandle | None = None

    async def answered(self, refusal: Exception | None) -> None:
        await self._on_answer(self, refusal)


class GroupCommitPublisher:
    """Stores callbacks in JetStream. All methods belong to the event loop that it was made on."""

    def __init__(
        self,
        *,
        timeout_s: float,
        metrics: Metrics,
        tracing: Tracing,
        on_stored: Callable[[str, int], None] = lambda _, __: None,
    ) -> None:
        """``on_stored`` is told the subject and the size of every message that JetStream acknowledged."""
        self._timeout_s = timeout_s
        self._tracing = tracing
        self._publish_seconds = metrics.histogram(PUBLISH_SECONDS)
        self._publish_callbacks = metrics.histogram(PUBLISH_CALLBACKS)
        self._loop = asyncio.get_running_loop()
        self._publisher = Publisher()
        self._lanes: dict[str, _Lane] = {}
        self._messages: set[_Message] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._away_since: float | None = None
        # Each is one line a minute, however many callbacks a second it concerns: providers are answered one by one.
        self._not_sent, self._refused, self._late = (
            Repeated(event, component="publisher")
            for event in ("publish_not_sent", "publish_refused", "publish_timed_out")
        )
        self._on_stored = on_stored
        self.stored_at = 0.0
        self.failed_at = 0.0
        """When a message was last acknowledged, and when one last was not; in the loop's time."""

    @property
    def client(self) -> Client | None:
        """What is published over; None before it is attached."""
        return self._publisher.client

    async def connected(self, client: Client) -> None:
        """Publish over ``client``; send again, under the same message ids, what was in flight over it before.

        To be called whenever it has connected. It must not buffer while its connection is away.
        """
        await self._publisher.attach(client)
        self._away_since = None
        for message in list(self._messages):
            await self._send(message)
        for lane in list(self._lanes.values()):
            await self._pump(lane)

    async def publish(self, subject: str, callback_id: str, encoded: bytes, traceparent: str) -> None:
        """Return when JetStream has stored the callback. UNAVAILABLE, within the timeout, when it has not.

        ``encoded`` is a serialised Callback; ``traceparent`` is its request's.
        """
        now = self._loop.time()
        client = self._publisher.client
        if client is None or not self._reachable(client, now) or client.pending_data_size > MAX_UNSENT_BYTES:
            raise unavailable("The callback log")
        if len(encoded) > client.max_payload - MESSAGE_HEADER_BYTES:
            raise BackhaulError(
                Code.TOO_LARGE,
                f"The callback log takes messages of at most {client.max_payload} bytes.",
                field="body",
                fix="Send less at once, or raise max_payload of the NATS servers.",
            )
        lane = self._lanes.get(subject)
        if lane is None:
            lane = self._lanes[subject] = _Lane(subject)
        waiter = _Waiter(callback_id, encoded, traceparent, now + self._timeout_s, self._loop.create_future())
        lane.waiting.append(waiter)
        if not lane.scheduled:
            # Not at once but in the loop's next turn: the requests that came with the same look at the sockets have
            # then arrived too, and share the message. Waiting costs nobody anything.
            lane.scheduled = True
            self._background(self._pump, lane)
        await waiter.future

    @property
    def waiting(self) -> int:
        """Callbacks that are not acknowledged, in the queues or in flight."""
        return sum(len(lane.waiting) for lane in self._lanes.values()) + sum(
            len(message.waiters) for message in self._messages
        )

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is in flight, and nothing is kept of what did."""
        return not (self._lanes or self._messages)

    async def drain(self) -> None:
        """Return when nothing waits any more. Bounded by the timeout that every callback has."""
        while self._lanes:
            futures = [waiter.future for lane in self._lanes.values() for waiter in lane.waiting]
            futures += [waiter.future for message in self._messages for waiter in message.waiters]
            if not futures:
                return
            await asyncio.wait(futures)

    def _reachable(self, client: Client, now: float) -> bool:
        if client.is_connected:
            self._away_since = None
            return True
        if self._away_since is None:
            self._away_since = now
        return now - self._away_since < RECONNECT_GRACE_S

    async def _pump(self, lane: _Lane) -> None:
        """Publish whatever may be published now, and see to it that what remains is refused when its time is up."""
        lane.scheduled = False
        waiting = lane.waiting
        client = self._publisher.client
        while waiting and client is not None and client.is_connected:
            if lane.in_flight >= IN_FLIGHT:
                return  # The end of one that is in flight pumps again, and none is in flight for ever.
            if waiting[0].deadline <= self._loop.time() + _LEAST_LEFT_S:
                _settle(waiting.popleft(), unavailable("The callback log"))
                continue
            waiters = _gather(waiting)
            message = _Message(lane, waiters, self._on_answer)
            message.timer = self._loop.call_at(waiters[0].deadline, self._timed_out, message)
            self._messages.add(message)
            lane.in_flight += 1
            await self._send(message)
        if waiting:
            self._loop.call_at(waiting[0].deadline, self._expire, lane)
        elif not lane.in_flight and self._lanes.get(lane.subject) is lane:
            # A thousand tenants must not leave a thousand idle lanes.
            del self._lanes[lane.subject]

    async def _send(self, message: _Message) -> None:
        if message not in self._messages:
            return
        try:
            await self._publisher.send(message)
        except AWAY as exc:
            # It stays in flight: either the connection comes back and resume() sends it, or its deadline ends it.
            self._not_sent.warning(repr(exc), subject=message.subject)

    async def _on_answer(self, message: _Message, refusal: Exception | None) -> None:
        self._finish(message, unavailable("The callback log") if refusal else None)
        if refusal:
            self._refused.error(str(refusal), subject=message.subject)
        else:
            for trouble in (self._not_sent, self._refused, self._late):
                trouble.over()
            self.stored_at = self._loop.time()
            self._on_stored(message.subject, len(message.payload) + _HEADER_BYTES)
            self._publish_seconds.record((time.time_ns() - message.sent_ns) / 1e9)
            self._publish_callbacks.record(len(message.waiters))
        await self._pump(message.lane)

    def _timed_out(self, message: _Message) -> None:
        self._late.warning("no acknowledgement in time", subject=message.subject, callbacks=len(message.waiters))
        self._finish(message, unavailable("The callback log"))
        self._background(self._pump, message.lane)

    def _expire(self, lane: _Lane) -> None:
        """Refuse those whose time is up before they could be published: nothing of theirs is stored."""
        while lane.waiting and lane.waiting[0].deadline <= self._loop.time() + _LEAST_LEFT_S:
            _settle(lane.waiting.popleft(), unavailable("The callback log"))
        self._background(self._pump, lane)

    def _finish(self, message: _Message, error: BackhaulError | None) -> None:
        self._messages.remove(message)
        self._publisher.forget(message)
        if message.timer is not None:
            message.timer.cancel()
        message.lane.in_flight -= 1
        if error is not None:
            self.failed_at = self._loop.time()
        if self._tracing.enabled:
            self._trace(message, error)
        for waiter in message.waiters:
            _settle(waiter, error)

    def _background(self, work: Callable[[_T], Coroutine[None, None, None]], subject: _T) -> None:
        task = self._loop.create_task(work(subject))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _trace(self, message: _Message, error: BackhaulError | None) -> None:
        """One span for the message, under its first request; the others are linked to it."""
        first = message.waiters[0]
        self._tracing.start(
            "publish CALLBACKS",
            parent=first.traceparent,
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": "nats",
                "messaging.destination.name": message.subject,
                "messaging.batch.message_count": len(message.waiters),
                "backhaul.outcome": error.code.value if error else "stored",
            },
            links=[waiter.traceparent for waiter in message.waiters[1:]],
            start_time_ns=message.sent_ns,
        ).end()


def _gather(waiting: deque[_Waiter]) -> list[_Waiter]:
    """Take as many callbacks from the queue's head as one message may hold; at least one."""
    waiters = [waiting.popleft()]
    size = len(waiters[0].encoded)
    while waiting and len(waiters) < MAX_CALLBACKS:
        following = len(waiting[0].encoded)
        if size + following > MAX_MESSAGE_BYTES:
            break
        size += following
        waiters.append(waiting.popleft())
    return waiters


def _settle(waiter: _Waiter, error: BackhaulError | None) -> None:
    if waiter.future.done():
        return  # The server is stopping and has cancelled the request.
    if error is None:
        waiter.future.set_result(None)
    else:
        waiter.future.set_exception(error)
