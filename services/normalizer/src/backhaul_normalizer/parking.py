"""What waits for its turn: each tenant's buffer, and what is parked behind it.

Parked callbacks are read again by their position in the stream when their tenant's buffer has room. Until then, and
until they are taken from the buffer, the broker is told that they are in hand: otherwise it would send a whole backlog
again after every ack wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import cycle, islice

import msgspec
from backhaul_common.jetstream import AWAY
from backhaul_common.logs import get_logger
from backhaul_common.names import CALLBACKS_STREAM, callbacks_of
from nats.aio.client import Client

from backhaul_normalizer.delivery import JetStreamDelivery
from backhaul_normalizer.settings import NormalizerSettings

_PAUSE_S = 1.0
_READ_TIMEOUT_S = 5.0
_READ_MESSAGES = 256

_NOT_FOUND = "404"
_END_OF_BATCH = ("204", _NOT_FOUND)

_IN_PROGRESS = b"+WPI"
_SLICES = 16
_TURN = 256


class Source:
    """What waits under one queue path, which is one tenant's.

    ``buffered`` and ``parked`` lead from positions in the stream to acknowledgement subjects.
    """

    __slots__ = ("_buffer", "buffered", "bytes", "parked", "path", "reading")

    def __init__(self, path: str) -> None:
        self.path = path
        self._buffer: deque[JetStreamDelivery] = deque()
        self.buffered: dict[int, str] = {}
        self.bytes = 0
        self.parked: dict[int, str] = {}
        self.reading = False

    def put(self, delivery: JetStreamDelivery, reply: str) -> None:
        """Buffer ``delivery``, which is not parked any more."""
        self.parked.pop(delivery.stream_seq, None)
        self.buffered[delivery.stream_seq] = reply
        self._buffer.append(delivery)
        self.bytes += len(delivery.data)

    def put_first(self, delivery: JetStreamDelivery) -> None:
        """Buffer ``delivery`` again, before all others."""
        self.buffered[delivery.stream_seq] = delivery.reply
        self._buffer.appendleft(delivery)
        self.bytes += len(delivery.data)

    def take(self) -> JetStreamDelivery:
        """The first of what is buffered."""
        delivery = self._buffer.popleft()
        del self.buffered[delivery.stream_seq]
        self.bytes -= len(delivery.data)
        return delivery

    def take_all(self) -> list[JetStreamDelivery]:
        """All that is buffered."""
        taken = list(self._buffer)
        self._buffer.clear()
        self.buffered.clear()
        self.bytes = 0
        return taken


class Parking:
    """Keeps what waits from being sent again, and gives what is parked to ``keep`` when there is room.

    ``sources`` are by queue path. ``in_hand`` says whether what waits is going to be taken: if not, the
    broker shall give it to somebody else.
    """

    def __init__(
        self,
        client: Client,
        settings: NormalizerSettings,
        sources: Mapping[str, Source],
        keep: Callable[[Source, int, str, bytes], None],
        in_hand: Callable[[], bool],
    ) -> None:
        self._client = client
        self._sources = sources
        self._keep = keep
        self._in_hand = in_hand
        self._low_bytes = settings.normalizer_tenant_bytes // 2
        self._renewal_s = settings.normalizer_ack_wait_s / 2
        self._log = get_logger(component="parking")
        self._to_read: asyncio.Queue[Source] = asyncio.Queue()

    # Renewing.

    async def renew(self) -> None:
        """Renew all that waits twice within the ack wait, until cancelled.

        It is looked up anew each time, so whatever was taken, given back or forgotten falls to the broker's ack wait.
        A flood may have arrived within a second: what is due is told apart by position, not by time of arrival, so that
        each slice of the time has the same share.
        """
        for part in cycle(range(_SLICES)):
            await asyncio.sleep(self._renewal_s / _SLICES)
            if self._in_hand() and self._client.is_connected:
                # What the broker does not hear of it delivers again: that costs time, and nothing else.
                with suppress(*AWAY):
                    await self._renew(part)

    async def _renew(self, part: int) -> None:
        due = [
            (source, seq)
            for source in self._sources.values()
            for waiting in (source.buffered, source.parked)
            for seq in waiting
            if seq % _SLICES == part
        ]
        for n, (source, seq) in enumerate(due):
            if not n % _TURN:
                await asyncio.sleep(0)  # Thousands of them must not keep everything else waiting.
            reply = source.parked.get(seq) or source.buffered.get(seq)
            if reply:
                await self._client.publish(reply, _IN_PROGRESS)

    # Reading again.

    def want(self, source: Source) -> None:
        """Read what ``source`` has parked if it has room."""
        if (
            source.parked
            and not source.reading
            and source.bytes <= self._low_bytes
            and self._sources.get(source.path) is source
        ):
            source.reading = True
            self._to_read.put_nowait(source)

    async def read(self) -> None:
        """Read what is wanted, until cancelled."""
        while True:
            source = await self._to_read.get()
            try:
                await self._read_some(source)
            except AWAY as exc:
                self._log.warning("parked_not_read", queue_path=source.path, error=repr(exc))
                await asyncio.sleep(_PAUSE_S)
            finally:
                source.reading = False
                self.want(source)

    async def _read_some(self, source: Source) -> None:
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
                        "max_bytes": max(1, self._low_bytes),
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
