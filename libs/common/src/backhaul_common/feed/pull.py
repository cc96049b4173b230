"""A pull that is always open: messages of a consumer as soon as there are any, and no more than there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from backhaul_common.feed import formats
from backhaul_common.feed.message import StreamMessage
from backhaul_common.jetstream import AWAY, require_connected
from backhaul_common.logs import get_logger
from backhaul_common.names import AGAIN_HEADER, ANEW_METADATA
from backhaul_common.outages import Repeated

_NO_HEADERS: Mapping[str, str] = {}

PULL_EXPIRES_S = 30.0
"""How long the broker keeps a pull open. A pull that is not heard of for longer is taken for lost and made again."""

_GRACE_S = 3.0
_LOOK_S = 1.0

CATCH_UP_S, _QUIET_S = 0.25, 0.01
"""How long to wait for what is on its way, and what silence means that it is here."""


@dataclass(frozen=True, slots=True)
class PullLimits:
    """What is asked for at a time. A message of more than ``bytes`` could never be had."""

    messages: int = 512
    bytes: int = 8 << 20


class PullConsumer:
    """Asks for messages of one consumer of ``stream``, and gives each to ``receive``, in order.

    ``ensure`` returns the name of the consumer, which is there then; it is asked at the start, and whenever the broker
    does not know the consumer. It raises what ``AWAY`` names to be asked again a second later. Nothing is asked for
    while ``has_room`` says no: call ``wake`` when that changes.
    """

    def __init__(
        self,
        client: Client,
        stream: str,
        limits: PullLimits,
        *,
        ensure: Callable[[], Awaitable[str]],
        receive: Callable[[StreamMessage], Awaitable[None]],
        has_room: Callable[[], bool],
    ) -> None:
        self._client = client
        self._stream = stream
        self._limits = limits
        self._request = formats.pull(limits.messages, limits.bytes, PULL_EXPIRES_S)
        self._ensure = ensure
        self._receive = receive
        self._has_room = has_room
        self._log = get_logger(component="pull", stream=stream)
        self._not_in_line = Repeated("consumer_not_in_line", component="pull", stream=stream)
        self._reason = ""
        self._inbox = client.new_inbox()
        self._wake = asyncio.Event()
        self._subscription: Subscription | None = None
        self._left: list[Subscription] = []
        self._consumer = ""
        self._running = False
        self._paused = False
        self._pull = 0
        self._asked_at = 0.0
        self._expected = 0
        self._seen = 0

    async def run(self) -> None:
        """Keep a pull open until cancelled."""
        loop = asyncio.get_running_loop()
        self._expected = 0
        self._consumer = ""
        self._running = True
        try:
            while True:
                self._wake.clear()
                if not self._consumer:
                    await self._find()
                if self._consumer:
                    await self._ask()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._wake.wait()
                if self._expected and loop.time() - self._asked_at > PULL_EXPIRES_S + _GRACE_S:
                    self._ended()
        finally:
            self._running = False
            subscription, self._subscription = self._subscription, None
            if subscription is not None and not self._client.is_closed:
                await subscription.unsubscribe()

    def wake(self) -> None:
        """There may be room again."""
        self._wake.set()

    def look_again(self) -> None:
        """Ask ``ensure`` again, and pull anew."""
        self._consumer = ""
        self._ended()

    async def reconnected(self) -> None:
        """The broker forgot the pull with the connection: make it again."""
        self._ended()

    def pause(self) -> None:
        """Ask for nothing until ``resume``. What is on its way still comes."""
        self._paused = True
        self._expected = 0
        if self._subscription is not None:
            self._left.append(self._subscription)
            self._subscription = None

    async def withdraw(self) -> None:
        """After ``pause``: have the broker forget the open pull. Otherwise it would send what is given back here."""
        left, self._left = self._left, []
        for subscription in left:
            try:
                if self._client.is_connected:
                    with suppress(*AWAY):
                        await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py does not annotate it
            finally:
                # What was not drained nats-py would renew over the next connection, and each message would come twice.
                # After a drain that failed it refuses to unsubscribe, so this does what both of them end with.
                subscription._stop_processing()
                self._client._remove_sub(subscription._id)

    def resume(self) -> None:
        """Ask again."""
        self._paused = False
        self._wake.set()

    async def catch_up(self) -> None:
        """Returns when what is on its way here has arrived, or a moment is over."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + CATCH_UP_S
        seen = -1
        while seen != self._seen and loop.time() < ends:
            seen = self._seen
            await asyncio.sleep(_QUIET_S)

    async def check(self) -> None:
        """A readiness check: the connection stands, and messages are asked for. ConnectionError otherwise."""
        require_connected(self._client)
        if not self._running:
            raise ConnectionError(f"messages of {self._stream} are not asked for yet")
        if not self._consumer and self._reason:
            raise ConnectionError(f"messages of {self._stream} cannot be asked for: {self._reason}")

    async def _find(self) -> None:
        try:
            self._consumer = await self._ensure()
        except AWAY as exc:
            # The stream may not exist yet, or NATS be away: the next round tries again.
            self._reason = str(exc) or type(exc).__name__
            self._not_in_line.warning(repr(exc))
        else:
            self._reason = ""
            self._not_in_line.over()
            self._expected = 0

    async def _ask(self) -> None:
        if self._expected or self._paused or not self._has_room() or not self._client.is_connected:
            return
        if self._subscription is None:
            self._subscription = await self._client.subscribe(
                f"{self._inbox}.>", cb=self._received, pending_msgs_limit=0, pending_bytes_limit=0
            )
        self._pull += 1
        self._expected = self._limits.messages
        self._asked_at = asyncio.get_running_loop().time()
        await self._client.publish(
            formats.pull_subject(self._stream, self._consumer), self._request, reply=f"{self._inbox}.{self._pull}"
        )

    def _ended(self) -> None:
        self._expected = 0
        self._wake.set()

    async def _received(self, message: Msg) -> None:
        self._seen += 1
        # The broker keeps the stored subject on what it delivers; what it says itself comes to the inbox.
        if message.subject.startswith(self._inbox):
            self._status(message)
            return
        if self._expected:
            self._expected -= 1
            if not self._expected:
                self._wake.set()
        headers = message.headers or _NO_HEADERS
        await self._receive(
            StreamMessage(
                self._client,
                message.subject,
                message.reply,
                message.data,
                headers.get("traceparent", ""),
                again=AGAIN_HEADER in headers,
            )
        )

    def _status(self, message: Msg) -> None:
        if message.subject[len(self._inbox) + 1 :] != str(self._pull):
            return
        status, description = formats.status_of(message.headers)
        if status == formats.IDLE:
            return
        if status == formats.NO_RESPONDERS or "consumer deleted" in description:
            # Nobody listens: the consumer is not there (yet).
            self._consumer = ""
            self._wake.set()
        elif "maxbytes" in description and self._expected == self._limits.messages:
            # Full before anything fitted in: asking again at once would turn in circles at the speed of the network.
            self._log.error("message_larger_than_pull", pull_bytes=self._limits.bytes)
            asyncio.get_running_loop().call_later(_GRACE_S, self._ended)
        else:
            # 404 and 408: the pull expired. 409: it is full in bytes, or the consumer moved to another server.
            self._ended()


@dataclass(frozen=True, slots=True)
class Durable:
    """A durable consumer, which all copies of a service share: each message goes to one of them until it is answered.

    What a copy does not answer within ``ack_wait_s`` is delivered again. At ``max_pending`` unanswered messages, over
    all copies, the broker delivers to nobody. All of the stream is consumed where ``filter_subjects`` is empty.
    """

    stream: str
    name: str
    filter_subjects: tuple[str, ...] = ()
    ack_wait_s: float = 30.0
    max_pending: int = 200_000

    async def ensure(self, js: JetStreamContext) -> int:
        """Create it, or bring it in line. Raises what ``AWAY`` names.

        Returns where the stream ended when it was made: what lies before may have been delivered by one of the same
        name that was deleted, as after a database was restored. 0 of one that was made by a version which did not say.
        """
        wanted = ConsumerConfig(
            durable_name=self.name,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self.ack_wait_s,
            # Giving up is the consumer's decision (a dead letter), never the broker's silence.
            max_deliver=-1,
            max_ack_pending=self.max_pending,
            filter_subjects=list(self.filter_subjects) or None,
        )
        try:
            present = (await js.consumer_info(self.stream, self.name)).config
        except NotFoundError:
            last = (await js.stream_info(self.stream)).state.last_seq
            await js.add_consumer(self.stream, wanted.evolve(metadata={ANEW_METADATA: str(last)}))
            return last
        else:
            # What an operator set besides (replicas, metadata) stays as it is.
            evolved = present.evolve(**{name: getattr(wanted, name) for name in _KEPT_IN_LINE})
            if evolved != present:
                await js.add_consumer(self.stream, evolved)
        return int((present.metadata or {}).get(ANEW_METADATA, 0))

    async def check(self, js: JetStreamContext) -> None:
        """ConnectionError when it, or its stream, does not exist yet."""
        try:
            await js.consumer_info(self.stream, self.name)
        except NotFoundError:
            raise ConnectionError(f"the stream {self.stream}, or its consumer, does not exist yet") from None


# Both ways of writing a filter: a consumer that has the single one as well would refuse the list, or keep to it.
_KEPT_IN_LINE = ("ack_wait", "max_deliver", "max_ack_pending", "filter_subject", "filter_subjects")
