"""Callbacks of all tenants from JetStream, fairly.

Every tenant has a durable pull consumer of its own, so the broker keeps the tenants' backlogs apart; fairness is the
order in which the tenants' buffers are emptied. Each consumer has at most one pull open; what it brings waits in the
tenant's buffer. A batch takes an equal share of bytes from every tenant that has something to give, so a tenant with
one callback is in the very next batch, however long another's backlog is. Copies of this service share the consumers:
the broker splits each tenant's callbacks over them.

One subscription serves all pulls: nats-py's ``fetch`` costs several times as much a message, and a subscription and a
waiting task for each of a thousand tenants.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import nats.errors
from backhaul_common.errors import BackhaulError, unavailable
from backhaul_common.lifecycle import cancel
from backhaul_common.logs import get_logger
from backhaul_common.names import CALLBACKS_STREAM, callbacks_of, normalizer_consumer, queue_path_key
from backhaul_common.tenants import Tenant, TenantDirectory
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NotFoundError

from backhaul_normalizer.settings import NormalizerSettings

PULL_EXPIRES_S = 30.0
"""How long the broker keeps a pull open. A pull that is not heard of for longer is taken for lost and made again."""

_GRACE_S = 3.0
_LOOK_S = 1.0
_TOO_LARGE_PAUSE_S = 5.0


class JetStreamDelivery:
    """One message of the stream, as JetStream delivered it."""

    __slots__ = ("_client", "_message", "data", "stream_seq", "tenant")

    def __init__(self, client: Client, tenant: str, message: Msg) -> None:
        self._client = client
        self._message = message
        self.tenant = tenant
        self.data: bytes = message.data
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.… with two more tokens in front where there is a domain.
        tokens = message.reply.split(".")
        self.stream_seq = int(tokens[5 if len(tokens) < 11 else 7])

    async def ack(self) -> None:
        await self._answer(b"+ACK")

    async def nak(self, delay_s: float) -> None:
        await self._answer(b'-NAK {"delay": %d}' % int(delay_s * 1e9))

    async def _answer(self, word: bytes) -> None:
        try:
            await self._client.publish(self._message.reply, word)
        except (nats.errors.Error, OSError) as exc:
            raise unavailable("NATS") from exc


class _Source:
    """One tenant's consumer: what was asked of it, and what it has brought."""

    __slots__ = ("asked_at", "buffer", "expected", "hungry", "number", "path", "pull", "tenant")

    def __init__(self, number: int, tenant: str, path: str) -> None:
        self.number = number
        self.tenant = tenant
        self.path = path
        self.buffer: deque[JetStreamDelivery] = deque()
        self.expected = 0
        self.hungry = False
        self.pull = 0
        self.asked_at = 0.0


class FairFeed:
    """The feed. ``run`` keeps it going; ``next_batch`` takes from it."""

    def __init__(
        self, client: Client, js: JetStreamContext, directory: TenantDirectory, settings: NormalizerSettings
    ) -> None:
        self._client = client
        self._js = js
        self._settings = settings
        self._log = get_logger(component="feed")
        self._by_path: dict[str, _Source] = {}
        self._by_tenant: dict[str, _Source] = {}
        self._by_number: dict[int, _Source] = {}
        self._numbers = 0
        self._ready: deque[_Source] = deque()
        self._hungry: deque[_Source] = deque()
        self._missing: asyncio.Queue[_Source] = asyncio.Queue()
        self._arrived = asyncio.Event()
        self._wake = asyncio.Event()
        self._buffered_bytes = 0
        self._inbox = client.new_inbox()
        self._request = msgspec.json.encode(
            {
                "batch": settings.normalizer_pull_messages,
                "max_bytes": settings.normalizer_pull_bytes,
                "expires": int(PULL_EXPIRES_S * 1e9),
            }
        )
        self._paused = False
        directory.listen(self._tenant_changed)

    # The tenants.

    def _tenant_changed(self, tenant_id: str, tenant: Tenant | None) -> None:
        source = self._by_tenant.get(tenant_id)
        wanted = tenant is not None and tenant.status != "deleting"
        path = queue_path_key(tenant.queue_path) if tenant is not None else ""
        if source is not None and (not wanted or source.path != path):
            del self._by_tenant[tenant_id], self._by_number[source.number]
            self._by_path.pop(source.path, None)
            self._buffered_bytes -= sum(len(delivery.data) for delivery in source.buffer)
            source.buffer.clear()
            source = None
        if wanted and source is None:
            self._numbers += 1
            source = _Source(self._numbers, tenant_id, path)
            self._by_tenant[tenant_id] = self._by_path[path] = self._by_number[source.number] = source
            self._want(source)

    # Asking.

    async def run(self) -> None:
        """Keep pulls open for every tenant, until cancelled."""
        subscription = await self._client.subscribe(
            f"{self._inbox}.>", cb=self._received, pending_msgs_limit=0, pending_bytes_limit=0
        )
        creating = asyncio.create_task(self._create_consumers(), name="create_consumers")
        try:
            loop = asyncio.get_running_loop()
            look_again_at = loop.time() + _LOOK_S
            while True:
                self._wake.clear()
                await self._ask()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(look_again_at):
                        await self._wake.wait()
                if loop.time() >= look_again_at:
                    # However busy the others are: a tenant whose pull was lost hears nothing and wakes nobody.
                    self._find_lost_pulls()
                    look_again_at = loop.time() + _LOOK_S
        finally:
            await cancel(creating)
            if not self._client.is_closed:
                await subscription.unsubscribe()

    async def reconnected(self) -> None:
        """The broker forgot every pull with the connection: make them again."""
        for source in self._by_tenant.values():
            if source.expected:
                self._pull_ended(source)

    def _want(self, source: _Source) -> None:
        if not source.expected and not source.hungry:
            source.hungry = True
            self._hungry.append(source)
            self._wake.set()

    def _pull_ended(self, source: _Source) -> None:
        source.expected = 0
        # A new pull waits until the buffer is empty, so that a tenant holds at most one pull of memory.
        if not source.buffer:
            self._want(source)

    async def _ask(self) -> None:
        now = asyncio.get_running_loop().time()
        while (
            self._hungry
            and not self._paused
            and self._buffered_bytes < self._settings.normalizer_buffer_bytes
            and self._client.is_connected
        ):
            source = self._hungry.popleft()
            source.hungry = False
            if source.expected or self._by_number.get(source.number) is not source:
                continue
            source.pull += 1
            source.expected = self._settings.normalizer_pull_messages
            source.asked_at = now
            await self._client.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{CALLBACKS_STREAM}.{normalizer_consumer(source.tenant)}",
                self._request,
                reply=f"{self._inbox}.{source.number}.{source.pull}",
            )

    def _find_lost_pulls(self) -> None:
        now = asyncio.get_running_loop().time()
        for source in self._by_tenant.values():
            if source.expected and now - source.asked_at > PULL_EXPIRES_S + _GRACE_S:
                self._pull_ended(source)

    async def _create_consumers(self) -> None:
        while True:
            source = await self._missing.get()
            if self._by_number.get(source.number) is not source:
                continue
            try:
                await self._js.add_consumer(
                    CALLBACKS_STREAM,
                    ConsumerConfig(
                        durable_name=normalizer_consumer(source.tenant),
                        filter_subject=callbacks_of(source.path),
                        deliver_policy=DeliverPolicy.ALL,
                        ack_policy=AckPolicy.EXPLICIT,
                        ack_wait=self._settings.normalizer_ack_wait_s,
                        # Giving up is the consumer's decision (a dead letter), never the broker's silence.
                        max_deliver=-1,
                        max_ack_pending=4 * self._settings.normalizer_pull_messages,
                    ),
                )
            except (nats.errors.Error, APIError, TimeoutError, OSError) as exc:
                self._log.warning("consumer_not_created", tenant=source.tenant, error=repr(exc))
                await asyncio.sleep(0.2)  # The stream may not exist yet, or NATS be away: ask again shortly.
                self._missing.put_nowait(source)
            else:
                self._pull_ended(source)

    # Receiving.

    async def _received(self, message: Msg) -> None:
        if message.subject.startswith(self._inbox):
            self._status(message)
            return
        # The broker keeps the stored subject on what it delivers: callbacks.<queue path>.<channel>.
        source = self._by_path.get(message.subject.split(".", 2)[1])
        if source is None:
            return  # The tenant is being deleted. Not acknowledged: if it comes back, so does the callback.
        if not source.buffer:
            self._ready.append(source)
        source.buffer.append(JetStreamDelivery(self._client, source.tenant, message))
        self._buffered_bytes += len(message.data)
        if source.expected:
            source.expected -= 1
        self._arrived.set()

    def _status(self, message: Msg) -> None:
        number, _, pull = message.subject[len(self._inbox) + 1 :].partition(".")
        source = self._by_number.get(int(number))
        if source is None or str(source.pull) != pull:
            return
        status = (message.headers or {}).get("Status", "")
        if status == "100":
            return
        description = (message.headers or {}).get("Description", "").lower()
        if status == "503" or "consumer deleted" in description:
            # Nobody listens: the consumer is not there (yet).
            self._missing.put_nowait(source)
            return
        # 404 and 408: the pull expired. 409: it is full in bytes, or the consumer moved to another server.
        if "maxbytes" in description and source.expected == self._settings.normalizer_pull_messages:
            # Full before anything fitted in: asking again at once would turn in circles at the speed of the network.
            self._log.error(
                "callback_larger_than_pull", tenant=source.tenant, pull_bytes=self._settings.normalizer_pull_bytes
            )
            asyncio.get_running_loop().call_later(_TOO_LARGE_PAUSE_S, self._pull_ended, source)
            return
        self._pull_ended(source)

    # Taking.

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
                while source.buffer and got < share:
                    delivery = source.buffer.popleft()
                    got += len(delivery.data)
                    batch.append(delivery)
                taken += got
                self._buffered_bytes -= got
                if source.buffer:
                    self._ready.append(source)
                elif not source.expected:
                    self._want(source)
                if taken >= budget:
                    break
        if self._hungry:
            self._wake.set()
        return batch

    async def hand_back(self, delay_s: float) -> None:
        """Give everything that is buffered back to the broker, and ask for nothing until ``resume``."""
        self._paused = True
        self._ready.clear()
        given_back: list[JetStreamDelivery] = []
        for source in self._by_tenant.values():
            given_back.extend(source.buffer)
            source.buffer.clear()
            self._want(source)
        self._buffered_bytes = 0
        # What the broker does not hear of it delivers again by itself, only later.
        with suppress(BackhaulError):
            for delivery in given_back:
                await delivery.nak(delay_s)

    def resume(self) -> None:
        """Ask again."""
        self._paused = False
        self._wake.set()

    async def check(self) -> None:
        """A readiness check: the connection stands and the stream is there."""
        if not self._client.is_connected:
            raise ConnectionError("NATS is away")
        try:
            await self._js.stream_info(CALLBACKS_STREAM)
        except NotFoundError:
            raise ConnectionError("the stream CALLBACKS does not exist yet") from None
