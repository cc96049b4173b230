"""What keeps waiting messages from being delivered again, and what reads the parked ones when there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle, islice

from nats.aio.client import Client

from backhaul_common.feed import formats
from backhaul_common.feed.buffers import FairBuffers
from backhaul_common.feed.message import StreamMessage
from backhaul_common.jetstream import AWAY
from backhaul_common.logs import get_logger
from backhaul_common.names import AGAIN_HEADER

_PAUSE_S = 1.0
_READ_TIMEOUT_S = 5.0
_READ_MESSAGES = 256

_SLICES = 16
_TURN = 256


class Renewal:
    """Tells the broker of all that waits, parked or not, that it is in hand.

    Otherwise the broker would deliver a whole backlog again after every ack wait. ``in_hand`` says whether what waits
    is going to be taken: if not, the broker shall give it to somebody else.
    """

    def __init__(
        self, client: Client, buffers: FairBuffers[StreamMessage], ack_wait_s: float, in_hand: Callable[[], bool]
    ) -> None:
        self._client = client
        self._buffers = buffers
        self._interval_s = ack_wait_s / 2
        self._in_hand = in_hand

    async def run(self) -> None:
        """Renew all that waits twice within the ack wait, until cancelled.

        It is looked up anew each time, so whatever was taken, given back or forgotten falls to the broker's ack wait.
        A flood may have arrived within a second: what is due is told apart by position, not by time of arrival, so that
        each slice of the time has the same share.
        """
        for part in cycle(range(_SLICES)):
            await asyncio.sleep(self._interval_s / _SLICES)
            if self._in_hand() and self._client.is_connected:
                # What the broker does not hear of it delivers again: that costs time, and nothing else.
                with suppress(*AWAY):
                    await self._renew(part)

    async def _renew(self, part: int) -> None:
        due = [(path, seq) for path, seq in self._buffers.positions() if seq % _SLICES == part]
        for n, (path, seq) in enumerate(due):
            if not n % _TURN:
                await asyncio.sleep(0)  # Thousands of them must not keep everything else waiting.
            reply = self._buffers.reply(path, seq)
            if reply:
                await self._client.publish(reply, formats.IN_PROGRESS)


class Parking:
    """Reads parked messages again, by their positions in ``stream``, when their path's buffer has room.

    ``size`` bytes are read at a time. ``arrived`` is set whenever something was put into ``buffers``.
    """

    def __init__(
        self, client: Client, stream: str, buffers: FairBuffers[StreamMessage], size: int, arrived: asyncio.Event
    ) -> None:
        self._client = client
        self._stream = stream
        self._buffers = buffers
        self._size = size
        self._arrived = arrived
        self._wake = asyncio.Event()
        self._log = get_logger(component="parking", stream=stream)

    def wake(self) -> None:
        """There may be room for what is parked."""
        self._wake.set()

    async def run(self) -> None:
        """Read what there is room for, path by path, until cancelled."""
        while True:
            paths = self._buffers.room()
            if not paths:
                self._wake.clear()
                await self._wake.wait()
            for path in paths:
                try:
                    await self._read_some(path)
                except AWAY as exc:
                    self._log.warning("parked_not_read", queue_path=path, error=repr(exc))
                    await asyncio.sleep(_PAUSE_S)

    async def _read_some(self, path: str) -> None:
        """Read the first of what is parked under ``path``, in one request to the stream."""
        sought = list(islice(self._buffers.parked_of(path), _READ_MESSAGES))
        if not sought:
            return
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        try:
            await self._client.publish(
                formats.read_subject(self._stream),
                formats.read(sought[0], f"*.{path}.>", _READ_MESSAGES, self._size),
                reply=inbox,
            )
            last = 0
            while True:
                message = await subscription.next_msg(timeout=_READ_TIMEOUT_S)
                headers = message.headers or {}
                status, _ = formats.status_of(headers)
                if status:
                    break
                last = int(headers["Nats-Sequence"])
                reply = self._buffers.parked_of(path).get(last)
                if reply is not None:
                    subject, traceparent = headers["Nats-Subject"], headers.get("traceparent", "")
                    again = AGAIN_HEADER in headers
                    self._buffers.unpark(
                        StreamMessage(self._client, subject, reply, message.data, traceparent, again=again)
                    )
                    self._arrived.set()
        finally:
            await subscription.unsubscribe()
        if status not in formats.END_OF_READ:
            raise ConnectionError(f"the stream answered {status}")
        # What was not where it should be is forgotten, not acknowledged: the server that answered may be behind. If it
        # is still in the stream, the broker delivers it again.
        read = [seq for seq in sought if status == formats.NOT_FOUND or sought[0] <= seq <= last]
        self._buffers.forget(path, read)
