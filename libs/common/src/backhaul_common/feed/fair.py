"""Messages of all tenants from one stream, fairly.

One durable consumer delivers everybody's messages in the order of the stream; copies of a service share it, and the
broker splits the messages over them. Each queue path has a buffer of bounded size, and a batch takes an equal share of
bytes from every buffer that holds something, so a tenant with one message is in the very next batch, however long
another's backlog is. That batch, the one that is being committed and the one that is read meanwhile are what it waits
for. So while there are others beside a flood, batches are taken in turn: one of the others alone, one of the flood,
which is smaller, and none is read before the one before is committed. Each message of the flood costs more then: where
it grows all the same, batches are whole and shared again.

What does not fit into its path's buffer is *parked*: its bytes are dropped, its position is kept, and it stays
unacknowledged. The consumer thus runs through a flood at the speed of the network and reaches the others behind it.
``Parking`` reads what is parked again by its position when the buffer has room; should this process die, the broker
delivers it anew. (A consumer for each tenant would be simpler, but each of them makes the broker look at every
message of the stream: with a thousand tenants, a thousand times.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from nats.aio.client import Client
from nats.js import JetStreamContext

from backhaul_common.errors import BackhaulError
from backhaul_common.feed import formats
from backhaul_common.feed.buffers import FairBuffers, Put
from backhaul_common.feed.growth import Growth
from backhaul_common.feed.message import StreamMessage, answer
from backhaul_common.feed.parking import Parking, Renewal
from backhaul_common.feed.pull import Durable, PullConsumer, PullLimits
from backhaul_common.lifecycle import cancel

_TURN = 256

_BESIDE_S = 5.0
"""For how long a flood is taken in smaller batches after little of others waited: the next of it may come soon, and
would wait for as much as three whole batches."""

_LAST_WORDS_S = 2.0
"""How long handing back may take at the end."""

_ELSEWHERE_S = 0.1
"""How long the broker waits with what is handed back at the end: then it knows that nothing is asked for here."""

Admit = Callable[[StreamMessage], Awaitable[bool]]
"""Whether a message is to be taken. Where it is not, it was answered. UNAVAILABLE when the broker cannot be told."""


@dataclass(frozen=True, slots=True)
class FeedConfig:
    """What a feed takes from where, and how much of it.

    A batch is of ``batch_bytes``; that of a flood, of which more than a batch waits, is of about ``beside_bytes`` while
    little waits of others, and what waits does not grow. ``path_bytes`` are held of one queue path, what is beyond is
    parked; None parks nothing, for consumers whose messages are few. ``buffer_bytes`` are held of all; beyond it no
    more are asked for. What waits here is kept from other copies for ``stuck_s`` at most while nobody takes any of it:
    far longer than a slow commit.
    """

    durable: Durable
    pull: PullLimits = field(default_factory=PullLimits)
    batch_bytes: int = 512 << 10
    beside_bytes: int = 64 << 10
    path_bytes: int | None = 2 << 20
    buffer_bytes: int = 32 << 20
    stuck_s: float = 300.0


class FairFeed:
    """The feed. ``run`` keeps it going; ``next_batch`` takes from it."""

    def __init__(self, client: Client, js: JetStreamContext, config: FeedConfig, *, admit: Admit | None = None) -> None:
        self._client = client
        self._js = js
        self._config = config
        self._admit = admit
        self._buffers = FairBuffers[StreamMessage](config.path_bytes)
        self._arrived = asyncio.Event()
        self._pull = PullConsumer(
            client,
            config.durable.stream,
            config.pull,
            ensure=self._ensure,
            receive=self._receive,
            has_room=lambda: self._buffers.bytes < config.buffer_bytes,
        )
        self._renewal = Renewal(client, self._buffers, config.durable.ack_wait_s, self._in_hand)
        self._parking: Parking | None = None
        if config.path_bytes is not None:
            size = config.path_bytes // 2
            self._parking = Parking(client, config.durable.stream, self._buffers, size, self._arrived)
        self._paused = False
        self._left = False
        self._delay_s = 0.0
        self._taken_at = 0.0
        self._beside_until = 0.0
        self._growth = Growth()
        self._growing = False
        self._flood_was_last = True
        self._anew = 0

    @property
    def anew(self) -> int:
        """What lies up to this position may have been delivered before the consumer was made: see ``Durable``."""
        return self._anew

    @property
    def parked(self) -> int:
        """Messages whose tenants have no room for them now. May be asked by another thread."""
        return self._buffers.parked

    async def run(self) -> None:
        """Keep a pull open, read again what is parked and renew what waits, until cancelled. Raises what ends any.

        When it is cancelled, what waits is handed back, so that another copy has it at once and not after the ack wait.
        That takes two seconds at most; the connection is still needed for it.
        """
        self._taken_at = asyncio.get_running_loop().time()
        tasks = [
            asyncio.create_task(self._pull.run(), name="pull"),
            asyncio.create_task(self._renewal.run(), name="renew"),
        ]
        if self._parking is not None:
            tasks.append(asyncio.create_task(self._parking.run(), name="read_parked"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except asyncio.CancelledError:
            await self._leave()
            raise
        finally:
            await asyncio.gather(*(cancel(task) for task in tasks))
            if self._left:  # Not before: the pull would ask once more.
                self._left = False
                self.resume()

    async def reconnected(self) -> None:
        """To be called after each reconnection."""
        await self._pull.reconnected()

    async def check(self) -> None:
        """A readiness check: the connection stands, and messages are asked for from a consumer that is there."""
        await self._pull.check()
        try:
            await self._config.durable.check(self._js)
        except ConnectionError:
            # Where no pull is open, or one crossed the deletion, nothing else tells of it before the pull expires.
            self._pull.look_again()
            raise

    # Taking.

    @property
    def beside(self) -> bool:
        """Whether little of some waits, or did a moment ago, beside a flood of others that does not grow."""
        return asyncio.get_running_loop().time() <= self._beside_until and not self._growing

    async def full(self) -> None:
        """Returns when there is enough for a whole batch: never while there are others beside a flood, for whom a batch
        of it that was read ahead would be one more to wait for."""
        while self._buffers.bytes < self._config.batch_bytes or self.beside:
            self._arrived.clear()
            await self._arrived.wait()

    async def next_batch(self) -> list[StreamMessage]:
        """A batch with the same share of every queue path of which anything waits, or of the flood or the others alone.
        Waits for the first message."""
        while not len(self._buffers):
            self._arrived.clear()
            await self._arrived.wait()
        self._taken_at = asyncio.get_running_loop().time()
        batch = self._take()
        self._growth.taken(_size(batch))
        self._wake()
        return batch

    def _take(self) -> list[StreamMessage]:
        config, little = self._config, self._config.beside_bytes // 4
        if self._buffers.uneven(little, config.batch_bytes):
            self._beside_until = self._taken_at + _BESIDE_S
        self._growing = self._growth.judge(self._taken_at)
        if not self.beside:
            self._flood_was_last = True
            return self._buffers.next_batch(config.batch_bytes)
        floods, others = self._buffers.apart(config.batch_bytes)
        self._flood_was_last = bool(floods) and not (others and self._flood_was_last)
        if not self._flood_was_last:
            # None of them has much more of its turn than a flood has of its own.
            return self._buffers.next_batch(min(config.batch_bytes, config.beside_bytes * len(others)), others)
        # The same share for each, and at least ``little``.
        size = min(config.batch_bytes, config.beside_bytes + little * (len(floods) - 1))
        return self._buffers.next_batch(size, floods)

    async def catch_up(self) -> None:
        """Returns when what is on its way here has arrived, or a moment is over: another tenant may be behind it."""
        await self._pull.catch_up()

    # Giving back.

    async def take_back(self, messages: Sequence[StreamMessage]) -> None:
        """Have ``messages``, which were taken last, before all others of their paths again."""
        if self._paused:
            await self.give_back(messages, self._delay_s)
            return
        self._buffers.take_back(messages)
        self._growth.taken(-_size(messages))
        self._arrived.set()

    async def give_back(self, messages: Sequence[StreamMessage], delay_s: float) -> None:
        """Give back what was taken, to be delivered again, here or elsewhere, not before ``delay_s``."""
        await self._nak([message.reply for message in messages], delay_s)

    async def hand_back(self, delay_s: float) -> None:
        """Give everything that waits here back to the broker, and ask for nothing until ``resume``."""
        self._paused = True
        self._delay_s = delay_s
        self._pull.pause()
        await self._nak(self._buffers.take_all(), delay_s)
        await self._pull.withdraw()

    def resume(self) -> None:
        """Ask again."""
        self._paused = False
        # All that was handed back comes again.
        self._growth = Growth()
        self._pull.resume()
        self._wake()

    def drop(self, path: str) -> None:
        """Forget what waits under ``path``, whose tenant is gone."""
        self._buffers.drop(path)

    # What comes in.

    async def _receive(self, message: StreamMessage) -> None:
        if self._paused:
            # It was on its way when all was handed back. Unread, it would wait here for the end of the ack wait.
            await self.give_back([message], self._delay_s)
            return
        if self._admit is not None:
            admitted = False
            with suppress(BackhaulError):  # If an answer is lost, the broker delivers again after the ack wait.
                admitted = await self._admit(message)
            if not admitted:
                return
        # Delivered again while it waits here, once is enough.
        put = self._buffers.put(message)
        if put is not Put.KNOWN:
            self._growth.came(message.reply, len(message.data))
        if put is Put.BUFFERED:
            self._arrived.set()

    async def _ensure(self) -> str:
        self._anew = await self._config.durable.ensure(self._js)
        return self._config.durable.name

    async def _leave(self) -> None:
        if not self._client.is_connected:
            return  # The broker hears nothing, and delivers what waits here again after the ack wait.
        self._left = True
        handing = asyncio.create_task(self.hand_back(_ELSEWHERE_S), name="hand_back")
        ends = asyncio.get_running_loop().time() + _LAST_WORDS_S
        # ``cancel`` asks again and again, and this is to come to its end all the same.
        while not handing.done() and (left_s := ends - asyncio.get_running_loop().time()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({handing}, timeout=left_s)
        await cancel(handing)

    def _wake(self) -> None:
        self._pull.wake()
        if self._parking is not None:
            self._parking.wake()

    def _in_hand(self) -> bool:
        # One whose store is away, or whose consumer is stuck, must not keep from other copies what these could do.
        return not self._paused and asyncio.get_running_loop().time() - self._taken_at < self._config.stuck_s

    async def _nak(self, replies: Sequence[str], delay_s: float) -> None:
        word = formats.nak(delay_s)
        with suppress(BackhaulError):  # If a nak is lost, the broker delivers again after the ack wait.
            for n, reply in enumerate(replies, 1):
                await answer(self._client, reply, word)
                if not n % _TURN:
                    await asyncio.sleep(0)  # Thousands that were parked must not keep everything else waiting.


def _size(messages: Sequence[StreamMessage]) -> int:
    return sum(len(message.data) for message in messages)
