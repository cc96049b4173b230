"""Group commit: callbacks of one tenant and channel that arrive while a publish is in flight share the next message.

No timer delays anything: an idle lane publishes at once, a busy one publishes what has gathered as soon as JetStream
acknowledges. One acknowledgement (and one fsync on the server) then stands for many callbacks, and the more there is
to do, the more each carries. Where many lanes wait, their next messages share a batch in the same way: each stays a
message of its tenant's, and there are few fsyncs for all of them. docs/decisions tells the measurements.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeAlias

from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.jetstream import AWAY, Message, Publisher, headers_of
from backhaul_common.jetstream.batching import MAX_BATCH_BYTES, MAX_MESSAGES, MIN_MESSAGES
from backhaul_common.metering import Metrics
from backhaul_common.metrics import PUBLISH_CALLBACKS, PUBLISH_SECONDS
from backhaul_common.names import CALLBACKS_STREAM
from backhaul_common.outages import Repeated
from backhaul_common.sizes import MESSAGE_HEADER_BYTES
from backhaul_common.tracing import Tracing
from backhaul_common.wire import repeated
from backhaul_proto.callback.v1.callback_pb2 import CallbackBatch
from nats.aio.client import Client
from opentelemetry.trace import SpanKind

from backhaul_gateway.ingest.lanes import Lane, Waiter

IN_FLIGHT = 2
"""Of a lane's messages one is stored while the next one gathers, and a second hides the way to the server and back."""

MAX_SINGLES = 16
"""Messages in flight that were sent singly, of all lanes together. The server stores one after the other; what it does
not need yet gathers meanwhile, until it is worth a batch. While a batch is in flight nothing else goes, and what
gathers goes next. Right after it there are few, and one more for each that is stored: whoever was answered is likely to
say more, and it is worth another batch."""

COUNTED_S = 0.25
"""How long something in flight keeps others waiting. Later it is late, or never answered, which may be its tenant's lot
alone."""

RECONNECT_GRACE_S = 1.0
"""A shorter interruption is waited out within the callback's own deadline, a longer one is answered at once."""
MAX_UNSENT_BYTES = 8 << 20
"""What nats-py may hold that the socket does not take. A server that stalls and stays connected takes nothing, and what
has timed out meanwhile cannot be taken back from there."""

_HEADER_BYTES = 180
"""What the headers of a stored message take, about."""
_LEAST_LEFT_S = 0.05
"""What has less time left is refused instead of published: its acknowledgement would come too late."""
_LOOK_S = 0.01
"""The least time between two looks for what is late."""


class _Flight:
    """What was sent at once: one message, or the next ones of many lanes. ``began`` is in the loop's time."""

    __slots__ = ("began", "left", "many")

    def __init__(self, messages: int, began: float, *, many: bool) -> None:
        self.left = messages
        self.began = began
        self.many = many


_Answered: TypeAlias = "Callable[[_Message, Exception | None], None]"


class _Message(Message):
    """One message that JetStream has not acknowledged."""

    __slots__ = ("_on_answer", "flight", "lane", "waiters")

    def __init__(self, lane: Lane, waiters: list[Waiter], on_answer: _Answered) -> None:
        first = waiters[0]
        super().__init__(
            lane.subject,
            repeated(CallbackBatch.CALLBACKS_FIELD_NUMBER, [waiter.encoded for waiter in waiters]),
            # Random for each callback, so what the id suppresses is only this gateway's own repetition of a publish.
            headers_of(CALLBACKS_STREAM, first.callback_id, first.traceparent),
            first.deadline,
        )
        self.lane = lane
        self.waiters = waiters
        self.flight: _Flight
        self._on_answer = on_answer

    async def answered(self, refusal: Exception | None) -> None:
        self._on_answer(self, refusal)


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
        self._lanes: dict[str, Lane] = {}
        # Those that have something to publish and may, in the order in which they came.
        self._ready: dict[Lane, None] = {}
        self._messages: dict[_Message, None] = {}
        # Those that count, from the oldest: how many are single messages, and how many are of many lanes.
        self._flights: dict[_Flight, None] = {}
        self._singles = self._batches = 0
        self._most_singles = MAX_SINGLES
        self._pumping = False
        self._waking: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
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
        await self._send(list(self._messages))
        self._pump_soon()

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
            lane = self._lanes[subject] = Lane(subject)
        waiter = Waiter(callback_id, encoded, traceparent, now + self._timeout_s, self._loop.create_future())
        lane.waiting.append(waiter)
        if lane.in_flight < IN_FLIGHT and lane not in self._ready:
            self._ready[lane] = None
            self._pump_soon()
        if self._look is None:
            self._look = self._loop.call_at(waiter.deadline, self._look_for_late)
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

    def _goes_on(self, lane: Lane) -> None:
        """``lane`` has one message in flight more or less."""
        if lane.waiting:
            if lane.in_flight < IN_FLIGHT:
                self._ready[lane] = None
        elif not lane.in_flight and self._lanes.get(lane.subject) is lane:
            # A thousand tenants must not leave a thousand idle lanes.
            del self._lanes[lane.subject]

    def _pump_soon(self) -> None:
        # Not at once but in the loop's next turn: the requests that came with the same look at the sockets have then
        # arrived too, and share the message, or the batch. Waiting costs nobody anything.
        if not self._pumping:
            self._pumping = True
            task = self._loop.create_task(self._pump())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self) -> None:
        """Publish whatever may be published now. The end of what is in flight pumps again, and none is for ever."""
        self._pumping = False
        client = self._publisher.client
        while self._ready and client is not None and client.is_connected:
            if not self._batches and len(self._ready) >= MIN_MESSAGES:
                messages = self._next(MAX_MESSAGES)
            elif not self._batches and self._singles < self._most_singles:
                messages = self._next(1)
            else:
                oldest = next(iter(self._flights))
                if oldest.began + COUNTED_S > self._loop.time():
                    if self._waking is None:
                        self._waking = self._loop.call_at(oldest.began + COUNTED_S, self._wake)
                    return
                self._land(oldest)
                continue
            if messages:
                await self._send(messages)

    def _wake(self) -> None:
        self._waking = None
        self._pump_soon()

    def _next(self, count: int) -> list[_Message]:
        """The next message of as many lanes as that, or fewer, and where one batch has no room for them; in flight."""
        messages: list[_Message] = []
        size = 0
        now = self._loop.time()
        for lane in list(islice(self._ready, count)):
            if size >= MAX_BATCH_BYTES:
                break
            del self._ready[lane]
            lane.refuse(now + _LEAST_LEFT_S, unavailable("The callback log"))
            if lane.waiting:
                message = _Message(lane, lane.gather(), self._on_answer)
                size += len(message.payload)
                messages.append(message)
                lane.in_flight += 1
            self._goes_on(lane)
        if messages:
            flight = _Flight(len(messages), now, many=count > 1)
            for message in messages:
                message.flight = flight
                self._messages[message] = None
            self._flights[flight] = None
            if flight.many:
                self._batches += 1
            else:
                self._singles += 1
        return messages

    def _land(self, flight: _Flight) -> None:
        """Keep nobody waiting for ``flight`` any more."""
        if flight in self._flights:
            del self._flights[flight]
            if flight.many:
                self._batches -= 1
                self._most_singles = IN_FLIGHT
            else:
                self._singles -= 1
                self._most_singles = min(MAX_SINGLES, self._most_singles + 1)

    async def _send(self, messages: Sequence[_Message]) -> None:
        try:
            if len(messages) == 1:
                await self._publisher.send(messages[0])
            else:
                await self._publisher.send_all(messages)
        except AWAY as exc:
            # It stays in flight: either the connection comes back and connected() sends it, or its deadline ends it.
            self._not_sent.warning(repr(exc), subject=messages[0].subject)

    def _on_answer(self, message: _Message, refusal: Exception | None) -> None:
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

    def _look_for_late(self) -> None:
        """Give up what is not acknowledged in time, and refuse what could not even be published."""
        now = self._loop.time()
        for message in [message for message in self._messages if message.until <= now]:
            self._late.warning("no acknowledgement in time", subject=message.subject, callbacks=len(message.waiters))
            self._finish(message, unavailable("The callback log"))
        ends = [message.until for message in self._messages]
        for lane in list(self._lanes.values()):
            lane.refuse(now + _LEAST_LEFT_S, unavailable("The callback log"))
            if lane.waiting:
                ends.append(lane.waiting[0].deadline)
            else:
                self._goes_on(lane)
        # Whoever comes later has a later deadline, so nobody's is before the earliest of now.
        self._look = self._loop.call_at(max(min(ends), now + _LOOK_S), self._look_for_late) if ends else None

    def _finish(self, message: _Message, error: BackhaulError | None) -> None:
        del self._messages[message]
        self._publisher.forget(message)
        message.flight.left -= 1
        if not message.flight.left:
            self._land(message.flight)
        if error is not None:
            self.failed_at = self._loop.time()
        if self._tracing.enabled:
            self._trace(message, error)
        for waiter in message.waiters:
            waiter.settle(error)
        message.lane.in_flight -= 1
        self._goes_on(message.lane)
        if self._ready:
            self._pump_soon()

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
