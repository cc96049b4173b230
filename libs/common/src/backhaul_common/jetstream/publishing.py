"""Publishing with acknowledgements: what is published is stored when JetStream says so, and not before.

Acknowledgements of all messages come to one inbox, and a token in the subject tells whose each is. nats-py's
``js.publish`` draws a random inbox and sets a timer for every message, which costs more than the message.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import TypeAlias

from nats.aio.client import Client
from nats.aio.msg import Msg

from backhaul_common.jetstream.acks import MessageRefusedError, NotStoredError, Refused, batch_refused, refusal
from backhaul_common.jetstream.batching import encoded, parts, weight
from backhaul_common.jetstream.connection import write_at_once
from backhaul_common.jetstream.outage import AWAY, translated
from backhaul_common.logs import get_logger

RETRY_S = 0.1
"""The pause before a message is sent again to which no server responded: JetStream is between two leaders."""

SINGLY_S = 5.0
"""How long messages are sent one by one after a batch was refused. Where the stream takes no batch, or is full, every
message would otherwise be sent twice."""

_SAY_S = 60.0
"""How often a line says that batches are refused."""

Written: TypeAlias = tuple[str, bytes, dict[str, str]]
"""A message: subject, payload, headers."""

Send: TypeAlias = Callable[[Sequence[Written]], Awaitable[None]]
"""Sends messages, all for one stream; many of them as batches."""


class Message(ABC):
    """A message on its way into a stream. ``sent_ns`` is the time of its last publish.

    At ``until``, in the loop's time, nobody waits for it any more: from then on it is not sent again by itself. When it
    is ``done``, answered or forgotten, it is not sent at all.
    """

    __slots__ = ("batch", "done", "headers", "payload", "sent_ns", "subject", "token", "until")

    def __init__(self, subject: str, payload: bytes, headers: dict[str, str], until: float = inf) -> None:
        self.subject = subject
        self.payload = payload
        self.headers = headers
        self.until = until
        self.token = ""
        self.sent_ns = 0
        self.batch: _Batch | None = None
        self.done = False

    @abstractmethod
    async def answered(self, refusal: NotStoredError | MessageRefusedError | None) -> None:
        """JetStream stored it, or refused it as ``refusal`` says. Called once at most."""


class _Batch:
    """Messages that JetStream stores all or none. Those that are given up meanwhile leave it."""

    __slots__ = ("count", "id", "members", "token")

    def __init__(self, members: Sequence[Message], token: str, batch_id: str) -> None:
        self.members = dict.fromkeys(members)
        self.count = len(members)
        self.token = token
        self.id = batch_id


class Publisher:
    """Publishes to JetStream. All methods belong to the event loop that it is used on.

    Usable before NATS is: until ``attach``, nothing can be sent.
    """

    def __init__(self) -> None:
        self.client: Client | None = None
        self._inbox = ""
        self._count = 0
        self._in_flight: dict[str, Message | _Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._singly_until = self._said_at = -inf
        self._log = get_logger(component="publishing")

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
        if message.done:
            return  # While others were being sent.
        self._leave(message)
        if not message.token:
            message.token = self._new_token()
        self._in_flight[message.token] = message
        if self.client is None:
            raise ConnectionError("NATS is away")
        message.sent_ns = time.time_ns()
        await self.client.publish(
            message.subject, message.payload, reply=f"{self._inbox}.{message.token}", headers=message.headers
        )

    async def send_all(self, messages: Sequence[Message]) -> None:
        """Publish ``messages``, which are all for one stream, as ``send`` does each: where they are many, as batches.

        A batch that is refused is sent again singly, so that each message meets its own fate: one of them may be stored
        already, or be what the stream does not take. Raises what keeps any of them from being sent; the others are.
        """
        failures: list[Exception] = []
        for part in parts(messages, weight):
            waited = [message for message in part if not message.done]  # Some may be told while others are sent.
            try:
                if len(waited) > 1 and asyncio.get_running_loop().time() >= self._singly_until:
                    await self._send_batch(waited)
                    continue
                for message in waited:
                    await self.send(message)
            except AWAY as exc:
                failures.append(exc)
        if failures:
            raise failures[0]

    def forget(self, message: Message) -> None:
        """Nobody waits for ``message`` any more. It may be stored all the same."""
        message.done = True
        self._in_flight.pop(message.token, None)
        self._leave(message)

    @asynccontextmanager
    async def together(self, timeout_s: float) -> AsyncIterator[Send]:
        """Gives a function that sends messages, and ends when JetStream has answered for all that were sent by it.

        UNAVAILABLE when JetStream is away or full, or has not answered ``timeout_s`` after the last was sent: some may
        be stored then. MessageRefusedError where it will never store one of them; the others are stored.
        """
        sent: list[_Awaited] = []
        loop = asyncio.get_running_loop()

        async def send(messages: Sequence[Written]) -> None:
            until = loop.time() + timeout_s
            some = [_Awaited(*message, until) for message in messages]
            sent.extend(some)
            if len(some) == 1:
                await self.send(some[0])
            else:
                await self.send_all(some)

        try:
            async with translated():
                yield send
                if sent:
                    async with asyncio.timeout(timeout_s):
                        # Not up to the first refusal: a batch that is refused may be on its way again, singly.
                        answers = await asyncio.gather(*(message.stored for message in sent), return_exceptions=True)
                    for refused in filter(None, answers):
                        raise refused
        finally:
            for message in sent:
                self.forget(message)
                if message.stored.done() and not message.stored.cancelled():
                    message.stored.exception()  # Retrieved, so that asyncio does not log it as never retrieved.

    def _new_token(self) -> str:
        self._count += 1
        return f"{self._count:x}"

    def _leave(self, message: Message) -> None:
        """Have ``message`` in no batch any more."""
        batch, message.batch = message.batch, None
        if batch is not None:
            del batch.members[message]
            if not batch.members:
                self._in_flight.pop(batch.token, None)

    async def _send_batch(self, messages: Sequence[Message]) -> None:
        token = self._new_token()
        # Inboxes are unique, so batches of all copies are told apart. The server takes ids of 64 characters.
        batch = _Batch(messages, token, f"{self._inbox.rpartition('.')[2]}-{token}")
        self._in_flight[token] = batch
        now = time.time_ns()
        for message in messages:
            self._in_flight.pop(message.token, None)
            self._leave(message)
            message.batch = batch
            message.sent_ns = now
        if self.client is None:
            raise ConnectionError("NATS is away")
        await write_at_once(self.client, encoded(messages, batch.id, f"{self._inbox}.{token}"), len(messages))

    async def _on_answer(self, answer: Msg) -> None:
        message = self._in_flight.get(answer.subject.rpartition(".")[2])
        if message is None:
            return  # It came too late, and whoever published was told that it is not known to be stored.
        if answer.headers is not None and answer.headers.get("Status") == "503":
            asyncio.get_running_loop().call_later(RETRY_S, self._again, message)
            return
        del self._in_flight[message.token]
        if isinstance(message, _Batch):
            await self._on_batch(message, answer.data)
        else:
            message.done = True
            await message.answered(refusal(answer.data))

    async def _on_batch(self, batch: _Batch, data: bytes) -> None:
        match batch_refused(data, batch.id, batch.count):
            case Refused.NO:
                for message in list(batch.members):
                    if message.batch is batch:  # Or it was given up while another one was told.
                        message.done, message.batch = True, None
                        del batch.members[message]
                        await message.answered(None)
                return
            case Refused.FOR_BEING_A_BATCH:
                now = asyncio.get_running_loop().time()
                self._singly_until = now + SINGLY_S
                if now - self._said_at >= _SAY_S:
                    self._said_at = now
                    error = data.decode(errors="replace")[:500]
                    self._log.warning("batch_refused", error=error, stream_messages=batch.count)
            case Refused.FOR_DUPLICATES:
                pass  # As after a lost acknowledgement: each is told singly that it is stored.
        await self._send_singly(batch)

    async def _send_singly(self, batch: _Batch) -> None:
        for message in list(batch.members):
            if message.batch is not batch:
                continue
            if asyncio.get_running_loop().time() >= message.until:
                continue  # This process slept, and may write nothing now that was worth writing then.
            with suppress(*AWAY):
                await self.send(message)

    def _again(self, message: Message | _Batch) -> None:
        if message.token in self._in_flight:
            task = asyncio.get_running_loop().create_task(self._send_again(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send_again(self, message: Message | _Batch) -> None:
        if self._in_flight.get(message.token) is not message:
            return  # Since this was begun, nobody waits for it any more.
        some = list(message.members) if isinstance(message, _Batch) else [message]
        now = asyncio.get_running_loop().time()
        # It stays in flight: whoever waits for it sends it after a reconnection, or gives it up.
        with suppress(*AWAY):
            await self.send_all([one for one in some if now < one.until])


class _Awaited(Message):
    """A message whose future is done when it is answered."""

    __slots__ = ("stored",)

    def __init__(self, subject: str, payload: bytes, headers: dict[str, str], until: float) -> None:
        super().__init__(subject, payload, headers, until)
        self.stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def answered(self, refusal: NotStoredError | MessageRefusedError | None) -> None:
        if self.stored.done():
            return  # Too late: nobody waits for it any more.
        if refusal is None:
            self.stored.set_result(None)
        else:
            self.stored.set_exception(refusal)


def headers_of(stream: str, message_id: str, traceparent: str = "") -> dict[str, str]:
    """The headers of a message for ``stream``, which stores no second one with its id while it remembers the first."""
    headers = {"Nats-Msg-Id": message_id, "Nats-Expected-Stream": stream}
    if traceparent:
        headers["traceparent"] = traceparent
    return headers
