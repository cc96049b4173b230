"""Callbacks of all tenants from JetStream, fairly.

One durable pull consumer delivers all tenants' callbacks in the order of the stream; copies of this service share it,
and the broker splits the callbacks over them. Each tenant has a buffer of bounded size, and a batch takes an equal
share of bytes from every buffer that holds something, so a tenant with one callback is in the very next batch, however
long another's backlog is.

What does not fit into its tenant's buffer is *parked*: its bytes are dropped, its position is kept, and it stays
unacknowledged. The consumer thus runs through a flood at the speed of the network and reaches the others behind it.
Parked callbacks are read again by their position when the buffer has room; should this process die, the broker delivers
them anew. (A consumer for each tenant would be simpler, but each of them makes the broker look at every message of the
stream: with a thousand tenants, a thousand times.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

import msgspec
import nats.errors
from backhaul_common.errors import BackhaulError
from backhaul_common.lifecycle import cancel
from backhaul_common.logs import get_logger
from backhaul_common.names import CALLBACKS_STREAM, NORMALIZER_CONSUMER, callbacks_of, queue_path_key
from backhaul_common.tenants import Tenant, TenantDirectory
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NotFoundError

from backhaul_normalizer.delivery import JetStreamDelivery, stream_seq_of
from backhaul_normalizer.settings import NormalizerSettings

PULL_EXPIRES_S = 30.0
"""How long the broker keeps a pull open. A pull that is not heard of for longer is taken for lost and made again."""

_GRACE_S = 3.0
_LOOK_S = 1.0
_UNKNOWN_TENANT_S = 2.0
_READ_TIMEOUT_S = 5.0
_READ_MESSAGES = 256

_NOT_FOUND = "404"
_END_OF_BATCH = ("204", _NOT_FOUND)

_AWAY = (nats.errors.Error, APIError, TimeoutError, OSError)


class _Source:
    """One tenant's part: what waits in memory, and what is parked (stream position to acknowledgement subject)."""

    __slots__ = ("buffer", "bytes", "parked", "path", "reading", "tenant")

    def __init__(self, tenant: str, path: str) -> None:
        self.tenant = tenant
        self.path = path
        self.buffer: deque[JetStreamDelivery] = deque()
        self.bytes = 0
        self.parked: dict[int, str] = {}
        self.reading = False


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
        self._ready: deque[_Source] = deque()
        self._to_read: asyncio.Queue[_Source] = asyncio.Queue()
        self._arrived = asyncio.Event()
        self._wake = asyncio.Event()
        self._bytes = 0
        self._inbox = client.new_inbox()
        self._expected = 0
        self._pull = 0
        self._asked_at = 0.0
        self._missing = False
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
        """Messages whose tenants have no room for them now."""
        return sum(len(source.parked) for source in self._by_tenant.values())

    def _tenant_changed(self, tenant_id: str, tenant: Tenant | None) -> None:
        source = self._by_tenant.get(tenant_id)
        wanted = tenant is not None and tenant.status != "deleting"
        path = queue_path_key(tenant.queue_path) if tenant is not None else ""
        if source is not None and (not wanted or source.path != path):
            del self._by_tenant[tenant_id]
            self._by_path.pop(source.path, None)
            self._bytes -= source.bytes
            source.buffer.clear()
            source.parked.clear()
            source.bytes = 0
            source = None
        if wanted and source is None:
            self._by_tenant[tenant_id] = self._by_path[path] = _Source(tenant_id, path)

    # Asking.

    async def run(self) -> None:
        """Keep a pull open, and read again what is parked, until cancelled."""
        subscription = await self._client.subscribe(
            f"{self._inbox}.>", cb=self._received, pending_msgs_limit=0, pending_bytes_limit=0
        )
        reading = asyncio.create_task(self._read_parked(), name="read_parked")
        loop = asyncio.get_running_loop()
        self._expected = 0
        try:
            while True:
                self._wake.clear()
                if self._missing:
                    await self._create_consumer()
                await self._ask()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._wake.wait()
                if self._expected and loop.time() - self._asked_at > PULL_EXPIRES_S + _GRACE_S:
                    self._pull_ended()
        finally:
            await cancel(reading)
            if not self._client.is_closed:
                await subscription.unsubscribe()

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
        self._pull += 1
        self._expected = self._settings.normalizer_pull_messages
        self._asked_at = asyncio.get_running_loop().time()
        await self._client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{CALLBACKS_STREAM}.{NORMALIZER_CONSUMER}",
            self._request,
            reply=f"{self._inbox}.{self._pull}",
        )

    async def _create_consumer(self) -> None:
        try:
            await self._js.add_consumer(
                CALLBACKS_STREAM,
                ConsumerConfig(
                    durable_name=NORMALIZER_CONSUMER,
                    deliver_policy=DeliverPolicy.ALL,
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=self._settings.normalizer_ack_wait_s,
                    # Giving up is the consumer's decision (a dead letter), never the broker's silence.
                    max_deliver=-1,
                    # What is parked counts as pending. At this limit a flood would hold up everybody.
                    max_ack_pending=self._settings.normalizer_max_pending,
                ),
            )
        except _AWAY as exc:
            # The stream may not exist yet, or NATS be away: the next round tries again.
            self._log.warning("consumer_not_created", error=repr(exc))
        else:
            self._missing = False
            self._expected = 0

    # Receiving.

    async def _received(self, message: Msg) -> None:
        if message.subject.startswith(self._inbox):
            self._status(message)
            return
        if self._expected:
            self._expected -= 1
            if not self._expected:
                self._wake.set()
        stream_seq = stream_seq_of(message.reply)
        # The broker keeps the stored subject on what it delivers: callbacks.<queue path>.<channel>.
        source = self._by_path.get(message.subject.split(".", 2)[1])
        if source is None:
            # Registered a moment ago and not heard of here yet, or being deleted: then it is purged meanwhile.
            with suppress(BackhaulError):
                await JetStreamDelivery(self._client, "", stream_seq, message.reply, b"").nak(_UNKNOWN_TENANT_S)
        elif source.bytes and (
            # Behind what is parked already, too: otherwise a flood would keep what came first waiting for ever.
            source.parked or source.bytes + len(message.data) > self._settings.normalizer_tenant_bytes
        ):
            source.parked[stream_seq] = message.reply
        else:
            self._keep(source, stream_seq, message.reply, message.data)

    def _keep(self, source: _Source, stream_seq: int, reply: str, data: bytes) -> None:
        if not source.buffer:
            self._ready.append(source)
        source.parked.pop(stream_seq, None)
        source.buffer.append(JetStreamDelivery(self._client, source.tenant, stream_seq, reply, data))
        source.bytes += len(data)
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
            self._missing = True
            self._wake.set()
        elif "maxbytes" in description and self._expected == self._settings.normalizer_pull_messages:
            # Full before anything fitted in: asking again at once would turn in circles at the speed of the network.
            self._log.error("callback_larger_than_pull", pull_bytes=self._settings.normalizer_pull_bytes)
            asyncio.get_running_loop().call_later(_GRACE_S, self._pull_ended)
        else:
            # 404 and 408: the pull expired. 409: it is full in bytes, or the consumer moved to another server.
            self._pull_ended()

    # Parking.

    async def _read_parked(self) -> None:
        while True:
            source = await self._to_read.get()
            try:
                await self._read_some(source)
            except _AWAY as exc:
                self._log.warning("parked_not_read", tenant=source.tenant, error=repr(exc))
                await asyncio.sleep(_LOOK_S)
            finally:
                source.reading = False
                self._want_parked(source)

    def _want_parked(self, source: _Source) -> None:
        if (
            source.parked
            and not source.reading
            and source.bytes * 2 <= self._settings.normalizer_tenant_bytes
            and self._by_tenant.get(source.tenant) is source
        ):
            source.reading = True
            self._to_read.put_nowait(source)

    async def _read_some(self, source: _Source) -> None:
        """Read the first of what is parked again, as much as half a buffer, in one request to the stream."""
        sought = list(islice(source.parked, _READ_MESSAGES))
        if not sought:
            return
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        try:
            await self._client.publish(
                f"$JS.API.DIRECT.GET.{CALLBACKS_STREAM}",
                msgspec.json.encode(
                    {
                        "seq": sought[0],
                        "next_by_subj": callbacks_of(source.path),
                        "batch": _READ_MESSAGES,
                        "max_bytes": max(1, self._settings.normalizer_tenant_bytes // 2),
                    }
                ),
                reply=inbox,
            )
            last = 0
            while True:
                message = await subscription.next_msg(timeout=_READ_TIMEOUT_S)
                headers = message.headers or {}
                status = headers.get("Status", "")
                if status:
                    break
                last = int(headers["Nats-Sequence"])
                reply = source.parked.get(last)
                if reply is not None:
                    self._keep(source, last, reply, message.data)
        finally:
            await subscription.unsubscribe()
        if status not in _END_OF_BATCH:
            raise ConnectionError(f"the stream answered {status}")
        for seq in sought:
            # What was not where it should be is forgotten, not acknowledged: the server that answered may be behind. If
            # it is still in the stream, the broker delivers it again.
            if status == _NOT_FOUND or sought[0] <= seq <= last:
                source.parked.pop(seq, None)

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
                while source.buffer and got < share:
                    delivery = source.buffer.popleft()
                    got += len(delivery.data)
                    batch.append(delivery)
                taken += got
                source.bytes -= got
                if source.buffer:
                    self._ready.append(source)
                self._want_parked(source)
                if taken >= budget:
                    break
        self._bytes -= taken
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
            source.bytes = 0
        self._bytes = 0
        # What the broker does not hear of it delivers again by itself, only later.
        with suppress(BackhaulError):
            for delivery in given_back:
                await delivery.nak(delay_s)

    def resume(self) -> None:
        """Ask again."""
        self._paused = False
        self._wake.set()
        for source in self._by_tenant.values():
            self._want_parked(source)

    async def check(self) -> None:
        """A readiness check: the connection stands and the stream is there."""
        if not self._client.is_connected:
            raise ConnectionError("NATS is away")
        try:
            await self._js.stream_info(CALLBACKS_STREAM)
        except NotFoundError:
            raise ConnectionError("the stream CALLBACKS does not exist yet") from None
