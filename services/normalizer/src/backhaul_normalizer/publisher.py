"""What the normalizer puts into streams: normalised events, and callbacks that are replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import msgspec
import nats.errors
from backhaul_common.errors import unavailable
from backhaul_common.ids import derived_id
from backhaul_common.names import CALLBACKS_STREAM, EVENTS_STREAM, callbacks_subject, events_subject
from backhaul_common.outages import is_outage
from backhaul_common.wire import repeated
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from backhaul_proto.event.v1.event_pb2 import EventBatch
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from backhaul_normalizer.facts import LARGEST_EVENT
from backhaul_normalizer.model import Outgoing

LARGEST_MESSAGE = LARGEST_EVENT
"""Bytes of events that go into one message of the stream, where more than one fits."""

_ENVELOPE_BYTES = 64 << 10
"""Room for a message's own headers, and the framing of its events."""

_TIMEOUT_S = 5.0

_ASKED_FOR_S = 1.0
"""How long MongoDB's answer is believed. Whoever marks a tenant waits longer before the tenant's events are purged."""

Owners = Callable[[Collection[str]], Awaitable[Mapping[str, str]]]
"""The registrations that have these queue paths now, by path. UNAVAILABLE."""

_AWAY = (nats.errors.Error, APIError, NoStreamResponseError, TimeoutError, OSError)


class JetStreamPublisher:
    """One message holds the events of one tenant, channel and kind that a batch brought.

    The message id is made of the ids and revisions of its events, so that publishing the same again after a crash
    stores nothing twice while JetStream remembers. Grouped otherwise, they are published twice: consumers know an event
    by its id, and keep its highest revision.

    Acknowledgements come to an inbox of its own: nats-py's ``js.publish`` draws a random inbox and sets a timer for
    every message, which costs more than the message.
    """

    def __init__(self, client: Client, owners: Owners) -> None:
        self._client = client
        self._owners = owners
        self._inbox = ""
        self._count = 0
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def start(self) -> None:
        """Listen for acknowledgements. Once, when the client is connected; the subscription survives reconnections.

        RuntimeError where the server takes no message of LARGEST_MESSAGE.
        """
        if self._client.max_payload < LARGEST_MESSAGE + _ENVELOPE_BYTES:
            raise RuntimeError(
                f"NATS takes messages of at most {self._client.max_payload} bytes; set its max_payload to 8MB."
            )
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._acknowledged)

    async def publish(self, events: Sequence[Outgoing], traceparent: str) -> None:
        """Returns when all ``events`` are stored. UNAVAILABLE when JetStream is away, slow or full, or MongoDB is away.

        EVENTS has no fence, and this process may have slept since it committed. So it asks MongoDB once more whose
        queue paths they are, right before it writes; what is gone by then is left out.
        """
        if not events:
            return
        loop = asyncio.get_running_loop()
        paths = {event.path for event in events}
        asked_at, owners = loop.time(), await self._owners(paths)
        groups: dict[tuple[str, str, str], list[Outgoing]] = {}
        for event in events:
            groups.setdefault((event.path, event.channel, event.kind), []).append(event)
        waiting: dict[str, asyncio.Future[None]] = {}
        try:
            for (path, channel, kind), group in groups.items():
                subject = events_subject(path, channel, kind)
                for some in _messages(group):
                    if loop.time() - asked_at > _ASKED_FOR_S:
                        asked_at, owners = loop.time(), await self._owners(paths)
                    own = [event for event in some if event.registration == owners.get(path)]
                    if not own:
                        continue
                    token = self._expect(waiting)
                    await self._client.publish(
                        subject,
                        repeated(EventBatch.EVENTS_FIELD_NUMBER, [event.payload for event in own]),
                        reply=f"{self._inbox}.{token}",
                        headers=_headers(EVENTS_STREAM, _message_id(own), traceparent),
                    )
            if waiting:
                async with asyncio.timeout(_TIMEOUT_S):
                    await asyncio.gather(*waiting.values())
        except _AWAY as exc:
            if not is_outage(exc):
                raise
            raise unavailable("JetStream") from exc
        finally:
            for token in waiting:
                del self._waiting[token]

    def _expect(self, waiting: dict[str, asyncio.Future[None]]) -> str:
        self._count += 1
        token = f"{self._count:x}"
        waiting[token] = self._waiting[token] = asyncio.get_running_loop().create_future()
        return token

    async def _acknowledged(self, message: Msg) -> None:
        future = self._waiting.get(message.subject.rpartition(".")[2])
        if future is None or future.done():
            return  # The batch was given up and will be published again.
        refusal = _refusal(message)
        if refusal is None:
            future.set_result(None)
        else:
            future.set_exception(refusal)


class _Ack(msgspec.Struct):
    seq: int = 0
    error: dict[str, object] | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class MessageRefusedError(Exception):
    """JetStream will never store this message."""


_TOO_LARGE_FOR_STREAM = 10054
"""https://github.com/nats-io/nats-server/blob/main/server/errors.json"""


def _refusal(message: Msg) -> Exception | None:
    """Why JetStream did not store a message; None when it did."""
    if message.headers and message.headers.get("Status") == "503":
        return ConnectionError("JetStream has no leader")
    try:
        ack = _decode_ack(message.data)
    except msgspec.DecodeError as exc:
        return ConnectionError(f"unreadable acknowledgement: {exc}")
    if ack.seq and ack.error is None:
        return None
    refused = f"JetStream refused: {ack.error}"
    if ack.error is not None and ack.error.get("err_code") == _TOO_LARGE_FOR_STREAM:
        return MessageRefusedError(refused)
    return ConnectionError(refused)


def _headers(stream: str, message_id: str, traceparent: str) -> dict[str, str]:
    headers = {"Nats-Msg-Id": message_id, "Nats-Expected-Stream": stream}
    if traceparent:
        headers["traceparent"] = traceparent
    return headers


class JetStreamCallbacks:
    """Callbacks that go through once more."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def publish(self, queue_path: str, callback: Callback, message_id: str) -> None:
        """Store ``callback`` alone in a message of CALLBACKS. UNAVAILABLE when JetStream is away, slow or full."""
        try:
            await self._js.publish(
                callbacks_subject(queue_path, callback.channel),
                CallbackBatch(callbacks=[callback]).SerializeToString(),
                timeout=_TIMEOUT_S,
                headers=_headers(CALLBACKS_STREAM, message_id, callback.traceparent),
            )
        except _AWAY as exc:
            raise unavailable("JetStream") from exc


def _message_id(events: Sequence[Outgoing]) -> str:
    return derived_id(*(f"{event.id}:{event.revision}" for event in events))


def _messages(events: Sequence[Outgoing]) -> list[list[Outgoing]]:
    """``events``, parted so that they make messages of at most LARGEST_MESSAGE."""
    messages: list[list[Outgoing]] = [[]]
    size = 0
    for event in events:
        if messages[-1] and size + len(event.payload) > LARGEST_MESSAGE:
            messages.append([])
            size = 0
        messages[-1].append(event)
        size += len(event.payload)
    return messages
