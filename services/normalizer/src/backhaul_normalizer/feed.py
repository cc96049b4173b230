"""Callbacks of all tenants from JetStream, fairly.

One durable pull consumer delivers all tenants' callbacks in the order of the stream; copies of this service share it,
and the broker splits the callbacks over them. Each tenant has a buffer of bounded size, and a batch takes an equal
share of bytes from every buffer that holds something, so a tenant with one callback is in the very next batch, however
long another's backlog is.

What does not fit into its tenant's buffer is *parked*: its bytes are dropped, its position is kept, and it stays
unacknowledged. The consumer thus runs through a flood at the speed of the network and reaches the others behind it.
``Parking`` reads what is parked again by its position when the buffer has room; should this process die, the broker
delivers it anew. (A consumer for each tenant would be simpler, but each of them makes the broker look at every
message of the stream: with a thousand tenants, a thousand times.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import nats.errors
from backhaul_common.errors import BackhaulError
from backhaul_common.jetstream import AWAY, require_connected
from backhaul_common.lifecycle import cancel
from backhaul_common.logs import get_logger
from backhaul_common.names import CALLBACKS_STREAM, CANARY_SUBJECT, NORMALIZER_CONSUMER, queue_path_key
from backhaul_common.tenants import Tenant, TenantDirectory
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from backhaul_normalizer.delivery import JetStreamDelivery, deliveries_of, stream_seq_of
from backhaul_normalizer.parking import Parking, Source
from backhaul_normalizer.ports import Delivery
from backhaul_normalizer.settings import NormalizerSettings
from backhaul_normalizer.unowned import Unowned

PULL_EXPIRES_S = 30.0
"""How long the broker keeps a pull open. A pull that is not heard of for longer is taken for lost and made again."""

STUCK_S = 300.0
"""How long what waits here is kept from other copies although nobody takes any of it; far longer than a slow commit."""

_KEPT_IN_LINE = ("ack_wait", "max_deliver", "max_ack_pending")

CATCH_UP_S, _QUIET_S = 0.25, 0.01
"""How long to wait for what is on its way, and what silence means that it is here."""

_GRACE_S = 3.0
_TURN = 256
_LOOK_S = 1.0
_UNKNOWN_TENANT_S = 2.0


class FairFeed:
    """The feed. ``run`` keeps it going; ``next_batch`` takes from it."""

    def __init__(
        self,
        client: Client,
        js: JetStreamContext,
        directory: TenantDirectory,
        settings: NormalizerSettings,
        unowned: Unowned,
    ) -> None:
        self._client = client
        self._js = js
        self._settings = settings
        self._log = get_logger(component="feed")
        self._paths: dict[str, str] = {}
        self._sources: dict[str, Source] = {}
        self._unowned = unowned
        self._ready: deque[Source] = deque()
        self._parking = Parking(client, settings, self._sources, self._keep, self._in_hand)
        self._arrived = asyncio.Event()
        self._wake = asyncio.Event()
        self._bytes = 0
        self._inbox = client.new_inbox()
        self._expected = 0
        self._pull = 0
        self._asked_at = 0.0
        self._taken_at = 0.0
        self._delay_s = 0.0
        self._seen = 0
        self._running = False
        self._subscription: Subscription | None = None
        self._unsure = True
        self._paused = False
        self._request = msgspec.json.encode(
            {
                "batch": settings.normalizer_pull_messages,
                "max_bytes": settings.normalizer_pull_bytes,
                "expires": int(PULL_EXPIRES_S * 1e9),
            }
        )
        directory.listen(self._tenant_changed)

    @property
    def parked(self) -> int:
        """Messages whose tenants have no room for them now. May be asked by another thread."""
        return sum(len(source.parked) for source in list(self._sources.values()))

    def _tenant_changed(self, tenant_id: str, tenant: Tenant | None) -> None:
        """Know the queue paths. Whose callbacks lie under one is not judged here, but by the fence of each commit."""
        before = self._paths.pop(tenant_id, "")
        path = queue_path_key(tenant.queue_path) if tenant is not None else ""
        if path:
            self._paths[tenant_id] = path
            if path not in self._sources:
                self._sources[path] = Source(path)
        # A new tenant may have the path already: its registration can be heard of before the other's deletion.
        if before and before not in self._paths.values():
            source = self._sources.pop(before)
            self._bytes -= source.bytes
            source.take_all()
            source.parked.clear()

    # Asking.

    async def run(self) -> None:
        """Keep a pull open, read again what is parked and renew what waits, until cancelled. Raises what ends any."""
        self._expected = 0
        self._unsure = True
        self._taken_at = asyncio.get_running_loop().time()
        tasks = [
            asyncio.create_task(self._pull_on(), name="pull"),
            asyncio.create_task(self._parking.read(), name="read_parked"),
            asyncio.create_task(self._parking.renew(), name="renew"),
        ]
        self._running = True
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._running = False
            await asyncio.gather(*(cancel(task) for task in tasks))
            subscription, self._subscription = self._subscription, None
            if subscription is not None and not self._client.is_closed:
                await subscription.unsubscribe()

    async def _pull_on(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if self._unsure:
                await self._ensure_consumer()
            await self._ask()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            if self._expected and loop.time() - self._asked_at > PULL_EXPIRES_S + _GRACE_S:
                self._pull_ended()

    async def reconnected(self) -> None:
        """The broker forgot the pull with the connection: make it again."""
        self._pull_ended()

    def _pull_ended(self) -> None:
        self._expected = 0
        self._wake.set()

    async def _ask(self) -> None:
        if (
            self._expected
            or self._paused
            or self._bytes >= self._settings.normalizer_buffer_bytes
            or not self._client.is_connected
        ):
            return
        if self._subscription is None:
            self._subscription = await self._client.subscribe(
                f"{self._inbox}.>", cb=self._received, pending_msgs_limit=0, pending_bytes_limit=0
            )
        self._pull += 1
        self._expected = self._settings.normalizer_pull_messages
        self._asked_at = asyncio.get_running_loop().time()
        await self._client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{CALLBACKS_STREAM}.{NORMALIZER_CONSUMER}",
            self._request,
            reply=f"{self._inbox}.{self._pull}",
        )

    async def _ensure_consumer(self) -> None:
        """Create the consumer, or bring it in line with the settings."""
        wanted = ConsumerConfig(
            durable_name=NORMALIZER_CONSUMER,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._settings.normalizer_ack_wait_s,
            # Giving up is the consumer's decision (a dead letter), never the broker's silence.
            max_deliver=-1,
            # What is parked counts as pending. At this limit a flood would hold up everybody.
            max_ack_pending=self._settings.normalizer_max_pending,
        )
        try:
            try:
                present = (await self._js.consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)).config
            except NotFoundError:
                await self._js.add_consumer(CALLBACKS_STREAM, wanted)
            else:
                # What an operator set besides (replicas, metadata) stays as it is.
                evolved = present.evolve(**{name: getattr(wanted, name) for name in _KEPT_IN_LINE})
                if evolved != present:
                    await self._js.add_consumer(CALLBACKS_STREAM, evolved)
        except AWAY as exc:
            # The stream may not exist yet, or NATS be away: the next round tries again.
            self._log.warning("consumer_not_in_line", error=repr(exc))
        else:
            self._unsure = False
            self._expected = 0

    # Receiving.

    async def _received(self, message: Msg) -> None:
        self._seen += 1
        if message.subject.startswith(self._inbox):
            self._status(message)
            return
        if self._expected:
            self._expected -= 1
            if not self._expected:
                self._wake.set()
        stream_seq = stream_seq_of(message.reply)
        if message.subject == CANARY_SUBJECT:
            # A gateway's trial whether the stream stores, which it could not delete again.
            with suppress(BackhaulError):
                await JetStreamDelivery(self._client, "", stream_seq, message.reply, b"").ack()
            return
        # The broker keeps the stored subject on what it delivers: callbacks.<queue path>.<channel>.
        path = message.subject.split(".", 2)[1]
        source = self._sources.get(path)
        if self._paused:
            # It was on its way when all was handed back. Unread, it would wait here for the end of the ack wait.
            await self.give_back([JetStreamDelivery(self._client, "", stream_seq, message.reply, b"")], self._delay_s)
        elif source is None:
            delivery = JetStreamDelivery(self._client, path, stream_seq, message.reply, b"")
            with suppress(BackhaulError):
                if self._unowned.is_over(path, stream_seq, deliveries_of(message.reply)):
                    await delivery.term()
                else:
                    # Registered a moment ago and not heard of here yet, as far as can be known.
                    await delivery.nak(_UNKNOWN_TENANT_S)
        elif stream_seq in source.buffered:
            pass  # Delivered again while it waits here: once is enough.
        elif source.bytes and (
            # Behind what is parked already, too: otherwise a flood would keep what came first waiting for ever.
            source.parked or source.bytes + len(message.data) > self._settings.normalizer_tenant_bytes
        ):
            source.parked[stream_seq] = message.reply
        else:
            self._keep(source, stream_seq, message.reply, message.data)

    def _keep(self, source: Source, stream_seq: int, reply: str, data: bytes) -> None:
        if not source.buffered:
            self._ready.append(source)
        source.put(JetStreamDelivery(self._client, source.path, stream_seq, reply, data), reply)
        self._bytes += len(data)
        self._arrived.set()

    def _status(self, message: Msg) -> None:
        if message.subject[len(self._inbox) + 1 :] != str(self._pull):
            return
        headers = message.headers or {}
        status, description = headers.get("Status", ""), headers.get("Description", "").lower()
        if status == "100":
            return
        if status == "503" or "consumer deleted" in description:
            # Nobody listens: the consumer is not there (yet).
            self._unsure = True
            self._wake.set()
        elif "maxbytes" in description and self._expected == self._settings.normalizer_pull_messages:
            # Full before anything fitted in: asking again at once would turn in circles at the speed of the network.
            self._log.error("callback_larger_than_pull", pull_bytes=self._settings.normalizer_pull_bytes)
            asyncio.get_running_loop().call_later(_GRACE_S, self._pull_ended)
        else:
            # 404 and 408: the pull expired. 409: it is full in bytes, or the consumer moved to another server.
            self._pull_ended()

    # Taking.

    async def full(self) -> None:
        """Returns when there is enough for a whole batch."""
        while self._bytes < self._settings.normalizer_batch_bytes:
            self._arrived.clear()
            await self._arrived.wait()

    async def next_batch(self) -> Sequence[JetStreamDelivery]:
        """Deliveries of about ``normalizer_batch_bytes``, the same share of every tenant that has any."""
        while not self._ready:
            self._arrived.clear()
            await self._arrived.wait()
        budget = self._settings.normalizer_batch_bytes
        batch: list[JetStreamDelivery] = []
        taken = 0
        while self._ready and taken < budget:
            share = max(1, (budget - taken) // len(self._ready))
            for _ in range(len(self._ready)):
                source = self._ready.popleft()
                got = 0
                while source.buffered and got < share:
                    delivery = source.take()
                    got += len(delivery.data)
                    batch.append(delivery)
                taken += got
                if source.buffered:
                    self._ready.append(source)
                self._parking.want(source)
                if taken >= budget:
                    break
        self._bytes -= taken
        self._taken_at = asyncio.get_running_loop().time()
        self._wake.set()
        return batch

    async def catch_up(self) -> None:
        """See ``Feed``. Whatever kept the event loop from receiving is over; another tenant may be behind it."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + CATCH_UP_S
        seen = -1
        while seen != self._seen and loop.time() < ends:
            seen = self._seen
            await asyncio.sleep(_QUIET_S)

    async def take_back(self, deliveries: Sequence[Delivery]) -> None:
        """See ``Feed``."""
        if self._paused:
            await self.give_back(deliveries, self._delay_s)
            return
        for delivery in reversed(deliveries):
            source = self._sources.get(delivery.path)
            if source is None or not isinstance(delivery, JetStreamDelivery):
                continue  # Its tenant was deleted meanwhile.
            if not source.buffered:
                self._ready.append(source)
            source.put_first(delivery)
            self._bytes += len(delivery.data)
        self._arrived.set()

    def _in_hand(self) -> bool:
        # One whose store is away, or whose consumer is stuck, must not keep from other copies what these could do.
        return not self._paused and asyncio.get_running_loop().time() - self._taken_at < STUCK_S

    async def hand_back(self, delay_s: float) -> None:
        """Give everything that waits here back to the broker, and ask for nothing until ``resume``."""
        self._paused = True
        self._delay_s = delay_s
        subscription, self._subscription = self._subscription, None
        self._ready.clear()
        given_back: list[JetStreamDelivery] = []
        for source in self._sources.values():
            parked = [JetStreamDelivery(self._client, "", seq, reply, b"") for seq, reply in source.parked.items()]
            given_back += [*source.take_all(), *parked]
            source.parked.clear()
        self._bytes = 0
        self._expected = 0
        await self.give_back(given_back, delay_s)
        if subscription is not None and self._client.is_connected:
            # Without anybody who listens, the broker forgets the open pull instead of sending everything here again.
            with suppress(nats.errors.Error, OSError):
                await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py does not annotate it

    async def give_back(self, deliveries: Sequence[Delivery], delay_s: float) -> None:
        """Give back what was taken, to be delivered again not before ``delay_s``."""
        with suppress(BackhaulError):  # If a nak is lost, JetStream delivers again after the ack wait.
            for n, delivery in enumerate(deliveries, 1):
                await delivery.nak(delay_s)
                if not n % _TURN:
                    await asyncio.sleep(0)  # Thousands that were parked must not keep everything else waiting.

    def resume(self) -> None:
        """Ask again."""
        self._paused = False
        self._wake.set()
        for source in self._sources.values():
            self._parking.want(source)

    async def check(self) -> None:
        """A readiness check: the connection stands, and callbacks are asked for from a consumer that is there."""
        require_connected(self._client)
        if not self._running:
            raise ConnectionError("callbacks are not asked for yet")
        try:
            await self._js.consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
        except NotFoundError:
            raise ConnectionError("the stream CALLBACKS, or its consumer, does not exist yet") from None
