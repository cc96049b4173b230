"""Messages of a stream from a position on, in order and without gaps, for a consumer whose progress is a position.

Nothing is acknowledged: the consumer stores how far it is, with what it made of the messages, and begins there again.
So each message counts exactly once, whatever is killed when, and there is no set of acknowledgements to agree with. In
return one copy at a time reads, and one message that fails holds up what lies behind it: ``Follower`` says what
becomes of such a message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from backhaul_common.feed import formats
from backhaul_common.feed.message import StreamMessage
from backhaul_common.feed.pull import PullConsumer, PullLimits
from backhaul_common.jetstream import AWAY, require_connected
from backhaul_common.logs import get_logger

FORGOTTEN_AFTER_S = 60.0
"""When the broker forgets a consumer that nobody asks; far longer than a pull takes to be made again."""

ASKED_S = 1.0
"""How long the broker may take to say whether there is more."""


@dataclass(frozen=True, slots=True)
class ReaderConfig:
    """What is read of which stream, all of it where ``filter_subjects`` is empty. ``name`` is for operators.

    ``buffer_bytes`` are held; beyond it no more are asked for.
    """

    stream: str
    name: str
    filter_subjects: tuple[str, ...] = ()
    batch_bytes: int = 512 << 10
    buffer_bytes: int = 8 << 20
    pull: PullLimits = field(default_factory=PullLimits)


class PositionReader:
    """Reads on from where ``seek`` said. ``run`` keeps it going; ``next_batch`` takes from it.

    The broker's side is a consumer of its own that is made anew whenever the order may be broken: after a reconnection,
    a gap, or when the broker forgot it.
    """

    def __init__(self, client: Client, js: JetStreamContext, config: ReaderConfig) -> None:
        self._js = js
        self._client = client
        self._config = config
        self._log = get_logger(component="reader", stream=config.stream)
        self._pull = PullConsumer(
            client,
            config.stream,
            config.pull,
            ensure=self._ensure,
            receive=self._receive,
            has_room=lambda: self._bytes < config.buffer_bytes,
        )
        self._waiting: deque[StreamMessage] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._after = 0
        self._sought: asyncio.Event = asyncio.Event()
        self._consumer = ""
        self._consumer_seq = 0
        self.pending = 0
        """Messages that lie behind the last one that came. May be asked by another thread."""

    @property
    def waits(self) -> bool:
        """Whether anything lies behind what ``next_batch`` gave, as far as is known here."""
        return bool(self._waiting or self.pending)

    def seek(self, position: int) -> None:
        """Have what follows ``position`` next; 0 is before the first. What waits here is dropped."""
        self._waiting.clear()
        self._bytes = 0
        self._after = position
        self._sought.set()
        self._anew()

    async def run(self) -> None:
        """Keep a pull open from the first ``seek`` on, until cancelled."""
        await self._sought.wait()
        try:
            await self._pull.run()
        finally:
            await self._forget()

    async def reconnected(self) -> None:
        """To be called after each reconnection: what was on its way is lost."""
        self._anew()

    async def check(self) -> None:
        """A readiness check: the connection stands, and messages are asked for. ConnectionError otherwise.

        Before the first ``seek`` none are asked for: another copy is at them, and this one is ready to take over.
        """
        if not self._sought.is_set():
            require_connected(self._client)
            return
        await self._pull.check()
        if not self._consumer:
            raise ConnectionError(f"the stream {self._config.stream} is not there yet")

    async def is_behind(self, position: int) -> bool:
        """Whether anything lies in the stream behind ``position``; also where the broker does not say that nothing
        does. What is published while it is asked may be left out."""
        name = self._consumer
        if not name:
            return True
        try:
            async with asyncio.timeout(ASKED_S):
                info = await self._js.consumer_info(self._config.stream, name)
        except AWAY:
            return True
        # It may have been sent, and lie on its way or here.
        sent = info.delivered.stream_seq if info.delivered is not None else 0
        return info.num_pending != 0 or sent > position

    async def next_batch(self) -> list[StreamMessage]:
        """The next messages, of about ``batch_bytes``; waits for the first. One that is larger comes alone."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        batch: list[StreamMessage] = []
        size = 0
        while self._waiting and (not batch or size + len(self._waiting[0].data) <= self._config.batch_bytes):
            message = self._waiting.popleft()
            size += len(message.data)
            batch.append(message)
        self._bytes -= size
        self._pull.wake()
        return batch

    def _anew(self) -> None:
        self._consumer_seq = -1  # Nothing that the consumer still sends is the next one.
        self._pull.look_again()

    async def _ensure(self) -> str:
        await self._forget()
        while True:
            after = self._after
            await self._look(after)
            name = f"{self._config.name}-{token_hex(8)}"
            wanted = ConsumerConfig(
                name=name,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=after + 1,
                ack_policy=AckPolicy.NONE,
                filter_subjects=list(self._config.filter_subjects) or None,
                inactive_threshold=FORGOTTEN_AFTER_S,
                mem_storage=True,
                num_replicas=1,
            )
            await self._js.add_consumer(self._config.stream, wanted)
            self._consumer, self._consumer_seq = name, 0
            if after == self._after:
                return name
            await self._forget()  # Meanwhile it was sought elsewhere.

    async def _look(self, after: int) -> None:
        """Say it where the stream does not have what follows ``after``: that cannot be mended here.

        ConnectionError where it is another stream than the one that ``after`` was stored for, or lost its end: what is
        stored at positions that were there before must not be taken for known.
        """
        state = (await self._js.stream_info(self._config.stream)).state
        if after and state.first_seq > after + 1:
            self._log.error("messages_gone_unread", position=after, first_seq=state.first_seq)
        if after > state.last_seq:
            raise ConnectionError(
                f"the stream {self._config.stream} ends at {state.last_seq}, before the position {after}"
            )

    async def _forget(self) -> None:
        name, self._consumer = self._consumer, ""
        if name:
            with suppress(*AWAY):  # The broker forgets it by itself, only later.
                await self._js.delete_consumer(self._config.stream, name)

    async def _receive(self, message: StreamMessage) -> None:
        place = formats.place_of(message.reply)
        if place.consumer != self._consumer or self._consumer_seq < 0:
            return  # From before what made it begin anew.
        if place.consumer_seq != self._consumer_seq + 1:
            self._log.warning("gap_in_messages", after=self._after)
            self._anew()
            return
        self._consumer_seq += 1
        self._after = message.stream_seq
        self.pending = place.pending
        self._waiting.append(message)
        self._bytes += len(message.data)
        self._arrived.set()
