"""``GET /v1/events/stream``: a tenant's events as they are published, and from where its reader left off.

Each stream has a reader of EVENTS of its own, so that the broker filters, nobody waits for a slow one, and what a
gateway reads is no more than is asked for. What a reader of a stream does not take is not read either: it holds a
megabyte or two, and is cut off by the server when it takes nothing for as long as an answer may lie unread.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Annotated

from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.feed import PositionReader, PullLimits, ReaderConfig, StreamMessage
from backhaul_common.jetstream import translated
from backhaul_common.lifecycle import cancel, keep_running
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import EVENT_STREAMS
from backhaul_common.names import EVENTS_STREAM, channel_key
from backhaul_common.sizes import MAX_EVENTS_MESSAGE_BYTES
from backhaul_common.tenants import Tenant
from fastapi import APIRouter, Header, Query, Request, Response
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamState
from nats.js.errors import NotFoundError

from backhaul_gateway.admission.state import TenantState
from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.streamed import (
    LAST_EVENT_ID,
    Position,
    Wanted,
    end,
    heartbeat,
    missed,
    position_of,
    wanted_recipient,
)
from backhaul_gateway.reads.streaming import begun
from backhaul_gateway.reads.views import KINDS
from backhaul_gateway.web.filters import Address, Filter, number_of, one_of

MEDIA_TYPE = "text/event-stream"

PER_TENANT = 8
"""Streams that a tenant may have at once, of one gateway."""

HEARTBEAT_S = 15.0
"""How long a stream is silent. Proxies often close what is silent for a minute."""

_PULL = PullLimits(messages=64, bytes=MAX_EVENTS_MESSAGE_BYTES + (128 << 10))
_BUFFER_BYTES = 256 << 10
_BATCH_BYTES = 64 << 10

_SHARE = 0.25
"""The part of the gateway's time in which all streams together are written. Who reads a week of events at once must not
slow down callbacks."""

_AHEAD_S = 0.01
"""Pauses shorter than this are put together: a timer is no more exact than a millisecond."""

_DOCUMENTED = {
    "description": "Messages of Server-Sent Events. Without a name (`event:`) its data is an event as `/v1/events` has "
    "it; `missed` and `end` have a `message` in words.",
    "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
}


class EventStreams:
    """All open streams of this gateway. Belongs to one event loop."""

    def __init__(self, callers: Callers, client: Client, js: JetStreamContext, *, most: int, metrics: Metrics) -> None:
        """``most`` streams at once."""
        self._callers = callers
        self._client = client
        self._js = js
        self._most = most
        self._open: dict[_Stream, None] = {}
        self._of: Counter[str] = Counter()
        self._pace = _Pace()
        self._closing = False
        self._log = get_logger(component="event_streams")
        metrics.gauge(EVENT_STREAMS, lambda: len(self._open))

    def router(self) -> APIRouter:
        """The one route. It waits for no other service."""
        router = self._callers.router("/v1", 422, lasting=True)
        get = partial(router.add_api_route, methods=["GET"], response_class=Response)
        get("/events/stream", self.stream, responses={200: _DOCUMENTED})
        return router

    async def reconnected(self) -> None:
        """To be called after each connection to NATS: what was on its way is lost, and read anew."""
        for stream in list(self._open):
            await stream.reader.reconnected()

    def changed(self, tenant_id: str, _: Tenant | None) -> None:
        """A listener of the tenant directory, behind those by which callers are known: a revoked key ends its
        streams."""
        for stream in self._open:
            if stream.tenant.id == tenant_id:
                stream.look()

    def close(self) -> None:
        """End all streams, and begin no more: the gateway is about to stop. Readers go on elsewhere."""
        self._closing = True
        for stream in self._open:
            stream.look()

    async def stream(
        self,
        request: Request,
        by: By,
        channel: Filter = "",
        kind: Annotated[str, one_of(KINDS)] = "",
        message_id: Annotated[Filter, Query(description="The id, or one of the references, of a message.")] = "",
        recipient: Address = "",
        communication: Filter = "",
        error_code: Filter = "",
        last_event_id: Annotated[
            str,
            Header(
                alias=LAST_EVENT_ID,
                max_length=64,
                description="The last id that came: what follows it comes next. 0 for all that is kept; left out, from "
                "now on.",
            ),
        ] = "",
    ) -> Response:
        """Events as they are published, as Server-Sent Events, until you hang up. Each has the `id` of its place.

        Filters are those of `/v1/events`, by what the event itself says when it is published. An event may come again
        under its own `id` in the data: keep the highest `revision`. Your key is looked at all the while.
        """
        wanted = Wanted(
            registration=by.tenant.registration,
            queue_path=by.tenant.queue_path,
            channel=channel_key(channel),
            kind=number_of(KINDS, kind, "kind"),
            message_id=message_id,
            recipient=wanted_recipient(recipient),
            communication=communication,
            error_code=error_code,
        )
        after = position_of(last_event_id) if last_event_id else None
        # Whatever buffers answers on their way is asked not to.
        headers = {"x-accel-buffering": "no"}
        return await begun(self._told(request, by, wanted, after), MEDIA_TYPE, headers, watched=request)

    async def _told(
        self, request: Request, by: TenantState, wanted: Wanted, after: Position | None
    ) -> AsyncGenerator[bytes, None]:
        with self._place(by, wanted) as stream:
            stream.position, first = await self._beginning(stream, after)
            yield first
            async with stream.reading():
                while not self._closing:
                    batch = await stream.next_batch()
                    for message in batch or (None,):
                        if refusal := self._refusal(request, by.tenant):
                            yield end(refusal)
                            return
                        if message is not None and (text := await self._written(stream, message)):
                            yield text
                    if stream.is_silent():
                        yield heartbeat(await self._looked_to(stream))

    def _refusal(self, request: Request, tenant: Tenant) -> BackhaulError | None:
        """What ends the stream: its key, or its tenant, is not what it was."""
        try:
            now = self._callers.still(request).tenant
        except BackhaulError as exc:
            return exc
        if (now.registration, now.queue_path) != (tenant.registration, tenant.queue_path):
            return BackhaulError(Code.FORBIDDEN, "The key is another tenant's now.")
        return None

    async def _written(self, stream: _Stream, message: StreamMessage) -> bytes:
        async with self._pace.turn():
            steps = stream.wanted.written(message.stream_seq, message.data, stream.position)
            try:
                text = await self._callers.run(steps)
            except DecodeError:
                # Only a program that is not Backhaul can have written it.
                self._log.error("not_an_event_batch", path=message.path, stream_seq=message.stream_seq)
                text = b""
        stream.position = Position(message.stream_seq)
        return text

    async def _beginning(self, stream: _Stream, after: Position | None) -> tuple[Position, bytes]:
        """Where it begins if it is to go on behind ``after``, and what it says first. UNAVAILABLE."""
        state = await self._state()
        stream.ended_at = state.last_seq
        if after is None:
            now = Position(state.last_seq)
            return now, heartbeat(now)
        if after.seq > state.last_seq:
            # An id of a stream that is there no more: all of this one is new to its reader.
            first = Position(max(0, state.first_seq - 1))
            return first, missed(first, after)
        if after.before + 1 < state.first_seq:
            first = Position(state.first_seq - 1)
            return first, missed(first, after)
        return after, heartbeat(after)

    async def _looked_to(self, stream: _Stream) -> Position:
        """How far all is told. Who comes back after a long silence is not to be told that something may be missed.

        It goes by where EVENTS ended a heartbeat ago: a replica of it that counts what is still to be read may be
        behind the one that says where it ends now.
        """
        with suppress(BackhaulError):
            ended_at, stream.ended_at = stream.ended_at, (await self._state()).last_seq
            if ended_at > stream.position.seq and not await stream.reader.is_behind(stream.position.before):
                stream.position = Position(ended_at)
        return stream.position

    async def _state(self) -> StreamState:
        if not self._client.is_connected:
            raise unavailable("NATS")
        async with translated():
            try:
                return (await self._js.stream_info(EVENTS_STREAM)).state
            except NotFoundError:
                raise unavailable("The stream of events") from None

    @contextmanager
    def _place(self, by: TenantState, wanted: Wanted) -> Iterator[_Stream]:
        """A place for one stream. RATE_LIMITED where the tenant has all of its own; UNAVAILABLE where none is left."""
        tenant = by.tenant
        if self._of[tenant.id] >= PER_TENANT:
            raise BackhaulError(
                Code.RATE_LIMITED,
                f"The tenant has {PER_TENANT} streams of events open already.",
                fix="Read several things from one stream, or end another one.",
                retry_after_s=5.0,
            )
        if self._closing or len(self._open) >= self._most:
            raise BackhaulError(
                Code.UNAVAILABLE,
                "No more streams of events can be opened here now.",
                fix="Repeat the request after the time in Retry-After; nothing is missed with Last-Event-ID.",
                retry_after_s=5.0,
            )
        stream = _Stream(self._client, self._js, tenant, wanted)
        self._of[tenant.id] += 1
        self._open[stream] = None
        try:
            yield stream
        finally:
            del self._open[stream]
            self._of[tenant.id] -= 1
            if not self._of[tenant.id]:
                del self._of[tenant.id]


class _Stream:
    """One of them: what it reads, how far it is, and when it is time to look around."""

    def __init__(self, client: Client, js: JetStreamContext, tenant: Tenant, wanted: Wanted) -> None:
        self.tenant = tenant
        self.wanted = wanted
        self.position = Position(0)
        """All up to here is told."""
        self.ended_at = 0
        """Where EVENTS ended when it was last looked."""
        config = ReaderConfig(
            EVENTS_STREAM,
            "gateway_stream",
            (wanted.subject(),),
            batch_bytes=_BATCH_BYTES,
            buffer_bytes=_BUFFER_BYTES,
            pull=_PULL,
        )
        self.reader = PositionReader(client, js, config)
        self._now = asyncio.get_running_loop().time
        self._silent_at = self._now() + HEARTBEAT_S
        self._woken = asyncio.Event()

    def look(self) -> None:
        """Have ``next_batch`` return at once: something has changed."""
        self._woken.set()

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[None, None]:
        """Read on behind the position."""
        self.reader.seek(self.position.before)
        running = asyncio.create_task(keep_running("event_stream", self.reader.run), name="event_stream")
        try:
            yield
        finally:
            await cancel(running)

    async def next_batch(self) -> list[StreamMessage]:
        """The next messages; none where it is time to look around first."""
        next_one = asyncio.create_task(self.reader.next_batch())
        woken = asyncio.create_task(self._woken.wait())
        try:
            patience = max(0.0, self._silent_at - self._now())
            await asyncio.wait((next_one, woken), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            self._woken.clear()
            return next_one.result() if next_one.done() else []
        finally:
            for task in (next_one, woken):
                if not task.done():
                    await cancel(task)

    def is_silent(self) -> bool:
        """Whether it is time for a heartbeat, which is then counted as said."""
        if self._now() < self._silent_at:
            return False
        self._silent_at = self._now() + HEARTBEAT_S
        return True


class _Pace:
    """Turns of all streams, one after another, that together take no more than ``_SHARE`` of the time."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._free_at = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """Around the work of one turn."""
        async with self._turn:
            began = time.perf_counter()
            if self._free_at - began > _AHEAD_S:
                await asyncio.sleep(self._free_at - began)
                began = time.perf_counter()
            try:
                yield
            finally:
                ended = time.perf_counter()
                self._free_at = max(self._free_at, began) + (ended - began) / _SHARE
