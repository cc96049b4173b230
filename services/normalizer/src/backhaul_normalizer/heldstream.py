"""What lies in CALLBACKS under a subject: read, deleted and purged past all consumers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from backhaul_common.errors import BackhaulError
from backhaul_common.feed import formats
from backhaul_common.jetstream import AWAY, subjects, translated
from backhaul_common.names import CALLBACKS_STREAM, HELD_SUBJECTS, NORMALIZER_CONSUMER
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

PAGE_MESSAGES, PAGE_BYTES = 256, 6 << 20
"""What is read at a time. A message with the largest body that a tenant may be allowed is smaller."""

_TIMEOUT_S = 5.0


class Stored(NamedTuple):
    """A message as it lies in the stream. ``age_s`` is since it was stored, by the clocks of the broker and of here."""

    stream_seq: int
    data: bytes
    traceparent: str
    age_s: float


class HeldStream:
    """CALLBACKS, for what is held in it. UNAVAILABLE from every method while JetStream is away."""

    def __init__(self, client: Client, js: JetStreamContext) -> None:
        self._client = client
        self._js = js

    async def subjects(self) -> Mapping[str, int]:
        """The subjects under which anything is held, each with its number of messages."""
        async with translated():
            return await subjects(self._js, CALLBACKS_STREAM, HELD_SUBJECTS)

    async def waiting(self) -> int:
        """Messages that the normalizer has not acknowledged yet, all tenants' together."""
        async with translated():
            info = await self._js.consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def ends(self) -> tuple[int, int, int]:
        """The first and the last position, and when the first message was stored: unix time in microseconds. Of an
        empty stream that is now."""
        state = (await self._ask("STREAM.INFO", {}))["state"]
        first_us = (
            round(datetime.fromisoformat(state["first_ts"]).timestamp() * 1e6) if state["messages"] else _now_us()
        )
        return state["first_seq"], state["last_seq"], first_us

    async def processed(self, position: int) -> bool:
        """Whether all that lay in the stream up to ``position`` was processed, or moved where it is held."""
        async with translated():
            info = await self._js.consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
        if info.ack_floor is not None and info.ack_floor.stream_seq >= position:
            return True
        given = info.delivered.stream_seq if info.delivered is not None else 0
        return given >= position and not info.num_ack_pending

    async def has(self, subject: str, first: int) -> bool:
        """Whether anything lies under ``subject`` from the position ``first`` on, as the stream's leader knows it."""
        async with translated():
            try:
                await self._js.get_msg(CALLBACKS_STREAM, seq=first, subject=subject, next=True)
            except NotFoundError:
                return False
        return True

    async def read(self, subject: str, first: int = 1, messages: int = PAGE_MESSAGES) -> Sequence[Stored]:
        """The messages of ``subject`` from the position ``first`` on, in their order; none where there are none.

        Any of the stream's servers may answer, and be a little behind: what was just deleted may be there still.
        """
        return await self._read(formats.read(first, subject, messages, PAGE_BYTES))

    async def first_since(self, subject: str, since_us: int) -> int | None:
        """The position of the first message of ``subject`` that was stored then or later; None where there is none."""
        since = datetime.fromtimestamp(since_us / 1e6, UTC)
        found = await self._read(formats.read_since(since, subject))
        return found[0].stream_seq if found else None

    async def _read(self, request: bytes) -> Sequence[Stored]:
        async with translated():
            inbox = self._client.new_inbox()
            subscription = await self._client.subscribe(inbox)
            try:
                await self._client.publish(formats.read_subject(CALLBACKS_STREAM), request, reply=inbox)
                found: list[Stored] = []
                while True:
                    message = await subscription.next_msg(timeout=_TIMEOUT_S)
                    headers = message.headers or {}
                    status, _ = formats.status_of(headers)
                    if status:
                        break
                    stored_at = datetime.fromisoformat(headers["Nats-Time-Stamp"]).timestamp()
                    found.append(
                        Stored(
                            int(headers["Nats-Sequence"]),
                            message.data,
                            headers.get("traceparent", ""),
                            time.time() - stored_at,
                        )
                    )
            finally:
                with suppress(*AWAY):
                    await subscription.unsubscribe()
            if status not in formats.END_OF_READ:
                raise ConnectionError(f"the stream answered {status}")
            return found

    async def purge(self, subject: str, up_to: int) -> int:
        """Delete the messages of ``subject`` up to that position; how many there still were."""
        # nats-py's own call does not tell how many.
        answer = await self._ask("STREAM.PURGE", {"filter": subject, "seq": up_to + 1})
        return int(answer.get("purged", 0))

    async def delete(self, positions: Iterable[int]) -> None:
        """Delete what lies at ``positions``, as far as that works. What is left is stored, and nothing else."""

        async def one(position: int) -> None:
            with suppress(BackhaulError):
                # Overwriting it, as nats-py's own call has it done, is for secrets, and costs more than deleting it.
                await self._ask("STREAM.MSG.DELETE", {"seq": position, "no_erase": True})

        await asyncio.gather(*map(one, positions))

    async def _ask(self, what: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        subject = f"$JS.API.{what}.{CALLBACKS_STREAM}"
        async with translated():
            reply = await self._client.request(subject, msgspec.json.encode(request), timeout=_TIMEOUT_S)
            answer: dict[str, Any] = msgspec.json.decode(reply.data)
            if "error" in answer:
                raise ConnectionError(f"the stream answered {answer['error']}")
        return answer


def _now_us() -> int:
    return time.time_ns() // 1000
