"""Publishing with acknowledgements: what is published is stored when JetStream says so, and not before.

Acknowledgements of all messages come to one inbox, and a token in the subject tells whose each is. nats-py's
``js.publish`` draws a random inbox and sets a timer for every message, which costs more than the message.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from backhaul_common.jetstream.outage import AWAY, translated

RETRY_S = 0.1
"""The pause before a message is sent again to which no server responded: JetStream is between two leaders."""

_TOO_LARGE_FOR_STREAM = 10054
"""https://github.com/nats-io/nats-server/blob/main/server/errors.json"""

Send: TypeAlias = Callable[[str, bytes, dict[str, str]], Awaitable[None]]
"""Sends a message: subject, payload, headers."""


class NotStoredError(ConnectionError):
    """JetStream did not store the message, and may store it later: the stream is full, or moving."""


class MessageRefusedError(Exception):
    """JetStream will never store this message."""


class Message(ABC):
    """A message on its way into a stream. ``sent_ns`` is the time of its last publish."""

    __slots__ = ("headers", "payload", "sent_ns", "subject", "token")

    def __init__(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        self.subject = subject
        self.payload = payload
        self.headers = headers
        self.token = ""
        self.sent_ns = 0

    @abstractmethod
    async def answered(self, refusal: NotStoredError | MessageRefusedError | None) -> None:
        """JetStream stored it, or refused it as ``refusal`` says. Called once at most."""


class Publisher:
    """Publishes to JetStream. All methods belong to the event loop that it is used on.

    Usable before NATS is: until ``attach``, nothing can be sent.
    """

    def __init__(self) -> None:
        self.client: Client | None = None
        self._inbox = ""
        self._count = 0
        self._in_flight: dict[str, Message] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def attach(self, client: Client) -> None:
        """Publish over ``client`` from now on. May be repeated whenever it has connected."""
        if client is self.client:
            return  # It renews its subscriptions by itself.
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
        self.client = client

    async def send(self, message: Message) -> None:
        """Publish ``message``; ``answered`` is called when JetStream has answered.

        Raises what keeps it from being sent, where ``is_away`` may say that it passes. Either way the message is in
        flight from then on, and may be sent again, until it is answered or forgotten. While no server responds it is
        sent again by itself.
        """
        if not message.token:
            self._count += 1
            message.token = f"{self._count:x}"
        self._in_flight[message.token] = message
        if self.client is None:
            raise ConnectionError("NATS is away")
        message.sent_ns = time.time_ns()
        await self.client.publish(
            message.subject, message.payload, reply=f"{self._inbox}.{message.token}", headers=message.headers
        )

    def forget(self, message: Message) -> None:
        """Nobody waits for ``message`` any more. It may be stored all the same."""
        self._in_flight.pop(message.token, None)

    @asynccontextmanager
    async def together(self, timeout_s: float) -> AsyncIterator[Send]:
        """Gives a function that sends a message, and ends when JetStream has stored all that were sent by it.

        UNAVAILABLE when JetStream is away or full, or has not answered ``timeout_s`` after the last was sent;
        MessageRefusedError where it will never store one of them. Some may be stored then.
        """
        sent: list[_Awaited] = []

        async def send(subject: str, payload: bytes, headers: dict[str, str]) -> None:
            message = _Awaited(subject, payload, headers)
            sent.append(message)
            await self.send(message)

        try:
            async with translated():
                yield send
                if sent:
                    async with asyncio.timeout(timeout_s):
                        await asyncio.gather(*(message.stored for message in sent))
        finally:
            for message in sent:
                self.forget(message)
                if message.stored.done() and not message.stored.cancelled():
                    message.stored.exception()  # Retrieved, so that asyncio does not log it as never retrieved.

    async def _on_answer(self, answer: Msg) -> None:
        message = self._in_flight.get(answer.subject.rpartition(".")[2])
        if message is None:
            return  # It came too late, and whoever published was told that it is not known to be stored.
        if answer.headers is not None and answer.headers.get("Status") == "503":
            asyncio.get_running_loop().call_later(RETRY_S, self._again, message)
            return
        del self._in_flight[message.token]
        await message.answered(_refusal(answer.data))

    def _again(self, message: Message) -> None:
        if message.token in self._in_flight:
            task = asyncio.get_running_loop().create_task(self._send_again(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send_again(self, message: Message) -> None:
        if message.token not in self._in_flight:
            return  # Since this was begun, nobody waits for it any more.
        # It stays in flight: whoever waits for it sends it after a reconnection, or gives it up.
        with suppress(*AWAY):
            await self.send(message)


class _Awaited(Message):
    """A message whose future is done when it is answered."""

    __slots__ = ("stored",)

    def __init__(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        super().__init__(subject, payload, headers)
        self.stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def answered(self, refusal: NotStoredError | MessageRefusedError | None) -> None:
        if self.stored.done():
            return  # Another one of those it was sent with was refused.
        if refusal is None:
            self.stored.set_result(None)
        else:
            self.stored.set_exception(refusal)


class _Ack(msgspec.Struct):
    seq: int = 0
    error: dict[str, object] | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


def headers_of(stream: str, message_id: str, traceparent: str = "") -> dict[str, str]:
    """The headers of a message for ``stream``, which stores no second one with its id while it remembers the first."""
    headers = {"Nats-Msg-Id": message_id, "Nats-Expected-Stream": stream}
    if traceparent:
        headers["traceparent"] = traceparent
    return headers


def _refusal(data: bytes) -> NotStoredError | MessageRefusedError | None:
    """Why JetStream did not store a message; None when it did."""
    try:
        ack = _decode_ack(data)
    except msgspec.DecodeError:
        return NotStoredError(f"unreadable acknowledgement {data[:200]!r}")
    if ack.seq and ack.error is None:
        return None
    refused = f"JetStream refused: {ack.error}"
    if ack.error is not None and ack.error.get("err_code") == _TOO_LARGE_FOR_STREAM:
        return MessageRefusedError(refused)
    return NotStoredError(refused)
