"""Group commit: callbacks of one tenant and channel that arrive while a publish is in flight share the next message.

No timer delays anything: an idle lane publishes at once, a busy one publishes what has gathered as soon as JetStream
acknowledges. One acknowledgement (and one fsync on the server) then stands for many callbacks, and the more there is
to do, the more each carries. docs/decisions tells the measurements.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TypeVar

import msgspec
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.metrics import PUBLISH_CALLBACKS, PUBLISH_SECONDS, Metrics
from backhaul_common.names import CALLBACKS_STREAM
from backhaul_common.outages import Repeated
from backhaul_common.tracing import Tracing
from backhaul_common.wire import repeated
from backhaul_proto.callback.v1.callback_pb2 import CallbackBatch
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from opentelemetry.trace import SpanKind

MAX_CALLBACKS = 256
MAX_MESSAGE_BYTES = 512 * 1024
"""Large bodies share messages too: sixteen SendGrid posts in one took a third less CPU here, and two thirds less in the
server, than one message each, because every message costs an fsync. A larger body is a message of its own."""

IN_FLIGHT = 2
"""One is stored while the next one gathers, and a second hides the way to the server and back."""

RECONNECT_GRACE_S = 1.0
"""A shorter interruption is waited out within the callback's own deadline, a longer one is answered at once."""
MOST_UNSENT_BYTES = 8 << 20
"""What nats-py may hold that the socket does not take. A server that stalls and stays connected takes nothing, and what
has timed out meanwhile cannot be taken back from there."""

_ENVELOPE_BYTES = 1024
"""Room for the message's own headers."""
_HEADER_BYTES = 180
"""What the headers of a stored message take, about."""
_RETRY_S = 0.1
_LEAST_LEFT_S = 0.05
"""What has less time left is refused instead of published: its acknowledgement would come too late."""

_T = TypeVar("_T")


class _Ack(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    error: dict[str, object] | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


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


class _Message:
    """One published message that JetStream has not acknowledged."""

    __slots__ = ("headers", "lane", "payload", "sent_ns", "timer", "token", "waiters")

    def __init__(self, token: str, lane: _Lane, waiters: list[_Waiter], timer: asyncio.TimerHandle) -> None:
        self.token = token
        self.lane = lane
        self.waiters = waiters
        self.timer = timer
        self.payload = repeated(CallbackBatch.CALLBACKS_FIELD_NUMBER, [waiter.encoded for waiter in waiters])
        first = waiters[0]
        self.headers = {
            # Random for each callback, so what this suppresses is only this gateway's own repetition of a publish.
            "Nats-Msg-Id": first.callback_id,
            "Nats-Expected-Stream": CALLBACKS_STREAM,
            "traceparent": first.traceparent,
        }
        self.sent_ns = 0


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
        self._client: Client | None = None
        self._inbox = ""
        self._lanes: dict[str, _Lane] = {}
        self._messages: dict[str, _Message] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0
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

    async def attach(self, client: Client) -> None:
        """Publish over ``client`` from now on; it must not buffer while its connection is away."""
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._on_ack)
        self._client = client

    async def publish(self, subject: str, callback_id: str, encoded: bytes, traceparent: str) -> None:
        """Return when JetStream has stored the callback. UNAVAILABLE, within the timeout, when it has not.

        ``encoded`` is a serialised Callback; ``traceparent`` is its request's.
        """
        now = self._loop.time()
        client = self._client
        if client is None or not self._reachable(client, now) or client.pending_data_size > MOST_UNSENT_BYTES:
            raise unavailable("The callback log")
        if len(encoded) > client.max_payload - _ENVELOPE_BYTES:
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

    async def resume(self) -> None:
        """To be called when the connection is back: sends again what was in flight, under the same message ids."""
        self._away_since = None
        for message in list(self._messages.values()):
            await self._send(message)
        for lane in list(self._lanes.values()):
            await self._pump(lane)

    @property
    def waiting(self) -> int:
        """Callbacks that are not acknowledged, in the queues or in flight."""
        return sum(len(lane.waiting) for lane in self._lanes.values()) + sum(
            len(message.waiters) for message in self._messages.values()
        )

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is in flight, and nothing is kept of what did."""
        return not (self._lanes or self._messages)

    async def drain(self) -> None:
        """Return when nothing waits any more. Bounded by the timeout that every callback has."""
        while self._lanes:
            futures = [waiter.future for lane in self._lanes.values() for waiter in lane.waiting]
            futures += [waiter.future for message in self._messages.values() for waiter in message.waiters]
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
        while waiting and self._client is not None and self._client.is_connected:
            if lane.in_flight >= IN_FLIGHT:
                return  # The end of one that is in flight pumps again, and none is in flight for ever.
            if waiting[0].deadline <= self._loop.time() + _LEAST_LEFT_S:
                _settle(waiting.popleft(), unavailable("The callback log"))
                continue
            waiters = _gather(waiting)
            self._count += 1
            token = f"{self._count:x}"
            timer = self._loop.call_at(waiters[0].deadline, self._timed_out, token)
            message = self._messages[token] = _Message(token, lane, waiters, timer)
            lane.in_flight += 1
            await self._send(message)
        if waiting:
            self._loop.call_at(waiting[0].deadline, self._expire, lane)
        elif not lane.in_flight and self._lanes.get(lane.subject) is lane:
            # A thousand tenants must not leave a thousand idle lanes.
            del self._lanes[lane.subject]

    async def _send(self, message: _Message) -> None:
        if self._client is None or message.token not in self._messages:
            return
        message.sent_ns = time.time_ns()
        try:
            await self._client.publish(
                message.lane.subject, message.payload, reply=f"{self._inbox}.{message.token}", headers=message.headers
            )
        except (NatsError, OSError) as exc:
            # It stays in flight: either the connection comes back and resume() sends it, or its deadline ends it.
            self._not_sent.warning(repr(exc), subject=message.lane.subject)

    async def _on_ack(self, msg: Msg) -> None:
        message = self._messages.get(msg.subject.rpartition(".")[2])
        if message is None:
            return  # It came after its deadline; the providers were told that it is not known to be stored.
        if msg.headers is not None and msg.headers.get("Status") == "503":
            # No responder: JetStream is between two leaders. That passes, usually within the deadline.
            self._loop.call_later(_RETRY_S, self._background, self._send, message)
            return
        problem = _problem(msg.data)
        self._finish(message, unavailable("The callback log") if problem else None)
        if problem:
            self._refused.error(problem, subject=message.lane.subject)
        else:
            for trouble in (self._not_sent, self._refused, self._late):
                trouble.over()
            self.stored_at = self._loop.time()
            self._on_stored(message.lane.subject, len(message.payload) + _HEADER_BYTES)
            self._publish_seconds.record((time.time_ns() - message.sent_ns) / 1e9)
            self._publish_callbacks.record(len(message.waiters))
        await self._pump(message.lane)

    def _timed_out(self, token: str) -> None:
        message = self._messages[token]
        self._late.warning("no acknowledgement in time", subject=message.lane.subject, callbacks=len(message.waiters))
        self._finish(message, unavailable("The callback log"))
        self._background(self._pump, message.lane)

    def _expire(self, lane: _Lane) -> None:
        """Refuse those whose time is up before they could be published: nothing of theirs is stored."""
        while lane.waiting and lane.waiting[0].deadline <= self._loop.time() + _LEAST_LEFT_S:
            _settle(lane.waiting.popleft(), unavailable("The callback log"))
        self._background(self._pump, lane)

    def _finish(self, message: _Message, error: BackhaulError | None) -> None:
        del self._messages[message.token]
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
                "messaging.destination.name": message.lane.subject,
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


def _problem(data: bytes) -> str:
    """Why JetStream did not store a message; empty when it did."""
    try:
        ack = _decode_ack(data)
    except msgspec.DecodeError:
        return f"unreadable acknowledgement {data[:200]!r}"
    return "" if ack.seq and ack.error is None else f"{ack.error}"
